"""Which arrays of a Zarr are the image, and where what is said about them is written."""

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

from tilesseg.errors import SourceError
from tilesseg.process import QUIET

Node = zarr.Array[Any] | zarr.Group


@dataclass(frozen=True, slots=True)
class Member:
    """An array that is the image or a band of it."""

    path: str
    name: str
    array: zarr.Array[Any]
    attributes: Attributes
    """Its own, over those of its group."""

    @property
    def dimensions(self) -> tuple[str | None, ...]:
        found: Any = getattr(self.array.metadata, "dimension_names", None) or self.array.attrs.get("_ARRAY_DIMENSIONS")
        return tuple(found) if isinstance(found, Sequence) else ()


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """The image's arrays, those of its coarser levels, and every folder whose metadata were looked at."""

    members: tuple[Member, ...]
    levels: tuple[tuple[Member, ...], ...]
    folders: tuple[str, ...]


def open_node(path: str) -> Node:
    """An array or a group.

    Raises:
        SourceError: there is none.
    """
    if not os.path.isdir(path):
        raise SourceError(f"{path}: no such Zarr")
    try:
        with _quiet():
            found: Node = zarr.open(path, mode="r")
            return zarr.open_group(path, mode="r", use_consolidated=False) if isinstance(found, zarr.Group) else found
    except (OSError, ValueError, KeyError, TypeError, BaseZarrError) as error:
        raise SourceError(f"{path}: not a Zarr that can be opened: {' '.join(str(error).split())}") from error


def find_members(path: str, node: Node) -> Hierarchy:
    """The arrays that make the image.

    Raises:
        SourceError: there is none, or one has to be chosen.
    """
    if isinstance(node, zarr.Array):
        group, folder = _parent(path)
        member = Member(path, os.path.basename(path), node, {**_inherited(group), **node.attrs.asdict()})
        return Hierarchy((member,), (), (path, *([folder] if folder else [])))
    told = node.attrs.asdict()
    layout = _layout(told)
    if not layout:
        members = _members_of(path, node, _inherited(told))
        return Hierarchy(members, (), (path, *(member.path for member in members)))
    inherited = {key: value for key, value in _inherited(told).items() if key not in _OF_ONE_LEVEL}
    levels = [(item, _of_level(path, item, inherited)) for item in layout]
    levels.sort(key=lambda level: -int(np.prod(level[1][0].array.shape)))
    full = levels[0][1]
    coarser = tuple(members for _, members in levels[1:] if _same_bands(full, members))
    return Hierarchy(full, coarser, (path, *(os.path.dirname(m.path) for m in full), *(m.path for m in full)))


def sibling(member: Member, name: str) -> Attributes:
    """Attributes of the array beside it that bears a name: CF's grid mapping; empty where there is none."""
    found = _beside(member, name)
    return {} if found is None else found.attrs.asdict()


def coordinates(member: Member, axis: int) -> NDArray[Any] | None:
    """Values of the coordinate array of one of its dimensions; None where there is none."""
    if axis >= len(member.dimensions) or not member.dimensions[axis]:
        return None
    found = _beside(member, str(member.dimensions[axis]))
    if found is None or found.shape != member.array.shape[axis : axis + 1]:
        return None
    with _quiet():
        return np.asarray(found[:])


_OF_ONE_LEVEL = ("spatial:transform", "spatial:shape", "spatial:registration")


def _layout(attributes: Attributes) -> list[Mapping[str, Any]]:
    """Levels of the convention `multiscales`; none where the group is no pyramid."""
    found = attributes.get("multiscales")
    items = found.get("layout") if isinstance(found, Mapping) else None
    return [item for item in items if isinstance(item, Mapping) and item.get("asset")] if items else []


def _of_level(path: str, item: Mapping[str, Any], inherited: Attributes) -> tuple[Member, ...]:
    asset = os.path.join(path, str(item["asset"]))
    node = open_node(asset)
    told = {**inherited, **_inherited(item)}
    if isinstance(node, zarr.Array):
        return (Member(asset, os.path.basename(path), node, {**told, **node.attrs.asdict()}),)
    return _members_of(asset, node, {**told, **_inherited(node.attrs.asdict())})


def _members_of(path: str, group: zarr.Group, inherited: Attributes) -> tuple[Member, ...]:
    """The image among a group's arrays: one of up to three long axes, or several of two that are equal in shape."""
    with _quiet():
        found = sorted(group.arrays(), key=lambda named: named[0])
    fitting = [(name, array) for name, array in found if array.ndim >= 2 and np.dtype(array.dtype).kind in "uifc"]
    if not fitting:
        inside = ", ".join(sorted(name for name, _ in group.members())) or "nothing"
        raise SourceError(
            f"{path}: a group without an image, an array (channel, y, x) or (y, x) needed; it has {inside}"
        )
    planes = {tuple(length for length in array.shape if length > 1) for _, array in fitting}
    if len(fitting) > 1 and (len(planes) > 1 or len(next(iter(planes))) > 2):
        names = ", ".join(f"{name} {array.shape}" for name, array in fitting)
        raise SourceError(f"{path}: several images, one needed; open one of them, {path}/{fitting[0][0]}: {names}")
    return tuple(
        Member(os.path.join(path, name), name, array, {**inherited, **array.attrs.asdict()}) for name, array in fitting
    )


def _same_bands(one: Sequence[Member], two: Sequence[Member]) -> bool:
    return len(one) == len(two) and all(
        a.name == b.name and a.array.ndim == b.array.ndim and a.array.dtype == b.array.dtype
        for a, b in zip(one, two, strict=True)
    )


def _inherited(attributes: Attributes) -> Attributes:
    """What a group says for its arrays."""
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
    if not name or os.sep in name or not os.path.isdir(path):
        return None
    node = open_node(path)
    return node if isinstance(node, zarr.Array) else None


@contextmanager
def _quiet() -> Iterator[None]:
    """Without zarr's words on data types that other readers may not know: names of bands are strings."""
    with QUIET, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


Attributes = Mapping[str, Any]
