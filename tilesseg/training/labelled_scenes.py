"""Labelled scenes: images opened as a run opens them, each with its labels on the same grid."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tilesseg.errors import JobError
from tilesseg.formats.labels.label_source import LabelSource, open_labels
from tilesseg.formats.labels.label_values import LabelOptions
from tilesseg.formats.open import open_source
from tilesseg.models.normalisation import Normalisation
from tilesseg.planning.job import Input, TilingOptions
from tilesseg.planning.machine import Compute
from tilesseg.planning.recipe import raw_dtype
from tilesseg.planning.roi_choice import choose_cells
from tilesseg.planning.scene_csv import read_columns
from tilesseg.planning.scene_list import Scene, find_scenes
from tilesseg.planning.scene_plan import OpenedBands, open_bands, own_input, scene_identity
from tilesseg.planning.tile_layout import choose_layout
from tilesseg.raster.grid import Grid
from tilesseg.raster.labels import IGNORED
from tilesseg.raster.region_of_interest import RoiCells
from tilesseg.raster.window import Window
from tilesseg.training.train_spec import LabelledData, Split

if TYPE_CHECKING:
    from tilesseg.formats.source import Source
    from tilesseg.models.spec import ModelSpec


@dataclass(frozen=True, slots=True)
class NamedScene:
    """A scene that the spec names, with the entry that says its labels."""

    scene: Scene
    data: LabelledData
    row: Mapping[str, str] | None = None
    """The scene's row in a table of scenes."""

    def placed(self, path: str) -> str:
        """Path in which `{scene}` stands for the scene's name."""
        return path.replace("{scene}", self.scene.name)


@dataclass(frozen=True)
class RegionLabels:
    """Labels of the region of interest; outside it nothing is labelled, for a run does not look there."""

    labels: LabelSource
    cells: RoiCells

    @property
    def grid(self) -> Grid:
        """Grid of the image as it is read."""
        return self.labels.grid

    def read(self, window: Window) -> NDArray[np.uint8]:
        """Classes `(y, x)` of a window, as `LabelSource.read`."""
        known = self.labels.read(window)
        for outside in self.cells.inside(window.intersect(self.grid.window), in_roi=False):
            known[outside.slices(window)] = IGNORED
        return known

    def identity(self) -> dict[str, Any]:
        """State of the files of the labels."""
        return self.labels.identity()


@dataclass(frozen=True)
class LabelledScene:
    """An image as a network reads it, with its labels. Picklable; safe to read from several threads at once."""

    name: str
    source: Source
    """The image, reading the network's bands."""
    labels: LabelSource
    normalisation: Normalisation
    """Normalisation of this scene."""
    fill: float
    """Value of invalid pixels, before normalisation."""
    cells: RoiCells | None = None
    """Region of interest, or None where it is the whole image."""
    images: dict[str, Any] = field(default_factory=dict)
    """State of the image's files."""
    notes: tuple[str, ...] = ()

    def read(self, window: Window) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        """Normalised values `(channel, y, x)` as a run gives them to its network, and labels `(y, x)`.

        Raises:
            SourceError: image or labels cannot be read.
        """
        values, _, labels = self.read_raw(window)
        return self.normalisation.apply(values), labels

    def read_raw(self, window: Window) -> tuple[NDArray[Any], NDArray[np.bool_], NDArray[np.uint8]]:
        """Values before normalisation, valid pixels, and labels: IGNORED where pixels are invalid or outside.

        Raises:
            SourceError: image or labels cannot be read.
        """
        pixels = self.source.read(window)
        values = np.array(pixels.values, raw_dtype(self.source.dtype, self.fill))
        valid = np.array(pixels.valid)
        values[:, ~valid] = self.fill
        return values, valid, np.where(valid, self.labels.read(window), np.uint8(IGNORED))

    def known(self, window: Window) -> NDArray[np.uint8]:
        """Classes `(y, x)` of a window in the scene, IGNORED where nothing is labelled or the image has no data.

        Raises:
            SourceError: image or labels cannot be read.
        """
        labels = self.labels.read(window)
        if (labels == IGNORED).all():
            return labels
        return np.where(self.source.read(window).valid, labels, np.uint8(IGNORED))

    def normalised(self, normalisation: Normalisation, fill: float, notes: Sequence[str] = ()) -> LabelledScene:
        """The scene with another normalisation, and further notes."""
        return replace(self, normalisation=normalisation, fill=fill, notes=(*self.notes, *notes))

    def identity(self) -> dict[str, Any]:
        """State of the files of image and labels."""
        return {"image": self.images, "labels": self.labels.identity()}


