"""The way from a row to the verifiers, and back with its tokens."""
