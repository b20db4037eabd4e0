"""Where documents come from: folders, git revisions, JSONL, Parquet."""
