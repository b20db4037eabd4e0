"""What the job tells of its records: fidelity, tables, the report."""
