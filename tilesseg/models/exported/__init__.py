"""Programs of torch.export, read without unpickling."""
