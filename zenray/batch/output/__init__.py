"""Shards that exist once and whole: lease, manifest, writer, verification."""
