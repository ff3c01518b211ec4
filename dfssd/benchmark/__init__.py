"""A grid of runs and one table of what came out: ``python scripts/benchmark.py``."""
