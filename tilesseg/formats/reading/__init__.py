"""What all readers share: options, validity, resampling, edge padding, thumbnails."""
