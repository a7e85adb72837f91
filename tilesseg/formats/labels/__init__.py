"""Labels: what is true in a window of an image? Rasters and vectors answer alike, as classes of its pixels."""
