"""Zarr arrays: reading them by window, their hierarchy, and writing whole shards."""
