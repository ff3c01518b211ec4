"""New classes for a trained detector, without old images and without forgetting."""
