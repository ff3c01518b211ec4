"""What the command line shows of engines and inputs before anything large is imported."""

SERIAL, RAY = "serial", "ray"
ENGINES = (SERIAL, RAY)

LARGEST = 8192
"""Largest side of the input [px]."""
