"""Stored scores as a Cloud-Optimised GeoTIFF: a band for each class, 0–250 standing for 0–1."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from tilesseg.formats import FAILED_CLASS, Scores
from tilesseg.formats.cog_file import NAMESPACE, Layer, provenance_tags, write_layers
from tilesseg.labels import FAILED, NODATA, SCORE_STEPS
from tilesseg.pyramid import halve_mean


def write_scores(scores: Scores, path: Path, *, threads: int = 1) -> tuple[Path, ...]:
    """Write `path` as a COG of bytes with nodata 255, each band with its class's name, scale 1/250 and offset 0.

    Memory and disk as `cog_file.write_layers` says: one class at a time. A level is the mean of the level below,
    without 254 and 255.

    Args:
        scores: what to write; each class is read once, in bands of 512 rows.
        path: the target; its folder must exist.
        threads: of GDAL, for compressing.

    Returns:
        The COG, and GDAL's `.aux.xml` where the CRS does not fit into GeoTIFF keys.

    Raises:
        FormatError: it cannot be written, or what was written has holes; nothing is left behind.
    """
    facts = {"ColorInterp": "Gray", "Offset": "0", "Scale": repr(1 / SCORE_STEPS)}
    layers = [
        Layer(name, partial(scores.read, number), halve_mean, facts) for number, name in enumerate(scores.classes)
    ]
    tags = provenance_tags(scores.provenance) | {
        f"{NAMESPACE}SCORE_{FAILED}": FAILED_CLASS.name,
        f"{NAMESPACE}SCORE_{NODATA}": "nodata",
    }
    return write_layers(path, scores.grid, layers, tags=tags, threads=threads)
