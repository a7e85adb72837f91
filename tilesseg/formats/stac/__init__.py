"""STAC items and catalogs."""
