"""Ways to use a database from outside Python."""
