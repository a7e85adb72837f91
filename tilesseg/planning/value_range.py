"""Range check: whether the values of a scene are in the unit that the model takes, and statistics of the scene.

The unit is judged, never the content: by the data type in the file, the largest value, and whether values are whole.
A dark scene or an empty field of the right unit is a result. The scales that a refusal offers are those that exist;
none is fitted to the scene.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tilesseg.doubts import doubt
from tilesseg.errors import SourceError
from tilesseg.models.normalisation import mean_std, percentiles

if TYPE_CHECKING:
    from tilesseg.formats.source import Source
    from tilesseg.models.spec import ModelSpec

Unit = Literal["share", "byte", "count"]
"""Unit of values: shares of 1 (reflectance), 8 bit, or numbers of any other size."""
Verdict = Literal["fits", "doubtful", "differs"]

HIGHEST_SHARE = 5.0
"""Largest value of a share: reflectance of ice and clouds reaches beyond 1, no other unit stays below."""
BYTE = 255.0
FAR = 20.0
"""Factor between the ranges of scene and model from which on a doubt is noted."""
_LANDSAT_DARK = 6000.0  # Landsat Collection 2 writes reflectance 0 as 7273
_SENTINEL_2 = re.compile(r"b8a|b0?9|b1[0-2]|sentinel-?2", re.IGNORECASE)  # names that Landsat does not share
_LANDSAT = re.compile(r"sr_b\d", re.IGNORECASE)
_MULTISPECTRAL = re.compile(r"nir|swir|rededge|coastal|cirrus", re.IGNORECASE)


class Scale(NamedTuple):
    """A scale and offset that exist, and what they are for."""

    scale: float
    offset: float
    name: str


REFLECTANCE = Scale(1e-4, 0.0, "reflectance × 10 000, as of Sentinel-2")
LANDSAT = Scale(2.75e-5, -0.2, "Landsat Collection 2, Level 2")
DEPTHS = (Scale(1 / 255, 0.0, "8 bit"), Scale(1 / 4095, 0.0, "12 bit"), Scale(1 / 65535, 0.0, "16 bit"))
"""Scales from a bit depth to shares."""


@dataclass(frozen=True, slots=True)
class SceneValues:
    """The values of a scene's sample, over all selected bands together."""

    span: tuple[float, float]
    """2–98 % range, the widest of the bands."""
    least: float
    most: float
    dtypes: tuple[str, ...]
    """Data types in the file."""
    scaling: tuple[float, float] | None = (1.0, 0.0)
    """Scale and offset with which they are read, or None where the bands differ in them."""
    whole: bool = False
    """Whether all of them are whole numbers."""
    names: tuple[str, ...] = ()
    """Names of all bands of the image."""
    located: bool = False
    """Whether the image lies on the Earth."""

    @property
    def integers(self) -> bool:
        """Whether they are read as the integers that the file holds."""
        return self.scaling == (1.0, 0.0) and all(np.dtype(dtype).kind in "iu" for dtype in self.dtypes)

    @property
    def empty(self) -> bool:
        """Whether all of them are 0, which is so in any unit."""
        return self.least == self.most == 0

    def rescaled(self, scale: float, offset: float) -> SceneValues:
        """The values as they would be read with another scale and offset."""
        old, shift = self.scaling or (1.0, 0.0)
        first, last, least, most = ((v - shift) / old * scale + offset for v in (*self.span, self.least, self.most))
        stays = (scale, offset) == (1.0, 0.0)
        whole = stays and all(np.dtype(dtype).kind in "iu" for dtype in self.dtypes)
        new = replace(self, span=(first, last), least=least, most=most, scaling=(scale, offset), whole=whole)
        return new if scale / old > 0 else replace(new, span=(last, first), least=most, most=least)


