"""Files that lie where a product is to be written: those of the same run are replaced, others only on request.

Each product, and each file beside it, has the fingerprint of its scene's plan in its metadata: a hash of image, network
and options, which no file has by chance. A file that somebody has drawn or styled does not have it.
"""

from __future__ import annotations

import os
from pathlib import Path

from tilesseg.errors import FormatError, cannot
from tilesseg.formats.writing.geopackage_file import geopackage_tables

_EDGE = 1 << 20
"""Number of bytes at the beginning and the end of a file that are searched: all formats have their metadata there."""
_METADATA = ("zarr.json", ".zattrs")
LAYER = "mask"
"""Name of the layer of polygons in a GeoPackage."""


def replaced_at(path: Path, fingerprint: str, *, overwrite: bool = False) -> str | None:
    """Sentence on the file at the target of a product, its end alone: `in place of …`; None where there is none.

    Args:
        path: target of the product, or of a file beside it.
        fingerprint: fingerprint of the scene's plan, `plan_fingerprint` in the provenance of its products.
        overwrite: whether the user wants files of others to be replaced.

    Raises:
        FormatError: something lies there that is not of this run, and it is not to be replaced.
    """
    if not os.path.lexists(path):
        return None
    tables = geopackage_tables(path) if path.suffix.lower() == ".gpkg" and path.is_file() else None
    if tables is not None:
        if LAYER not in tables:
            return f"as a layer beside {', '.join(tables)}" if tables else None
        what, own = f"a layer {LAYER}", fingerprint in tables[LAYER]
    else:
        what, own = ("a folder" if path.is_dir() else "a file"), _holds(path, fingerprint)
    if own:
        return "in place of an earlier product of this run"
    if overwrite:
        return f"in place of {what} that this run did not write"
    because, do = f"{what} that this run did not write lies there", "choose another path, or replace it by --overwrite"
    raise FormatError(cannot(f"write {path}", because, f"{do} (in a job, output.overwrite: true)"))


def _holds(path: Path, fingerprint: str) -> bool:
    """Whether a file, or the metadata of a Zarr, hold a fingerprint."""
    if path.is_dir():
        return any(_holds(path / name, fingerprint) for name in _METADATA if (path / name).is_file())
    if not path.is_file() or not fingerprint:
        return False
    with path.open("rb") as file:
        edges = file.read(_EDGE)
        file.seek(max(len(edges), path.stat().st_size - _EDGE))
        return fingerprint.encode() in edges + file.read(_EDGE)
