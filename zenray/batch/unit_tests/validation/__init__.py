"""What each test is worth: runs in the sandbox on the function, its mutants and its rivals."""
