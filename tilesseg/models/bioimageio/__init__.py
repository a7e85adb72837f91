"""Models of bioimage.io."""
