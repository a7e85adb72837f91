"""Training a U-Net, and an invented landscape to train it on."""
