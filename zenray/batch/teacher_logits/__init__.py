"""The second job: what a verifier thinks of every token of given texts, written down for a student to learn from."""
