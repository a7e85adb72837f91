"""Masks and scores as OME-Zarr: groups of their own, or labels beside their image."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tilesseg.formats.ome_zarr.image_labels import check_list, find_home, frames_beside, labels_folder, list_label
from tilesseg.formats.ome_zarr.level_transforms import Frames, standing_alone
from tilesseg.formats.ome_zarr.metadata import (
    DEFAULT_VERSION,
    Version,
    group_attributes,
    image_label,
    multiscales,
    omero,
)
from tilesseg.formats.ome_zarr.product_arrays import ReadPlane, create_array, fill, make_group, read_from
from tilesseg.formats.ome_zarr.product_folder import refuse_foreign, replacing
from tilesseg.formats.ome_zarr.product_levels import coarser
from tilesseg.formats.writer import Mask, Scores, at_image
from tilesseg.formats.writing.publish import check_target
from tilesseg.raster.pyramid import HALVES, Halve, halve_mean
from tilesseg.raster.window import Window


def write_ome_zarr(
    mask: Mask,
    path: Path,
    *,
    overviews: Literal["mode", "nearest"] = "mode",
    resolution: Literal["model", "image"] = "model",
    version: Version | None = None,
    beside: str | None = None,
    threads: int = 1,
) -> tuple[Path, ...]:
    """Write a mask as a multiscale label image: 0.5 in sharded Zarr 3, or 0.4 in Zarr 2.

    A level is made from the stored level before it, or copied if the mask has the level by mode. Each shard is written
    once, whole. Memory: some windows of 4096 × 4096 for each thread, for masks of any size.

    Args:
        mask: the mask, which is read in windows of a shard.
        path: the target; beside an image, `<image>.zarr/labels/<name>`.
        overviews: function that makes a level from the level before, see `raster.pyramid`.
        resolution: whether the product has the pixels of the mask, or those of the image, see `at_image`.
        version: version of OME-Zarr; None for 0.5, or beside an image for the version of the image.
        beside: name of the labels in the image, or None for a group of its own.
        threads: number of shards that are made at the same time.

    Returns:
        The group, and beside an image the file with the list of its labels.

    Raises:
        FormatError: the group cannot be written, tilesseg did not write the one at `path`, or the image does not take
            labels; nothing is left behind.
    """
    mask = at_image(mask) if resolution == "image" else mask
    if beside is not None:
        return _write_beside(mask, path, overviews, version, threads)
    version = version or DEFAULT_VERSION
    frames = standing_alone(mask.grid, mask.image)
    with replacing(path) as folder:
        _write_mask(mask, folder, _name(path), frames, overviews, version, threads, image=None)
    return (path,)


def write_ome_zarr_scores(
    scores: Scores, path: Path, *, version: Version | None = None, threads: int = 1
) -> tuple[Path, ...]:
    """Write stored scores as a multiscale image `(c, y, x)` of bytes, 0–250 for 0–1, a channel for each class.

    A level is the mean of the level before, without 254 and 255. Memory as for `write_ome_zarr`.

    Args:
        scores: the scores.
        path: the target.
        version: version of OME-Zarr; None for 0.5.
        threads: number of shards that are made at the same time.

    Returns:
        The group.

    Raises:
        FormatError: see `write_ome_zarr`.
    """
    version = version or DEFAULT_VERSION
    frames = standing_alone(scores.grid, scores.image, channels=True)
    ome = {"multiscales": multiscales(_name(path), frames, version, "mean"), "omero": omero(scores.classes)}
    attributes = group_attributes(version, ome, provenance=scores.provenance, further=frames.levels[0].attributes)
    with replacing(path) as folder:
        make_group(folder, version=version, attributes=attributes)
        planes = (len(scores.classes),)
        _write_levels(folder, frames, planes, scores.read, halve_mean, version=version, threads=threads)
    return (path,)


def check_ome_zarr(content: Mask | Scores, path: Path, **options: Any) -> None:
    """Refuse, before the first tile, a product that `write_ome_zarr` or `write_ome_zarr_scores` could not write.

    Args:
        content: the mask or the scores; no pixels are read.
        path: the target.
        **options: options of the writer.

    Raises:
        FormatError: tilesseg did not write the file or folder at `path`, the folder cannot be written, or the image
            that should take the labels is no local OME-Zarr image, has another version or size, or several times or
            planes.
    """
    refuse_foreign(path)
    if isinstance(content, Mask) and options.get("beside") is not None:
        home = find_home(content, path, options.get("version"))
        frames_beside(home, content)
        check_list(path.parent, home.version)
    check_target(path, folder=True)


def _write_beside(mask: Mask, path: Path, overviews: str, version: str | None, threads: int) -> tuple[Path, ...]:
    home = find_home(mask, path, version)
    frames = frames_beside(home, mask)
    check_list(path.parent, home.version)
    with labels_folder(path.parent) as labels:
        with replacing(path) as folder:
            _write_mask(mask, folder, path.name, frames, overviews, home.version, threads, image="../../")
        listed = list_label(labels, path.name, home.version)
    return path, listed


def _write_mask(
    mask: Mask,
    folder: Path,
    name: str,
    frames: Frames,
    overviews: str,
    version: str,
    threads: int,
    *,
    image: str | None,
) -> None:
    ome = {
        "multiscales": multiscales(name, frames, version, overviews),
        "image-label": image_label(mask.classes, version, image=image),
    }
    attributes = group_attributes(version, ome, provenance=mask.provenance, further=frames.levels[0].attributes)
    make_group(folder, version=version, attributes=attributes)
    planes = (1,) * (len(frames.axes) - 2)
    ready = _ready(mask, frames) if overviews == "mode" else ()
    _write_levels(
        folder, frames, planes, _first(mask.read), HALVES[overviews], version=version, threads=threads, ready=ready
    )


def _write_levels(
    folder: Path,
    frames: Frames,
    planes: tuple[int, ...],
    read: ReadPlane,
    halve: Halve,
    *,
    version: str,
    threads: int,
    ready: tuple[ReadPlane, ...] = (),
) -> None:
    """Write every level, from the stored level before it, or from `ready`, which has level 1 and further levels."""
    for number, frame in enumerate(frames.levels):
        array = create_array(
            folder / str(number),
            version=version,
            planes=planes,
            shape=frame.shape,
            names=frames.names,
            attributes=frame.attributes,
        )
        fill(array, read, threads=threads)
        if number + 1 < len(frames.levels):
            further = frames.levels[number + 1].shape
            made = coarser(read_from(array), frame.shape, further, halve)
            read = ready[number] if number < len(ready) else made


def _ready(mask: Mask, frames: Frames) -> tuple[ReadPlane, ...]:
    """Stored levels of the mask, up to the first whose shape differs from that of the product's level."""
    ready: list[ReadPlane] = []
    for level, frame in zip(mask.levels, frames.levels[1:], strict=False):
        if level.shape != frame.shape:
            break
        ready.append(_first(level.read))
    return tuple(ready)


def _first(read: Callable[[Window], NDArray[np.uint8]]) -> ReadPlane:
    return lambda _, window: read(window)


def _name(path: Path) -> str:
    return path.name.removesuffix(".zarr").removesuffix(".ome") or "mask"
