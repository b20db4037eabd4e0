"""The job that makes validated unit tests of functions."""
