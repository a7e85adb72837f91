"""Our U-Net."""