def find_labelled(data: Sequence[LabelledData], split: Split) -> list[NamedScene]:
    """Scenes of all entries, in their order.

    Raises:
        JobError: no image is there, two scenes have one name, or an image is named twice.
    """
    named = [one for entry in data for one in _found(entry, split)]
    names, images = dict[str, NamedScene](), dict[object, NamedScene]()
    for one in named:
        scene = one.scene
        other = names.setdefault(scene.name, one)
        if other is not one:
            raise JobError(
                f"two scenes are called {scene.name}: {other.scene.paths[0]} and {scene.paths[0]}; give one another "
                "name"
            )
        other = images.setdefault(_image_of(scene), one)
        if other is not one:
            raise JobError(
                f"{scene.paths[0]} is named twice, as {other.scene.name} and as {scene.name}: it would train and "
                "validate; leave one out"
            )
    return named


def _found(entry: LabelledData, split: Split) -> list[NamedScene]:
    besides = (split.column,) if split.by == "column" else ()
    scenes = find_scenes(entry.scenes, besides=besides)
    rows: Sequence[Mapping[str, str] | None] = [None] * len(scenes)
    if besides and isinstance(entry.scenes, str) and entry.scenes.lower().endswith(".csv"):
        rows = read_columns(Path(entry.scenes))
    return [NamedScene(scene, entry, row) for scene, row in zip(scenes, rows, strict=True)]


def _image_of(scene: Scene) -> object:
    """Files of an image, and which image of them it is; the same under any name."""
    chosen = tuple((key, scene.input.get(key)) for key in ("series", "level", "t", "z"))
    return tuple(map(os.path.realpath, scene.paths)), chosen


def open_labelled(named: NamedScene, *, reading: Input, spec: ModelSpec) -> LabelledScene:
    """Open an image as a run would with this contract, and its labels; values are not normalised yet.

    Args:
        named: the scene.
        reading: options of reading all scenes.
        spec: contract of the network to be.

    Raises:
        SourceError: the image cannot be read or does not fit the contract, or the labels do not fit the image.
    """
    scene, data = named.scene, named.data
    own = own_input(scene, reading)
    opened = open_bands(scene, reading=own, spec=spec, options=TilingOptions())
    source = opened.source
    options = LabelOptions(
        data.values, data.attribute, data.layer, data.all_touched, data.area and named.placed(data.area)
    )
    labels = open_labels(
        named.placed(data.labels),
        grid=source.grid,
        native=_own_grid(scene, opened),
        image=scene.paths[0],
        classes=[each.name for each in spec.classes],
        options=options,
    )
    layout = choose_layout(source.grid.shape, spec, TilingOptions(), compute=Compute("cpu", 1, 1))
    stride = layout.lattice.stride
    cells, looked = choose_cells(opened.image, own, stride=stride, paths=scene.paths, name=scene.name)
    return LabelledScene(
        scene.name,
        source,
        labels if cells is None else RegionLabels(labels, cells),
        spec.normalisation() if not spec.normalise.needs_scene else _unchanged(len(spec.bands)),
        spec.fill,
        cells,
        scene_identity(source, scene, own),
        (*opened.notes, *looked),
    )


def _own_grid(scene: Scene, opened: OpenedBands) -> Grid:
    """Grid of the image's own pixels, on which labels may lie where the image is resampled."""
    if opened.opening.resolution is None:
        return opened.source.native
    return open_source(scene.paths, opened.opening.without_resolution()).native


def _unchanged(bands: int) -> Normalisation:
    return Normalisation((0.0,) * bands, (1.0,) * bands)
