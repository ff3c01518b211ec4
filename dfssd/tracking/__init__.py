"""A run in TensorBoard, MLflow or Weights & Biases (docs/tracking.md).

A tracker is given what the run has written to its own folder, and never anything else: whatever fails on the way to a
server can be sent again later.
"""
