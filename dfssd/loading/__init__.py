"""Training images that are decoded once and kept on the device, which makes the views of every batch from them."""
