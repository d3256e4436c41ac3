"""Figures that `make bench-vectors` prints: search by vector, now and in the past, and peers."""
