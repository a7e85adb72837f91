"""Masks and scores as Cloud-Optimised GeoTIFF. Only written: GeoTIFF files are read in `geotiff`."""
