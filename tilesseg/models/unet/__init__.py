"""Our U-Net: its arithmetic, its PyTorch module, its weights file."""
