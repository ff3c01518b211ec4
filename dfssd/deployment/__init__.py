"""What runs a trained network where it is used, and the files that it needs there."""
