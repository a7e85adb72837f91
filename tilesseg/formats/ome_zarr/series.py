"""Choice of an image in an OME-Zarr: of a collection, or of several multiscales."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from tilesseg.errors import SourceError
from tilesseg.formats.ome_zarr.image_groups import group_attributes, group_images, group_kind, listed_images
from tilesseg.formats.ome_zarr.metadata import Attributes, Multiscale, find_multiscales, ome_of, version_of

_LISTED = 8
"""Number of images that a refusal names."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """One image: its group, and its metadata."""

    path: str
    version: str
    attributes: Attributes
    multiscale: Multiscale
    folders: tuple[str, ...]
    """Every group whose metadata were read."""
    notes: tuple[str, ...] = ()


def choose_image(path: str, series: int | str | None) -> Chosen:
    """The image of a group, or the requested image where there are several.

    Raises:
        SourceError: there is no image, a choice is missing, or the requested image is missing.
    """
    attributes = group_attributes(path)
    ome = ome_of(attributes)
    if "multiscales" in ome:
        return _multiscale(path, attributes, series)
    kind = group_kind(attributes)
    if kind in ("bioformats2raw", "spatialdata") or (kind in ("plate", "well") and series is not None):
        return _of_collection(path, series, kind, group_images(path, attributes))
    raise SourceError(_refusal(path, ome))


def _multiscale(path: str, attributes: Attributes, series: int | str | None) -> Chosen:
    images = find_multiscales(path, attributes)
    notes: tuple[str, ...] = ()
    names = [image.name for image in images]
    number = 0 if series is None else _number(path, series, names, [str(k) for k in range(len(images))])
    if series is None and len(images) > 1:
        listed = ", ".join(name or str(k) for k, name in enumerate(names))
        notes = (f"the first of {len(images)} multiscales is read: {listed}; series chooses another one",)
    return Chosen(path, version_of(path, attributes), attributes, images[number], (path,), notes)


def _of_collection(path: str, series: int | str | None, kind: str, inside: Sequence[str]) -> Chosen:
    if not inside:
        raise SourceError(f"{path}: a collection by {kind} without an image; convert it again")
    if len(inside) == 1 and series is None:
        number = 0
    elif series is None:
        listed = ", ".join(_called(os.path.join(path, one), one) for one in inside)
        raise SourceError(f"{path}: {len(inside)} images, of which 1 is read; give series, one of {_shortened(listed)}")
    else:
        names = [_name(os.path.join(path, one)) for one in inside] if isinstance(series, str) else [None] * len(inside)
        number = _number(path, series, names, inside)
    image = os.path.join(path, inside[number])
    chosen = _multiscale(image, group_attributes(image), None)
    return Chosen(image, chosen.version, chosen.attributes, chosen.multiscale, (path, *chosen.folders), chosen.notes)


def _number(path: str, series: int | str, names: Sequence[str | None], paths: Sequence[str]) -> int:
    if isinstance(series, int):
        if 0 <= series < len(paths):
            return series
        raise SourceError(f"{path}: series {series} is requested, the image has 0 to {len(paths) - 1}; choose one")
    for listed in (names, paths):
        if series in listed:
            return list(listed).index(series)
    listing = ", ".join(name or where for name, where in zip(names, paths, strict=True))
    raise SourceError(f"{path}: series {series} is requested, the image has {listing}; choose one")


def _name(image: str) -> str | None:
    try:
        return find_multiscales(image, group_attributes(image))[0].name
    except SourceError:
        return None  # it can still be chosen by its number, and is refused then


def _called(image: str, path: str) -> str:
    name = _name(image)
    return f"{path} ({name})" if name else path


def _refusal(path: str, ome: Attributes) -> str:
    """Refusal of a group that is no image, with the images in it."""
    for key, what in (("plate", "a plate"), ("well", "a well"), ("labels", "a group of labels")):
        if key in ome:
            inside = [f"{path}/{one}" for one in listed_images(path, key, ome[key])]
            if not inside:
                return f"{path}: {what} without an image; open an image"
            listed = _shortened(", ".join(inside))
            return f"{path}: {what}, not an image; open one of its {len(inside)}: {listed}" + (
                "" if key == "labels" else "; series chooses one, and a job makes a scene of each"
            )
    return f"{path}: a group without multiscales, not an OME-Zarr image; open the image in it"


def _shortened(listed: str) -> str:
    names = listed.split(", ")
    return listed if len(names) <= _LISTED else f"{', '.join(names[:_LISTED])} and {len(names) - _LISTED} more"
