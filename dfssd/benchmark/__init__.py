"""A grid of runs and a table of their results: ``python scripts/benchmark.py``."""
