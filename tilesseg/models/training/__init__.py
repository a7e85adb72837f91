"""Training a U-Net, and a made-up landscape to train it on."""
