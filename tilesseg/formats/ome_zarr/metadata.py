"""Attributes of OME-Zarr 0.4 and 0.5, written and read: axes, levels with their positions, channels, labels.

Source: ngff.openmicroscopy.org, versions 0.4 and 0.5.
"""

from __future__ import annotations

import colorsys
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from tilesseg.errors import SourceError
from tilesseg.formats.ome_zarr.level_transforms import Frames, Plain
from tilesseg.formats.reading.stated_size import micrometres
from tilesseg.formats.writer import FAILED_CLASS, MaskClass
from tilesseg.raster.labels import FAILED, NODATA, SCORE_STEPS

Version = Literal["0.4", "0.5"]
VERSIONS = ("0.4", "0.5")
DEFAULT_VERSION: Version = "0.5"
PROVENANCE = "tilesseg_provenance"
"""Attribute by which a group is recognised as a product of tilesseg."""


def group_attributes(
    version: str,
    ome: Mapping[str, Any],
    *,
    provenance: Mapping[str, str],
    further: Mapping[str, Any],
) -> Plain:
    """Attributes of a group: those of OME, at the place that the version requires, then ours."""
    placed = dict(ome) if version == "0.4" else {"ome": {"version": version, **ome}}
    return {**placed, PROVENANCE: dict(provenance), **further}


def multiscales(name: str, frames: Frames, version: str, method: str) -> list[Plain]:
    """Attribute `multiscales` of one image with levels named 0, 1 and so on.

    Args:
        name: name of the image.
        frames: axes of the image, shapes and positions of its levels.
        version: version of OME-Zarr.
        method: reduction from level to level: mode, nearest or mean.
    """
    return [
        {
            **({"version": version} if version == "0.4" else {}),
            "name": name,
            "axes": frames.axes,
            "datasets": [
                {"path": str(number), "coordinateTransformations": level.transformations}
                for number, level in enumerate(frames.levels)
            ],
            **({"coordinateTransformations": frames.shared} if frames.shared else {}),
            "type": method,
            # text in stored files, not the name of a module: it stays wherever the code moves
            "metadata": {"method": f"tilesseg.pyramid.halve_{method}"},
        }
    ]


def image_label(classes: Sequence[MaskClass], version: str, *, image: str | None = None) -> Plain:
    """Attribute `image-label`, with names and colours of labels; 254 is magenta, 255 transparent.

    Args:
        classes: names and colours of the labels 0 … n − 1.
        version: version of OME-Zarr.
        image: path from the labels to the image that has them; None for labels of their own.
    """
    listed = [*enumerate(classes), (FAILED, FAILED_CLASS)]
    colours = [{"label-value": label, "rgba": [*meant.rgb, 255]} for label, meant in listed]
    names = [{"label-value": label, "class": meant.name} for label, meant in listed]
    return {
        **({"version": version} if version == "0.4" else {}),
        "colors": [*colours, {"label-value": NODATA, "rgba": [0, 0, 0, 0]}],
        "properties": [*names, {"label-value": NODATA, "class": "nodata"}],
        **({"source": {"image": image}} if image else {}),
    }


def omero(classes: Sequence[str]) -> Plain:
    """Attribute `omero`, with names and colours of channels of scores, displayed from 0 to 250."""
    window = {"start": 0, "end": SCORE_STEPS, "min": 0, "max": SCORE_STEPS}
    return {
        "channels": [
            {"label": name, "color": _hue(k, len(classes)), "window": window, "active": k == 0, "coefficient": 1}
            for k, name in enumerate(classes)
        ],
        "rdefs": {"defaultT": 0, "defaultZ": 0, "model": "greyscale" if len(classes) == 1 else "color"},
    }


def _hue(number: int, count: int) -> str:
    """Colour of a channel, as hex digits: white for a single channel, else hues at equal distances."""
    if count == 1:
        return "FFFFFF"
    return "".join(f"{round(255 * part):02X}" for part in colorsys.hsv_to_rgb(number / count, 1.0, 1.0))