def scene_values(sample: NDArray[np.float64], source: Source) -> SceneValues | None:
    """Facts of the sampled values `(channel, n)` of the selected bands, or None without values."""
    if sample.shape[1] == 0:
        return None
    low, high = percentiles(sample, 2, 98)
    pairs = {source.scaling[i] for i in source.selected}
    few = sample[:, :: max(1, sample.shape[1] // 10_000)]
    return SceneValues(
        (min(low), max(high)),
        float(sample.min()),
        float(sample.max()),
        tuple(str(source.file_dtypes[i]) for i in source.selected),
        pairs.pop() if len(pairs) == 1 else None,
        bool((few == np.rint(few)).all()),
        tuple(name or "" for name in source.bands),
        source.grid.crs is not None,
    )


def check_range(values: SceneValues, spec: ModelSpec, *, image: str, given: bool = False) -> str | None:
    """Refuse values of another unit than the model's.

    A model that is normalised by the scene's own statistics takes any unit.

    Args:
        values: the scene's values as they are read.
        spec: the model's contract.
        image: names the scene in the refusal.
        given: whether the job states scale and offset, and not the file.

    Returns:
        A note where the unit may be another one, else None.

    Raises:
        SourceError: the unit is another one; the message has both ranges, and the scales that exist and would do.
    """
    if spec.normalise.needs_scene:
        return None
    verdict, (low, high) = judge_unit(values, spec), spec.input_range
    types = " and ".join(sorted(set(values.dtypes)))
    has = (
        f"has values from {values.span[0]:.6g} to {values.span[1]:.6g} (2–98 %), at most {values.most:.6g}, of {types}"
    )
    expects = f"the model expects {low:.6g} to {high:.6g}"
    if verdict == "differs":
        remedy = _remedy(values, spec, given=given)
        raise SourceError(
            f"{image} {has}, and {expects}, another unit; {remedy} (check_range: false, or --no-check-range, takes the "
            "values as they are)"
        )
    return doubt("value-range", f"the image {has}, and {expects}") if verdict == "doubtful" else None


def judge_unit(values: SceneValues, spec: ModelSpec) -> Verdict:
    """Whether the unit of the values is the model's.

    It differs where that is sure. It is doubtful where the unit allows it, but no value comes near the model's range,
    or most lie beyond.
    """
    if values.empty:
        return "fits"
    (low, high), ours, theirs = spec.input_range, unit_of_model(spec), unit_of_scene(values)
    if ours == "share":
        inside = min(low, 0.0) <= values.least and values.most <= max(high, 1.0)
        return "fits" if theirs == "share" or inside else _unless_outliers(values, HIGHEST_SHARE)
    if theirs == "share" and high >= BYTE / 2 and values.most <= 2.0:
        return "differs"
    if ours == "byte":
        if theirs == "byte":
            return "fits"
        most = BYTE if values.integers else 2 * BYTE  # resampling may overshoot
        return "fits" if values.most <= most else _unless_outliers(values, most)
    if theirs == "byte" and values.integers and set(values.dtypes) <= {"uint8", "int8"}:
        return "fits" if high <= 2 * BYTE else "differs"
    return _near(values, low, high)


def unit_of_model(spec: ModelSpec) -> Unit:
    """Unit of the values that a model takes, by its `input_range` and `dtype`."""
    low, high = spec.input_range
    if max(abs(low), abs(high)) <= HIGHEST_SHARE:
        return "share"
    bytes_alone = spec.dtype in ("uint8", "int8") or high == BYTE
    return "byte" if high <= BYTE and low >= -128 and bytes_alone else "count"


def unit_of_scene(values: SceneValues) -> Unit:
    """Unit of a scene's values: by the type in the file, or, of scaled and of real numbers, by the largest."""
    if values.integers:
        return "byte" if set(values.dtypes) <= {"uint8", "int8"} else "count"
    if max(abs(values.least), abs(values.most)) <= HIGHEST_SHARE and not values.whole:
        return "share"
    return "byte" if values.whole and values.least >= 0 and values.most <= BYTE else "count"


def scene_statistics(sample: NDArray[np.float64], spec: ModelSpec) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Numbers to subtract and to divide by, for each band: the model's, or the scene's where the model needs them.

    Args:
        sample: valid values `(channel, n)`; not empty where the model needs statistics of the scene.
        spec: the model's contract.
    """
    rule = spec.normalise
    if not rule.needs_scene:
        fixed = spec.normalisation()
        return fixed.subtract, fixed.divide
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


def _unless_outliers(values: SceneValues, most: float) -> Verdict:
    """Real numbers of which only a few lie beyond are doubtful; integers have no outliers, their type says it."""
    bulk = max(abs(values.span[0]), abs(values.span[1]))
    return "doubtful" if bulk <= most and not values.integers else "differs"


def _near(values: SceneValues, low: float, high: float) -> Verdict:
    """Whether numbers of any size come near the range of the model: the unit does not say more."""
    size, reach = high - low, max(values.span[1] - low, high - values.span[0])
    return "fits" if reach <= 4 * size and FAR * (values.most - low) >= size else "doubtful"


def _remedy(values: SceneValues, spec: ModelSpec, *, given: bool) -> str:
    """Remedy: the existing scales with which the unit is the model's, where there are any."""
    if given and values.scaling is not None:
        return f"correct the scale {values.scaling[0]:.9g} and offset {values.scaling[1]:.9g} that you gave"
    fitting = [
        one for one in _existing(values, spec) if judge_unit(values.rescaled(one.scale, one.offset), spec) == "fits"
    ]
    if values.scaling is None or not fitting:
        return "take another model, or another image"
    offers = (f"input.scale: {one.scale:.9g}, input.offset: {one.offset:g} ({one.name})" for one in fitting)
    return f"give {', or '.join(dict.fromkeys(offers))}"


def _existing(values: SceneValues, spec: ModelSpec) -> Iterator[Scale]:
    """Scales that images of this kind have, the likeliest first."""
    (low, high), integers = spec.input_range, all(np.dtype(dtype).kind in "iu" for dtype in values.dtypes)
    if low < -HIGHEST_SHARE / 10 or (values.least < 0 and not integers):
        return
    if values.scaling != (1.0, 0.0) and integers:
        yield Scale(1.0, 0.0, "the numbers of the file")
    if unit_of_model(spec) == "share":
        yield from _to_shares(values.rescaled(1.0, 0.0), spec)
    elif unit_of_scene(values) == "share":
        yield from _from_shares(values, high, spec)
    elif unit_of_model(spec) == "byte" and not _named(values, _SENTINEL_2):
        yield from (Scale(BYTE * one.scale, 0.0, f"{one.name} to 8 bit") for one in _depths(values))


def _to_shares(numbers: SceneValues, spec: ModelSpec) -> Iterator[Scale]:
    """Scales from the numbers of a file to shares."""
    if _named(numbers, _LANDSAT):
        yield LANDSAT
        return
    reflecting = numbers.located or any(_MULTISPECTRAL.search(band) for band in spec.bands)
    sentinel = _named(numbers, _SENTINEL_2)
    if numbers.most > BYTE and (sentinel or reflecting):
        yield REFLECTANCE
        if sentinel:
            return
        if numbers.span[0] >= _LANDSAT_DARK:
            yield LANDSAT
    yield from _depths(numbers)


def _from_shares(values: SceneValues, high: float, spec: ModelSpec) -> Iterator[Scale]:
    """Scales from shares to the numbers of a model that reach to `high`."""
    if unit_of_model(spec) == "byte":
        yield Scale(BYTE, 0.0, "8 bit")
        return
    reflecting = values.located or any(_MULTISPECTRAL.search(band) for band in spec.bands)
    if reflecting or high == 10_000:
        yield Scale(10_000.0, 0.0, REFLECTANCE.name)
    if high <= 4095:
        yield Scale(4095.0, 0.0, DEPTHS[1].name)
    yield Scale(65_535.0, 0.0, DEPTHS[2].name)


def _depths(numbers: SceneValues) -> Sequence[Scale]:
    """The smallest bit depth that holds the numbers: 8 bit only where the file has no wider type."""
    widths = {np.dtype(dtype).itemsize for dtype in numbers.dtypes if np.dtype(dtype).kind in "iu"}
    least = 0 if widths <= {1} else 1
    return [one for one in DEPTHS[least:] if numbers.most * one.scale <= 1][:1]


def _named(values: SceneValues, pattern: re.Pattern[str]) -> bool:
    """Whether the image has a band of such a name."""
    return any(pattern.fullmatch(name.strip()) for name in values.names)
