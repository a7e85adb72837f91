"""Programs of torch.export (.pt2), read without unpickling. Tied to its schema 8."""