Attributes = Mapping[str, Any]
Kind = Literal["t", "c", "z", "y", "x", "other"]


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis of a multiscale image."""

    name: str
    kind: Kind
    raw: Attributes
    """The entry as it is stored."""

    @property
    def micrometres(self) -> float | None:
        """Micrometres of its unit, or None where it has no unit of length."""
        return micrometres(self.raw.get("unit"))


@dataclass(frozen=True, slots=True)
class Dataset:
    """A level, with the positions of its pixels' centres: `scale · index + translation` along every axis."""

    path: str
    scale: tuple[float, ...]
    translation: tuple[float, ...]
    raw: Attributes


@dataclass(frozen=True, slots=True)
class Multiscale:
    """An image with its levels, finest first."""

    name: str | None
    axes: tuple[Axis, ...]
    datasets: tuple[Dataset, ...]
    raw: Attributes

    def axis(self, kind: Kind) -> int | None:
        """Number of the axis of a kind."""
        return next((number for number, axis in enumerate(self.axes) if axis.kind == kind), None)


def ome_of(attributes: Attributes) -> Attributes:
    """The part of a group's attributes that belongs to OME-Zarr: all in 0.4, `ome` in 0.5."""
    inner = attributes.get("ome")
    return inner if isinstance(inner, Mapping) else attributes


def version_of(where: str, attributes: Attributes) -> str:
    """Version of the format.

    Raises:
        SourceError: another version than 0.4 and 0.5.
    """
    ome = ome_of(attributes)
    if ome is not attributes:
        stored = ome.get("version") or "0.5"
    else:
        first = next((one for one in _listed(ome.get("multiscales")) if isinstance(one, Mapping)), {})
        stored = first.get("version") or "0.4"
    version = next((one for one in VERSIONS if re.fullmatch(rf"{re.escape(one)}([.-].*)?", str(stored))), None)
    if version is None:  # 0.5-dev-spatialdata is 0.5
        raise SourceError(f"{where}: OME-Zarr version {stored}, not {' or '.join(VERSIONS)}; convert it first")
    return version


def find_multiscales(where: str, attributes: Attributes) -> tuple[Multiscale, ...]:
    """The images that a group's attributes list.

    Raises:
        SourceError: there is no image, or its metadata are invalid.
    """
    images = _listed(ome_of(attributes).get("multiscales"))
    if not images:
        raise SourceError(f"{where}: no image, its multiscales are empty; write the image again")
    return tuple(_multiscale(where, image) for image in images)


def own_place(where: str, dataset: Dataset) -> tuple[list[float], list[float]]:
    """Scale and translation of a level alone, without those of all levels."""
    own = dataset.raw.get("coordinateTransformations")
    return _placed(where, f"dataset {dataset.path}", own, len(dataset.scale))


def channel_names(attributes: Attributes, count: int) -> tuple[tuple[str | None, ...], str | None]:
    """Names of the channels by `omero`, and a note where it has another number of channels."""
    omero = ome_of(attributes).get("omero")
    channels = _listed(omero.get("channels")) if isinstance(omero, Mapping) else []
    if not channels:
        return (None,) * count, None
    if len(channels) != count:
        return (None,) * count, f"omero names {len(channels)} channels, the image has {count}: they stay without names"
    labels = [one.get("label") if isinstance(one, Mapping) else None for one in channels]
    return tuple(str(label) if label else None for label in labels), None


def _multiscale(where: str, stored: Any) -> Multiscale:
    if not isinstance(stored, Mapping):
        raise SourceError(f"{where}: multiscales has {stored!r} where an image is expected; correct the attribute")
    axes = _axes(where, stored.get("axes"))
    shared = _placed(where, "multiscales", _of_all_levels(stored), len(axes))
    datasets = tuple(_dataset(where, one, len(axes), shared) for one in _listed(stored.get("datasets")))
    if not datasets:
        raise SourceError(f"{where}: no level, its datasets are empty; write the image again")
    return Multiscale(str(stored["name"]) if stored.get("name") else None, axes, datasets, stored)


