"""How much of a draft model's guesses the teacher of a dump would accept, without running speculation."""
