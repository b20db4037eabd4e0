"""Batch jobs: rows in, exactly-once shards out, through the actors that serve editors."""
