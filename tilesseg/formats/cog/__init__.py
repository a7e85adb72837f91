"""Masks and scores as Cloud-Optimised GeoTIFF."""
