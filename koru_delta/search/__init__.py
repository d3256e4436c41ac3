"""Reading the log: filters, queries, vectors in time."""
