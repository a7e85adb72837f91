"""Match of an image and a model: bands by name, values by range; a mismatch is refused with both sides."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tilesseg.doubts import doubt
from tilesseg.errors import SourceError
from tilesseg.models.normalisation import mean_std, percentiles

if TYPE_CHECKING:
    from tilesseg.formats.reading.open_options import Opening
    from tilesseg.formats.source import Source
    from tilesseg.models.spec import ModelSpec
    from tilesseg.raster.grid import Grid


UNLIKE = 1.5
"""Factor between the pixel sizes of image and model from which on a note is written."""
DARKEST = 20.0
"""Factor by which a scene may span less than the model's input range (night, deep water) without being refused."""


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


def value_range(sample: NDArray[np.float64]) -> tuple[float, float] | None:
    """2–98 % range of the sampled values `(channel, n)` over all bands, or None without values."""
    if sample.shape[1] == 0:
        return None
    low, high = percentiles(sample, 2, 98)
    return min(low), max(high)


def check_range(
    span: tuple[float, float],
    spec: ModelSpec,
    *,
    image: str,
    scaling: tuple[float, float] | None = (1.0, 0.0),
    given: bool = False,
) -> None:
    """Refuse values that do not fit the model: another unit, another scaling.

    Values are too large at twice the model's range, and too small at a twentieth of it: dark scenes are common, and a
    wrong unit is wrong by more. A model that is normalised by the scene's own statistics takes any unit.

    Args:
        span: 2–98 % range of the values as they are read.
        spec: the model's contract.
        image: names the scene in the refusal.
        scaling: scale and offset with which they are read, or None where the bands differ in them.
        given: whether the job states scale and offset, and not the file.

    Raises:
        SourceError: the values do not fit; the message has both ranges, and the scale and offset that would fit.
    """
    low, high = spec.input_range
    if spec.normalise.needs_scene or _fits(span, low, high):
        return
    raise SourceError(
        f"{image} has values from {span[0]:.6g} to {span[1]:.6g} (2–98 %) and the model expects {low:.6g} to "
        f"{high:.6g}; {_remedy(span, low, high, scaling, given=given)} (check_range: false takes it as it is)"
    )


def _fits(span: tuple[float, float], low: float, high: float) -> bool:
    size, reach = high - low, max(span[1] - low, high - span[0])
    return reach <= 2 * size and DARKEST * (span[1] - low) >= size


def _remedy(
    span: tuple[float, float], low: float, high: float, scaling: tuple[float, float] | None, *, given: bool
) -> str:
    """Remedy: scale and offset that bring the values into the model's range, where there are any."""
    if given and scaling is not None:
        return f"correct the scale {scaling[0]:.9g} and offset {scaling[1]:.9g} that you gave"
    least = min(span[0], 0.0)
    if scaling is None or span[1] <= least:
        return "take another model, or another image"
    scale = _nice((high - low) / (span[1] - least))
    alone = scale * span[0], scale * span[1]
    shift = 0.0 if _fits(alone, low, high) else low - scale * least
    total, offset = scale * scaling[0], scale * scaling[1] + shift
    return f"if the units differ, give input.scale: {total:.9g}, input.offset: {offset:.9g}"


def _nice(scale: float) -> float:
    """Closest usual scale: a power of ten, or full scale of an integer type.

    At most 1.9 times the scale, which stays within what `check_range` accepts.
    """
    usual = [10.0**power for power in range(-6, 7)] + [1 / 255, 255.0, 1 / 65535, 65535.0, 1 / 257, 257.0]
    near = [candidate for candidate in usual if scale / 3 < candidate < 1.9 * scale]
    return min(near, key=lambda candidate: abs(np.log(candidate / scale)), default=float(f"{scale:.3g}"))


def scene_statistics(sample: NDArray[np.float64], spec: ModelSpec) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Numbers to subtract and to divide by, for each band: the model's, or the scene's where the model needs them."""
    rule = spec.normalise
    if not rule.needs_scene:
        fixed = spec.normalisation()
        return fixed.subtract, fixed.divide
    if sample.shape[1] == 0:
        return (0.0,) * len(spec.bands), (1.0,) * len(spec.bands)
    scale, offset = spec.scaling
    values = sample * scale + offset
    bands = 1
    if rule.joint:
        bands, values = len(values), values.reshape(1, -1)
    if rule.kind == "scene_mean_std":
        mean, std = mean_std(values, eps=rule.eps)
        return mean * bands, std * bands
    assert isinstance(rule.low, float) and isinstance(rule.high, float)  # checked by the spec
    low, high = percentiles(values, rule.low, rule.high)
    return low * bands, tuple(h - lo + rule.eps or 1.0 for lo, h in zip(low, high, strict=True)) * bands
