"""Zarr arrays, whatever their convention: read by window, written in whole shards."""
