"""Functions worth a test, out of documents, each with the module in which it runs alone."""
