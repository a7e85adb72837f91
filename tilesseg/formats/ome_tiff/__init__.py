"""OME-TIFF: masks and scores are written here, OME-XML is read here; the pixels are read in `slide`."""
