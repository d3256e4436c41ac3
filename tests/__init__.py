"""Tests of KoruDelta; `tests.crash` and `tests.processes` also run by themselves."""
