"""STAC items and collections: which scenes they name."""
