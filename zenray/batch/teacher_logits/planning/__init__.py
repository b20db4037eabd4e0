"""From documents to the sequences that are scored: FIM, windows, packing."""
