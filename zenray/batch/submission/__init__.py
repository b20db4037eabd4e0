"""Jobs from outside: handing them to a job server, finding them again, saying how they are."""
