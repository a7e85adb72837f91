"""Groups of images in OME-Zarr: plates and wells, collections by bioformats2raw, SpatialData; and what they list."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Literal

import zarr

from tilesseg.errors import SourceError
from tilesseg.formats.ome_zarr.metadata import Attributes, ome_of
from tilesseg.formats.zarr.zarr_array import metadata_files
from tilesseg.formats.zarr.zarr_hierarchy import open_node
from tilesseg.formats.zarr.zipped import list_folder

GroupKind = Literal["plate", "well", "bioformats2raw", "spatialdata"]


def group_attributes(path: str) -> Attributes:
    """Attributes of a group.

    Raises:
        SourceError: the path is no group.
    """
    node = open_node(path)
    if isinstance(node, zarr.Array):
        raise SourceError(f"{path}: an array, not the group of an OME-Zarr image; open the folder around it")
    return node.attrs.asdict()


def group_kind(attributes: Attributes) -> GroupKind | None:
    """Kind of a group of images; None of a single image and of anything else."""
    ome = ome_of(attributes)
    if "multiscales" in ome:
        return None
    for kind, key in _KEYS.items():
        if key in ome or key in attributes:
            return kind
    return None


_KEYS: dict[GroupKind, str] = {
    "plate": "plate",
    "well": "well",
    "bioformats2raw": "bioformats2raw.layout",
    "spatialdata": "spatialdata_attrs",
}


def group_images(path: str, attributes: Attributes) -> list[str]:
    """Paths of the images of a group, relative to it, in its order; empty where it has none."""
    kind, ome = group_kind(attributes), ome_of(attributes)
    if kind in ("plate", "well"):
        return listed_images(path, kind, ome.get(kind))
    if kind == "spatialdata":
        return [os.path.join("images", name) for name in _subgroups(os.path.join(path, "images"))]
    if kind != "bioformats2raw":
        return []
    folder = os.path.join(path, "OME")
    listed: Any = ome_of(group_attributes(folder)).get("series") if metadata_files(folder) else None
    if isinstance(listed, Sequence) and not isinstance(listed, str):
        return [str(name) for name in listed]
    return sorted((name for name in _subgroups(path) if name.isdigit()), key=int)


def plate_images(path: str) -> list[str] | None:
    """Paths of the images of a plate or a well, relative to it; None of anything else.

    Raises:
        SourceError: it has no image.
    """
    try:
        attributes = group_attributes(path)
    except SourceError:
        return None  # no group: the refusal comes with opening it
    kind = group_kind(attributes)
    if kind not in ("plate", "well"):
        return None
    images = group_images(path, attributes)
    if not images:
        raise SourceError(f"{path}: a {kind} without an image; open an image")
    return images


def listed_images(path: str, key: str, entry: Any) -> list[str]:
    """Paths of the images that a plate, a well or a group of labels lists, relative to it."""
    if key == "labels":
        return [str(name) for name in entry] if isinstance(entry, list) else []
    if key == "well":
        return _paths(entry, "images")
    wells = _paths(entry, "wells")
    return [f"{well}/{image}" for well in wells for image in _well(os.path.join(path, well))]


def _subgroups(path: str) -> list[str]:
    """Names of the groups and arrays in a group, sorted; empty where it is missing."""
    return sorted(name for name in list_folder(path) if metadata_files(os.path.join(path, name)))


def _well(path: str) -> list[str]:
    try:
        return _paths(ome_of(group_attributes(path)).get("well"), "images")
    except SourceError:
        return []  # a well that is listed and missing


def _paths(entry: Any, key: str) -> list[str]:
    listed = entry.get(key) if isinstance(entry, dict) else None
    return [str(one["path"]) for one in listed or () if isinstance(one, dict) and "path" in one]
