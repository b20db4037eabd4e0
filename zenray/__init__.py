"""zenray: code-completion serving and batch generation on Ray."""

__version__ = "0.1.0"
