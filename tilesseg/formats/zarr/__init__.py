"""Zarr arrays of any convention: read by window, written in whole shards."""
