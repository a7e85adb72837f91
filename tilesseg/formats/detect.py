"""Detection of the format of an image before it is opened: the name of its row in `FORMATS`."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import tifffile


SLIDE_SUFFIXES = (".svs", ".ndpi", ".mrxs", ".scn", ".vms", ".vmu", ".bif", ".svslide", ".dcm", ".czi", ".qptiff")
_TIFF_SUFFIXES = (".tif", ".tiff", ".btf", ".tf8")
_PAGES = 16
"""Number of pages of a TIFF that are examined."""
_SLACK = 0.02
"""Share by which the proportions of a coarser level may differ: its sides are whole numbers."""


# tifffile logs its complaints about odd files, and without a handler Python prints them.
logging.getLogger("tifffile").addHandler(logging.NullHandler())


def format_of(path: str) -> str:
    """Name of the format that opens a path: `ome-zarr`, `zarr`, `ome-tiff`, `slide`, else `geotiff`."""
    if is_zarr(path):
        return "ome-zarr" if _is_ome_zarr(Path(path)) else "zarr"
    name = path.lower()
    if "://" in path or path.startswith("/vsi"):  # no local file: only GDAL can open it
        return "geotiff"
    if name.endswith(SLIDE_SUFFIXES):
        return "slide"
    if name.endswith(".companion.ome"):
        return "ome-tiff"
    return _tiff_kind(path) if name.endswith(_TIFF_SUFFIXES) and os.path.isfile(path) else "geotiff"


def is_zarr(path: str) -> bool:
    """Whether a path is a Zarr array or group in the local file system, or has the name of one."""
    if "://" in path or path.startswith("/vsi"):
        return False
    folder = Path(path)
    metadata = any((folder / name).is_file() for name in ("zarr.json", ".zgroup", ".zarray"))
    return metadata or (any(part.lower().endswith(".zarr") for part in folder.parts) and not folder.is_file())


def _is_ome_zarr(folder: Path) -> bool:
    """Whether a group has OME's `multiscales`, in the place of 0.5 or of 0.4 (GeoZarr has a key of this name, too)."""
    try:
        if (folder / "zarr.json").is_file():
            attributes = json.loads((folder / "zarr.json").read_text(encoding="utf-8")).get("attributes", {})
            return isinstance(attributes.get("ome"), dict)
        attributes = json.loads((folder / ".zattrs").read_text(encoding="utf-8"))
    except (OSError, ValueError, AttributeError):
        return False  # the refusal comes from the format that opens it
    if not isinstance(attributes, dict):
        return False
    groups = ("bioformats2raw.layout", "plate", "well")  # groups of images; the refusal of a plate names them
    listed = any(isinstance(attributes.get(key), list) for key in ("multiscales", "labels"))
    return listed or any(key in attributes for key in groups)


def _tiff_kind(path: str) -> str:
    """`ome-tiff`, `slide` or `geotiff`; a file that tifffile cannot open is left to GDAL, whose message says why."""
    import tifffile

    try:
        with tifffile.TiffFile(path) as file:
            return _kind(file)
    except Exception:  # tifffile raises errors of all kinds on a damaged file
        return "geotiff"


def _kind(file: tifffile.TiffFile) -> str:
    first = file.pages.first
    if first.is_geotiff:
        return "geotiff"
    if file.is_ome:
        return "ome-tiff"
    if file.is_imagej:  # GDAL sees its first channel, as a picture with a colour table
        return "slide"
    vendor = file.is_svs or file.is_ndpi or file.is_scn or file.is_philips or file.is_bif or file.is_qpi
    return "slide" if vendor or (_is_pyramid(file) and not _is_gdals(file)) else "geotiff"


def _is_pyramid(file: tifffile.TiffFile) -> bool:
    """Whether the first image is tiled and one of the next pages is a coarser level of it.

    The series of tifffile are more exact, but tifffile reads every page for them, and a file may have thousands.
    """
    first = file.pages.first
    return bool(first.is_tiled and (first.subifds or any(_coarser(page, first) for page in _following(file))))


def _coarser(page: Any, first: tifffile.TiffPage) -> bool:
    """Whether a page is tiled, smaller, of the same proportions and samples."""
    ratios = page.imagelength / first.imagelength, page.imagewidth / first.imagewidth
    smaller = max(ratios) < 0.75 and abs(ratios[0] - ratios[1]) < _SLACK
    return bool(page.is_tiled and smaller and page.samplesperpixel == first.samplesperpixel)


def _is_gdals(file: tifffile.TiffFile) -> bool:
    """Whether GDAL wrote the file: it has GDAL's metadata, nodata, a mask, or the layout of a COG."""
    if any(code in file.pages.first.tags for code in (42112, 42113)) or any(page.is_mask for page in _following(file)):
        return True
    file.filehandle.seek(16 if file.is_bigtiff else 8)
    return bytes(file.filehandle.read(24)) == b"GDAL_STRUCTURAL_METADATA"


def _following(file: tifffile.TiffFile) -> Iterator[Any]:
    """The first pages after the first image."""
    for number in range(1, _PAGES):
        try:
            yield file.pages.get(number)
        except IndexError:
            return
