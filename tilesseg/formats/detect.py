"""Detection of the format of an image before it is opened: the name of its row in `FORMATS`."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tilesseg.formats.registry import resolve
from tilesseg.formats.zarr.zipped import ROOTS, exists, open_file, split_zip, zarr_root
from tilesseg.paths import opened_by_gdal

SLIDE_SUFFIXES = (".svs", ".ndpi", ".mrxs", ".scn", ".vms", ".vmu", ".bif", ".svslide", ".dcm", ".czi", ".qptiff")
_TIFF_KIND = "tilesseg.formats.slide.tiff_kind:tiff_kind"
"""Function that tells kinds of TIFF apart; it imports tifffile."""
_DICOM_FOLDER = "tilesseg.formats.slide.dicom_series:is_dicom_folder"
_SPATIALDATA = "spatialdata_attrs"
"""Attribute of SpatialData, whose root holds its images in `images`."""
_TIFF_SUFFIXES = (".tif", ".tiff", ".btf", ".tf8", ".lsm", ".stk")


def format_of(path: str) -> str:
    """Name of the format that opens a path: `ome-zarr`, `zarr`, `ome-tiff`, `slide`, else `geotiff`."""
    if is_zarr(path):
        return "ome-zarr" if _is_ome_zarr(zarr_root(path)) else "zarr"
    name = path.lower()
    if opened_by_gdal(path):
        return "geotiff"
    if name.endswith(SLIDE_SUFFIXES) or resolve(_DICOM_FOLDER)(path):
        return "slide"
    if name.endswith(".companion.ome"):
        return "ome-tiff"
    if not name.endswith(_TIFF_SUFFIXES) or not os.path.isfile(path):
        return "geotiff"
    return str(resolve(_TIFF_KIND)(path))


def format_of_list(paths: Sequence[str]) -> str:
    """Name of the format that opens several files as one image: `slide` for files of DICOM, else `geotiff`."""
    return "slide" if all(path.lower().endswith(".dcm") for path in paths) else "geotiff"


def is_zarr(path: str) -> bool:
    """Whether a path is a Zarr array or group in the local file system, or in a zip file, or has the name of one."""
    if opened_by_gdal(path):
        return False
    folder = Path(path)
    if split_zip(path) is not None:
        return any(exists(os.path.join(zarr_root(path), name)) for name in ROOTS)
    metadata = any(os.path.isfile(folder / name) for name in ROOTS)
    return metadata or (any(part.lower().endswith(".zarr") for part in folder.parts) and not os.path.isfile(path))


def _is_ome_zarr(path: str) -> bool:
    """Whether a group has OME's `multiscales`, in the place of 0.5 or of 0.4 (GeoZarr has a key of this name, too)."""
    try:
        if exists(os.path.join(path, "zarr.json")):
            attributes = _read_json(os.path.join(path, "zarr.json")).get("attributes", {})
            return isinstance(attributes.get("ome"), dict) or _SPATIALDATA in attributes
        attributes = _read_json(os.path.join(path, ".zattrs"))
    except (OSError, ValueError, AttributeError):
        return False  # the refusal comes from the format that opens it
    if not isinstance(attributes, dict):
        return False
    groups = ("bioformats2raw.layout", "plate", "well", _SPATIALDATA)  # their refusal names the images
    listed = any(isinstance(attributes.get(key), list) for key in ("multiscales", "labels"))
    return listed or any(key in attributes for key in groups)


def _read_json(path: str) -> Any:
    with open_file(path) as file:
        return json.loads(file.read())
