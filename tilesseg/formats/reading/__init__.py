"""What every reader shares: options, reflection, resampling, sampling, thumbnails."""
