"""From what the model said to tests and re-implementations."""
