"""Reading, shared by all formats: the image, options, validity, pixel size, resampling, statistics, edge padding."""
