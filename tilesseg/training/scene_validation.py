"""Validation on whole scenes, by the run's own tile function: what is measured here is what will be served.

Each scene of a part is segmented tile by tile into a store, whose labels are compared with the truth in the part alone.
Pixels without a label or without data count nowhere. The threshold of a network of one score is chosen here.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import nn

from tilesseg.inference.segment_tile import SceneWork, segment_tile
from tilesseg.models.engines.batches import BatchSlots
from tilesseg.models.engines.torch_engine import TorchEngine, open_module
from tilesseg.models.spec import Decision
from tilesseg.planning.job import TilingOptions
from tilesseg.planning.machine import Compute
from tilesseg.planning.recipe import Recipe, call_of
from tilesseg.planning.tile_layout import Layout, choose_layout
from tilesseg.raster.labels import IGNORED, NODATA, SCORE_STEPS
from tilesseg.raster.metrics import Counts, confusion, dice
from tilesseg.raster.window import Window
from tilesseg.store.scene_store import Store

if TYPE_CHECKING:
    from tilesseg.formats.labels.label_source import LabelSource
    from tilesseg.formats.source import Source
    from tilesseg.models.normalisation import Normalisation
    from tilesseg.models.spec import ClassSpec, ModelSpec


class TrueScene(Protocol):
    """A scene with its labels, as `labelled_scenes.LabelledScene`."""

    @property
    def name(self) -> str: ...

    @property
    def source(self) -> Source: ...

    @property
    def labels(self) -> LabelSource: ...

    @property
    def normalisation(self) -> Normalisation: ...


@dataclass(frozen=True, slots=True)
class PartOfScene:
    """A scene of a part, and where in it the part lies."""

    scene: TrueScene
    windows: tuple[Window, ...]
    """Windows of the part; they do not overlap."""


@dataclass(frozen=True, slots=True)
class Device:
    """Place and manner of computing: as the training computes."""

    name: str
    threads: int
    precision: str


@dataclass(frozen=True, slots=True)
class Validation:
    """Result of a validation."""

    matrices: Mapping[str, Counts]
    """Pixels by true class and label of each scene, see `raster.metrics.confusion`."""
    score: float
    """Mean Dice of the classes over all pixels together, see `mean_dice`."""
    threshold: float | None = None
    """Threshold by which the labels were decided, for a network of one score."""

    @property
    def matrix(self) -> Counts:
        """Pixels by true class and label of all scenes together."""
        return _sum(self.matrices)


def validate(
    network: nn.Module,
    spec: ModelSpec,
    parts: Sequence[PartOfScene],
    *,
    device: Device,
    folder: Path,
    choose: bool = True,
    after_tile: Callable[[], None] = lambda: None,
) -> Validation:
    """Segment the scenes of a part, and compare with their labels.

    Args:
        network: the network; not changed.
        spec: its contract.
        parts: scenes, each with its windows.
        device: place and manner of computing.
        folder: folder of the stores, whose content is replaced; removed at the end.
        choose: whether the threshold of a network of one score is chosen; False takes that of `spec`.
        after_tile: called after each tile; what it raises ends the validation.
    """
    slots = BatchSlots(device.threads)
    engine = open_module(spec, network, device=device.name, batch_slots=slots, precision=device.precision)
    counts: dict[str, Counts] = {}
    try:
        for part in parts:
            counts[part.scene.name] = _count(part, engine, folder / "scene", device=device, after_tile=after_tile)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    given, total = spec.decision.threshold, _sum(counts)
    if given is None:
        return Validation(counts, mean_dice(total, spec.classes))
    step = best_step(total, spec.classes) if choose else step_of(given)
    matrices = {name: matrix_at(histogram, step) for name, histogram in counts.items()}
    score = mean_dice(_sum(matrices), spec.classes)
    return Validation(matrices, score, threshold_of(step) if choose else given)


def mean_dice(matrix: Counts, classes: Sequence[ClassSpec]) -> float:
    """Mean Dice of all classes, but of the first where it is called background; 0 where there is nothing to find."""
    return float(scored.mean()) if len(scored := _scored(dice(matrix), classes)) else 0.0


def _sum(counts: Mapping[str, Counts]) -> Counts:
    total: Counts = np.sum([*counts.values()], axis=0)
    return total


def _scored(values: NDArray[np.float64], classes: Sequence[ClassSpec]) -> NDArray[np.float64]:
    """Values of the classes that count, without NaN."""
    counted = values[1:] if classes[0].name.lower() == "background" else values
    return counted[~np.isnan(counted)]


def best_step(histogram: Counts, classes: Sequence[ClassSpec]) -> int:
    """Stored score from which on a pixel is of the second class, so that the mean Dice is highest.

    Of several, the one nearest to the middle.

    Args:
        histogram: pixels by true class and stored score, `(2, 251)`.
        classes: the classes.
    """
    middle = SCORE_STEPS // 2

    def worth(step: int) -> tuple[float, int]:
        return mean_dice(matrix_at(histogram, step), classes), -abs(step - middle)

    return max(range(1, SCORE_STEPS + 1), key=worth)


def matrix_at(histogram: Counts, step: int) -> Counts:
    """Confusion matrix where pixels of a stored score from `step` on are of the second class."""
    return np.stack([histogram[:, :step].sum(1), histogram[:, step:].sum(1), np.zeros(2, np.int64)], axis=1)


def threshold_of(step: int) -> float:
    """Least score, float32, that is stored as `step`: the threshold that divides scores as the stored ones."""
    below, above = np.float32(0), np.float32(1)
    while (middle := np.float32((below + above) / 2)) not in (below, above):
        below, above = (below, middle) if step_of(float(middle)) >= step else (middle, above)
    return float(above)


def step_of(score: float) -> int:
    """Stored value of a score, as `raster.labels.quantise` rounds it."""
    return int(np.rint(np.float32(score) * np.float32(SCORE_STEPS)))


def decided(spec: ModelSpec, threshold: float | None) -> ModelSpec:
    """Spec with the threshold that a validation chose; unchanged where it chose none."""
    if threshold is None:
        return spec
    return spec.model_copy(update={"decision": Decision(kind="threshold", threshold=threshold)})


def _count(
    part: PartOfScene, engine: TorchEngine, folder: Path, *, device: Device, after_tile: Callable[[], None]
) -> Counts:
    """Counts of a scene: a confusion matrix, or for a network of one score a histogram."""
    spec, scene = engine.spec, part.scene
    one_score = spec.decision.kind == "threshold"
    layout = _layout(scene, spec, device)
    recipe = Recipe(layout.blend, scene.normalisation, layout.batch, (0,) if one_score else ())
    store = _new_store(folder, layout, shape=scene.source.grid.shape, scores=spec.score_names if one_score else ())
    network = engine.network(call_of(layout.lattice, recipe, dtype=scene.source.dtype, spec=spec))
    work = SceneWork(scene.source, network, spec, store, recipe)
    classes = len(spec.classes)
    total = np.zeros((classes, SCORE_STEPS + 1) if one_score else (classes, classes + 1), np.int64)
    for tile in layout.tiling(scene.source.grid.shape):
        inside = [shared for window in part.windows if not (shared := tile.core.intersect(window)).empty]
        if inside:
            segment_tile(tile, work)
            after_tile()
        for window in _strips(inside):
            truth, mask = scene.labels.read(window), store.read(window)
            known = np.where(mask == NODATA, np.uint8(IGNORED), truth)
            if one_score:
                total += _histogram(known, store.read_scores(0, window))
            else:
                total += confusion(known, mask, classes)
    return total


def _layout(scene: TrueScene, spec: ModelSpec, device: Device) -> Layout:
    compute = Compute(device.name.partition(":")[0], device.threads, 1)
    source = scene.source
    return choose_layout(source.grid.shape, spec, TilingOptions(), compute=compute, itemsize=source.dtype.itemsize)


def _new_store(folder: Path, layout: Layout, *, shape: tuple[int, int], scores: Sequence[str]) -> Store:
    shutil.rmtree(folder, ignore_errors=True)
    store = Store(folder)
    store.create(
        shape=shape, shard=layout.shard, chunk=layout.chunk, fingerprint="validation", scores=scores, core=layout.core
    )
    return store


def _strips(windows: Sequence[Window], height: int = 1024) -> Iterator[Window]:
    """The windows in strips of a limited height."""
    for window in windows:
        for y in range(window.y, window.y_stop, height):
            yield Window.from_bounds(y, window.x, min(y + height, window.y_stop), window.x_stop)


def _histogram(truth: NDArray[np.uint8], scores: NDArray[np.uint8]) -> Counts:
    known = (truth != IGNORED) & (scores <= SCORE_STEPS)
    cells = truth[known].astype(np.int64) * (SCORE_STEPS + 1) + scores[known]
    return np.bincount(cells, minlength=2 * (SCORE_STEPS + 1)).reshape(2, SCORE_STEPS + 1)
