"""Text: what its terms are, what a query asks for, which documents answer it best."""
