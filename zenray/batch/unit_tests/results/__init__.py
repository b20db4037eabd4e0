"""What a finished job leaves: records, a pytest tree, a report, and a second look at all of it."""
