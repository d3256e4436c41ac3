"""Figures that `make bench` prints: ours, a peer's beside them, the target, met or missed."""
