"""A jail for code that a model wrote."""
