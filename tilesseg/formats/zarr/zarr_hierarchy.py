"""Arrays of a Zarr that make an image, and the attributes that describe them."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.errors import BaseZarrError

from tilesseg.errors import SourceError, cannot
from tilesseg.formats.zarr.zipped import is_folder, zarr_place
from tilesseg.process import QUIET

Node = zarr.Array[Any] | zarr.Group


@dataclass(frozen=True, slots=True)
class Member:
    """An array that is the image or a band of it."""

    path: str
    name: str
    array: zarr.Array[Any]
    attributes: Attributes
    """Attributes of the array, over those of its group."""

    @property
    def dimensions(self) -> tuple[str | None, ...]:
        names: Any = getattr(self.array.metadata, "dimension_names", None) or self.array.attrs.get("_ARRAY_DIMENSIONS")
        return tuple(names) if isinstance(names, Sequence) else ()


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """The image's arrays, the arrays of its coarser levels, and every folder whose metadata were read."""

    members: tuple[Member, ...]
    levels: tuple[tuple[Member, ...], ...]
    folders: tuple[str, ...]


def open_node(path: str) -> Node:
    """An array or a group.

    Raises:
        SourceError: the path is neither.
    """
    if not is_folder(path):
        raise SourceError(cannot(f"open {path}", "no such Zarr", "correct the path"))
    try:
        with _quiet():
            node: Node = zarr.open(**zarr_place(path), mode="r")
            if isinstance(node, zarr.Array):
                return node
            return zarr.open_group(**zarr_place(path), mode="r", use_consolidated=False)
    except (OSError, ValueError, KeyError, TypeError, BaseZarrError) as error:
        raise SourceError(cannot(f"open {path} as a Zarr", error, "repair or replace it")) from error


def find_members(path: str, node: Node) -> Hierarchy:
    """The arrays that make the image.

    Raises:
        SourceError: there is no image, or one has to be chosen.
    """
    if isinstance(node, zarr.Array):
        group, folder = _parent(path)
        member = Member(path, os.path.basename(path), node, {**_inherited(group), **node.attrs.asdict()})
        return Hierarchy((member,), (), (path, *([folder] if folder else [])))
    attributes = node.attrs.asdict()
    layout = _layout(attributes)
    if not layout:
        members = _members_of(path, node, _inherited(attributes))
        return Hierarchy(members, (), (path, *(member.path for member in members)))
    inherited = {key: value for key, value in _inherited(attributes).items() if key not in _OF_ONE_LEVEL}
    levels = [(item, _of_level(path, item, inherited)) for item in layout]
    levels.sort(key=lambda level: -int(np.prod(level[1][0].array.shape)))
    full = levels[0][1]
    coarser = tuple(members for _, members in levels[1:] if _same_bands(full, members))
    return Hierarchy(full, coarser, (path, *(os.path.dirname(m.path) for m in full), *(m.path for m in full)))


def sibling(member: Member, name: str) -> Attributes:
    """Attributes of an array of this name beside a member, such as CF's grid mapping; empty where there is none."""
    array = _beside(member, name)
    return {} if array is None else array.attrs.asdict()


def coordinates(member: Member, axis: int) -> NDArray[Any] | None:
    """Values of the coordinate array of one of its dimensions; None where there is none."""
    if axis >= len(member.dimensions) or not member.dimensions[axis]:
        return None
    array = _beside(member, str(member.dimensions[axis]))
    if array is None or array.shape != member.array.shape[axis : axis + 1]:
        return None
    with _quiet():
        return np.asarray(array[:])


_OF_ONE_LEVEL = ("spatial:transform", "spatial:shape", "spatial:registration")


def _layout(attributes: Attributes) -> list[Mapping[str, Any]]:
    """Levels of the convention `multiscales`; empty where the group is no pyramid."""
    multiscales = attributes.get("multiscales")
    items = multiscales.get("layout") if isinstance(multiscales, Mapping) else None
    return [item for item in items if isinstance(item, Mapping) and item.get("asset")] if items else []


def _of_level(path: str, item: Mapping[str, Any], inherited: Attributes) -> tuple[Member, ...]:
    asset = os.path.join(path, str(item["asset"]))
    node = open_node(asset)
    level = {**inherited, **_inherited(item)}
    if isinstance(node, zarr.Array):
        return (Member(asset, os.path.basename(path), node, {**level, **node.attrs.asdict()}),)
    return _members_of(asset, node, {**level, **_inherited(node.attrs.asdict())})


def _members_of(path: str, group: zarr.Group, inherited: Attributes) -> tuple[Member, ...]:
    """The image among a group's arrays: one of up to three long axes, or several of two that are equal in shape."""
    with _quiet():
        arrays = sorted(group.arrays(), key=lambda named: named[0])
    fitting = [(name, array) for name, array in arrays if array.ndim >= 2 and np.dtype(array.dtype).kind in "uifc"]
    if not fitting:
        inside = ", ".join(sorted(name for name, _ in group.members())) or "nothing"
        raise SourceError(
            f"{path}: a group without an array (channel, y, x) or (y, x), but with {inside}; open an image in it"
        )
    planes = {tuple(length for length in array.shape if length > 1) for _, array in fitting}
    if len(fitting) > 1 and (len(planes) > 1 or len(next(iter(planes))) > 2):
        names = ", ".join(f"{name} {array.shape}" for name, array in fitting)
        raise SourceError(f"{path}: several images, {names}; open one of them, {path}/{fitting[0][0]}")
    return tuple(
        Member(os.path.join(path, name), name, array, {**inherited, **array.attrs.asdict()}) for name, array in fitting
    )


def _same_bands(one: Sequence[Member], two: Sequence[Member]) -> bool:
    return len(one) == len(two) and all(
        a.name == b.name and a.array.ndim == b.array.ndim and a.array.dtype == b.array.dtype
        for a, b in zip(one, two, strict=True)
    )


def _inherited(attributes: Attributes) -> Attributes:
    """Attributes of a group that hold for its arrays."""
    return {
        key: value for key, value in attributes.items() if key.startswith(("spatial:", "proj:")) or key == "band_names"
    }


def _parent(path: str) -> tuple[Attributes, str | None]:
    """Attributes and folder of the group an array lies in, if it lies in one."""
    folder = os.path.dirname(path)
    try:
        with _quiet():
            return zarr.open_group(folder, mode="r", use_consolidated=False).attrs.asdict(), folder
    except (OSError, ValueError, KeyError, TypeError, BaseZarrError):  # a folder like any other
        return {}, None


def _beside(member: Member, name: str) -> zarr.Array[Any] | None:
    path = os.path.join(os.path.dirname(member.path), name)
    if not name or os.sep in name or not is_folder(path):
        return None
    node = open_node(path)
    return node if isinstance(node, zarr.Array) else None


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress zarr's warnings on data types that other readers may not know: names of bands are strings."""
    with QUIET, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


Attributes = Mapping[str, Any]