def _of_all_levels(stored: Attributes) -> list[Any]:
    """Transformations of all levels, without those of SpatialData into coordinate systems of its own."""
    steps = _listed(stored.get("coordinateTransformations"))
    return [step for step in steps if not (isinstance(step, Mapping) and "output" in step)]


def _axes(where: str, stored: Any) -> tuple[Axis, ...]:
    listed = _listed(stored)
    if not listed or not all(isinstance(one, Mapping) and one.get("name") for one in listed):
        raise SourceError(f"{where}: axes {stored!r}, not a list of axes with names; convert it to 0.4 or 0.5")
    axes = tuple(Axis(str(one["name"]), _kind(one), one) for one in listed)
    kinds = [axis.kind for axis in axes if axis.kind != "other"]
    names = ", ".join(axis.name for axis in axes)
    if "y" not in kinds or "x" not in kinds or len(set(kinds)) < len(kinds):
        raise SourceError(f"{where}: axes {names}, not y and x and at most one each of t, c, z; correct their names")
    return axes


def _kind(axis: Attributes) -> Kind:
    name, stored = str(axis["name"]).lower(), axis.get("type")
    if stored == "time":
        return "t"
    if stored == "channel":
        return "c"
    spatial: dict[str, Kind] = {"z": "z", "y": "y", "x": "x"}
    plain: dict[str, Kind] = {**spatial, "t": "t", "c": "c"}
    return (spatial if stored == "space" else plain).get(name, "other")


def _dataset(where: str, stored: Any, axes: int, shared: tuple[list[float], list[float]]) -> Dataset:
    if not isinstance(stored, Mapping) or not isinstance(stored.get("path"), str):
        raise SourceError(f"{where}: datasets has {stored!r}, not a level with a path; correct the attribute")
    scale, translation = _placed(where, f"dataset {stored['path']}", stored.get("coordinateTransformations"), axes)
    return Dataset(
        stored["path"],
        tuple(own * outer for own, outer in zip(scale, shared[0], strict=True)),
        tuple(own * outer + shift for own, outer, shift in zip(translation, *shared, strict=True)),
        stored,
    )


def _placed(where: str, what: str, stored: Any, axes: int) -> tuple[list[float], list[float]]:
    """Scale and translation of transformations that are applied in turn."""
    scale, translation = [1.0] * axes, [0.0] * axes
    for step in _listed(stored):
        kind = step.get("type") if isinstance(step, Mapping) else None
        if kind == "identity":
            continue
        if kind not in ("scale", "translation"):
            raise SourceError(f"{where}: {what} has a transformation {kind}, neither scale nor translation; convert it")
        numbers = _numbers(where, what, kind, step.get(kind), axes)
        if kind == "scale":
            scale = [one * by for one, by in zip(scale, numbers, strict=True)]
            translation = [one * by for one, by in zip(translation, numbers, strict=True)]
        else:
            translation = [one + by for one, by in zip(translation, numbers, strict=True)]
    return scale, translation


def _numbers(where: str, what: str, kind: str, stored: Any, axes: int) -> list[float]:
    numbers = [float(one) for one in _listed(stored) if isinstance(one, int | float)]
    good = len(numbers) == axes and np.isfinite(numbers).all() and (kind != "scale" or min(numbers) > 0)
    if not good:
        wanted = f"{axes} finite numbers" + (" above 0" if kind == "scale" else "")
        raise SourceError(f"{where}: {what} has a {kind} of {stored!r}, not {wanted}; correct it")
    return numbers


def _listed(stored: Any) -> list[Any]:
    return list(stored) if isinstance(stored, Sequence) and not isinstance(stored, str) else []
