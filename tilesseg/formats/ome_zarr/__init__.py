"""OME-Zarr 0.4 and 0.5: images as sources, masks and scores as products."""

from __future__ import annotations

from tilesseg.formats.ome_zarr.source import open_ome_zarr
from tilesseg.formats.ome_zarr.writer import check_ome_zarr, write_ome_zarr, write_ome_zarr_scores

__all__ = ["check_ome_zarr", "open_ome_zarr", "write_ome_zarr", "write_ome_zarr_scores"]
