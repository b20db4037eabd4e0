"""From what surrounds a cursor to the prompt: gather, rank, drop duplicates, choose, lay out."""
