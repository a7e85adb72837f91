"""Satellite scenes delivered as several files: Sentinel-2 SAFE, Landsat, assets of STAC items."""
