"""Products of several files: Sentinel-2 SAFE, Landsat, STAC items."""
