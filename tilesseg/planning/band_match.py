"""Match of an image and a model: bands by name, pixels by size; a mismatch is refused with both sides."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tilesseg.doubts import doubt
from tilesseg.errors import SourceError

if TYPE_CHECKING:
    from tilesseg.formats.reading.open_options import Opening
    from tilesseg.formats.source import Source
    from tilesseg.models.spec import ModelSpec
    from tilesseg.raster.grid import Grid


UNLIKE = 1.5
"""Factor between the pixel sizes of image and model from which on a note is written."""


def choose_bands(
    source: Source, wanted: Sequence[str], selected: Sequence[str | int] | None, *, image: str
) -> tuple[tuple[int, ...], list[str]]:
    """Bands of the source for the model's channels, and notes about them.

    Raises:
        SourceError: too few bands, a name that is not there, or surplus bands without names.
    """
    names = source.bands
    shown = ", ".join(name or f"{i} (no name)" for i, name in enumerate(names, start=1))
    if selected is not None:
        if len(selected) != len(wanted):
            raise SourceError(
                f"{len(selected)} bands are selected, the model takes {len(wanted)} ({', '.join(wanted)}); "
                "select as many with --bands, or input.bands"
            )
        return tuple(_index(band, source, image=image, shown=shown) for band in selected), []
    if names == ("palette",) and len(wanted) > 1:
        raise SourceError(
            f"{image} is a palette image, 1 band of indices into a colour table, and the model takes {len(wanted)} "
            f"({', '.join(wanted)}); make bands of its colours first: gdal_translate -expand rgb"
        )
    if len(names) < len(wanted):
        raise SourceError(
            f"{image} has {len(names)} bands ({shown}) and the model takes {len(wanted)} ({', '.join(wanted)}); "
            "add the missing bands, or take another model"
        )
    lowered = [name and name.lower() for name in names]
    if all(lowered.count(name.lower()) == 1 for name in wanted):
        return tuple(lowered.index(name.lower()) for name in wanted), []
    if len(names) > len(wanted):
        raise SourceError(
            f"{image} has {len(names)} bands ({shown}) and the model takes {len(wanted)} ({', '.join(wanted)}); "
            f"choose them with --bands, e.g. --bands {','.join(map(str, range(1, len(wanted) + 1)))}"
        )
    note = f"bands are taken in the file's order ({shown}) for the model's {', '.join(wanted)}"
    return tuple(range(len(names))), [doubt("bands-by-order", note)]


def _index(band: str | int, source: Source, *, image: str, shown: str) -> int:
    names = source.bands
    if isinstance(band, str) and not band.isdecimal():
        matches = [i for i, name in enumerate(names) if name is not None and name.lower() == band.lower()]
        matches = matches or _by_file(band, source)
        if len(matches) != 1:
            raise SourceError(
                f"{image} has {len(matches)} bands named {band}, its bands are {shown}; give one of these"
            )
        return matches[0]
    if not 1 <= int(band) <= len(names):
        raise SourceError(f"{image} has no band {band}, its bands are {shown}; give a number from 1 to {len(names)}")
    return int(band) - 1


def _by_file(band: str, source: Source) -> list[int]:
    """Bands whose file name has the sensor's own name of the band: `T33UVU_…_B04_10m.jp2` is `B04`."""
    files = [Path(str(facts.get("file", ""))).name.lower() for facts in source.describe()["bands"]]
    return [i for i, file in enumerate(files) if band.lower() in re.split(r"[_.-]", file)[:-1]]


def contract_resolution(grid: Grid, spec: ModelSpec, opening: Opening, *, image: str) -> float | None:
    """Pixel size to read a scene at, in its grid's unit, or None for its own pixels.

    The job's pixel size comes first, then the micrometres per pixel that the model states.

    Args:
        grid: the image's own grid.
        spec: the model's contract.
        opening: options of the job for opening the image.
        image: names the scene in the refusal.

    Raises:
        SourceError: the model states micrometres per pixel, and the size of the image's pixels is not known.
    """
    if opening.resolution is not None or opening.level is not None or spec.mpp is None:
        return opening.resolution
    if grid.unit == "micrometre":
        return spec.mpp
    if grid.crs is None:
        stated, remedy = "no micrometres per pixel", "the image's own as input.mpp (--mpp)"
    else:
        stated, remedy = (
            f"a CRS with pixels in {grid.unit}",
            f"the pixel size to read in {grid.unit} as input.resolution",
        )
    raise SourceError(
        f"{image} has {stated}, and {spec.name} needs {spec.mpp:g} µm; give {remedy}, or take another model"
    )


def resolution_note(grid: Grid, spec: ModelSpec) -> str | None:
    """Note about pixels that are much finer or coarser than those that the model was trained on, or None."""
    trained = spec.resolution if spec.mpp is None else spec.mpp * 1e-6
    if trained is None or grid.metres_per_unit is None:
        return None
    metres = float(np.mean(grid.resolution)) * grid.metres_per_unit
    if 1 / UNLIKE <= metres / trained <= UNLIKE:
        return None
    return doubt(
        "pixel-size",
        f"pixels are {metres:.4g} m and {spec.name} was trained on {trained:g} m; to resample on reading, give "
        f"input.resolution: {trained / grid.metres_per_unit:.6g}",
    )
