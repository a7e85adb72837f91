"""Masks and scores as OME-TIFF."""
