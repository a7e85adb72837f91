"""Compared scenes: a mask and the truth for its pixels, opened once per process and read by window."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tilesseg.errors import SourceError, cannot
from tilesseg.evaluation.counts import Counts, count_window
from tilesseg.formats.labels.label_source import LabelSource, open_labels
from tilesseg.formats.labels.label_values import LabelOptions
from tilesseg.formats.open import open_source
from tilesseg.formats.source import Source
from tilesseg.planning.plan import Plan
from tilesseg.planning.stored_plan import open_run_directory, stored_scene_plan
from tilesseg.raster.boundaries import halo
from tilesseg.raster.grid import Grid
from tilesseg.raster.labels import FAILED, NODATA, SCORE_STEPS
from tilesseg.raster.window import Window
from tilesseg.store.scene_store import Store

BLOCK, SMALLEST = 1024, 64
"""Sides in pixels of the blocks that are counted, fixed to the image's origin: of large scenes, and the smallest."""
ENOUGH = 32
"""Number of blocks from which on they are not made smaller: an interval is drawn of them."""


@dataclass(frozen=True)
class ComparedScene:
    """A mask, its truth, and the rules of their comparison. Plain data, sent to workers."""

    name: str
    mask: str
    """Path of a mask, or of the run directory that holds the scene."""
    truth: str
    """Path of the labels."""
    classes: tuple[str, ...]
    values: tuple[tuple[int | str, str], ...] | None = None
    """Class of each value of the truth; None: they are the classes."""
    attribute: str | None = None
    layer: str | None = None
    all_touched: bool = False
    area: str | None = None
    """File of polygons, outside which nothing is compared."""
    tolerance: int = 2
    """Tolerance of boundaries in pixels."""
    scores: bool = False
    """Whether the stored scores of a run are compared too."""
    only_valid: bool = False
    """Whether pixels without data in the mask are left out."""
    run: bool = False
    """Whether `mask` is a run directory."""
    block: int = BLOCK
    """Side of a block in pixels."""

    @property
    def options(self) -> LabelOptions:
        """Options of opening the truth."""
        values = None if self.values is None else dict(self.values)
        return LabelOptions(values, self.attribute, self.layer, self.all_touched, self.area)


class MaskReader(Protocol):
    """A mask that is read by window."""

    @property
    def grid(self) -> Grid: ...

    @property
    def native(self) -> Grid:
        """Grid of the image's own pixels, on which the truth may lie too."""

    def read(self, window: Window) -> NDArray[np.uint8]:
        """Labels `(y, x)`, 254 and 255 where there is no class."""

    def read_scores(self, window: Window) -> NDArray[np.uint8]:
        """Stored scores `(classes, y, x)`."""


@dataclass(frozen=True)
class MaskFile:
    """A mask in a file."""

    source: Source
    path: str
    classes: int

    @property
    def grid(self) -> Grid:
        return self.source.grid

    @property
    def native(self) -> Grid:
        return self.source.grid

    def read(self, window: Window) -> NDArray[np.uint8]:
        """Labels of a window.

        Raises:
            SourceError: a label is no class.
        """
        pixels = self.source.read(window)
        values = pixels.values[0]
        wrong = pixels.valid & ((values < 0) | (values >= self.classes)) & (values != FAILED) & (values != NODATA)
        if wrong.any():
            raise SourceError(
                f"{self.path} holds the label {values[wrong][0]:g}, and the classes are 0 … {self.classes - 1}; "
                "name all its classes with --classes"
            )
        return np.where(pixels.valid, values, NODATA).astype(np.uint8)

    def read_scores(self, window: Window) -> NDArray[np.uint8]:
        """A file of labels has no scores.

        Raises:
            SourceError: always.
        """
        raise SourceError(_no_scores(self.path))


@dataclass(frozen=True)
class MaskOfRun:
    """The mask of a scene of a run: tiles that are not done read as 254."""

    store: Store
    grid: Grid
    native: Grid
    one_score: bool
    """Whether the only score is that of the second of two classes."""

    def read(self, window: Window) -> NDArray[np.uint8]:
        """Labels of a window."""
        return self.store.read(window)

    def read_scores(self, window: Window) -> NDArray[np.uint8]:
        """Stored scores of all classes; that of the first is the rest to 1 where it has none."""
        if not self.one_score:
            return np.stack([self.store.read_scores(n, window) for n in range(len(self.store.score_classes))])
        second = self.store.read_scores(0, window)
        return np.stack([np.where(second <= SCORE_STEPS, SCORE_STEPS - second, second).astype(np.uint8), second])


@dataclass(frozen=True)
class OpenedScene:
    """A compared scene with its files open."""

    mask: MaskReader
    truth: LabelSource


@lru_cache(maxsize=16)
def _run_of(path: str) -> tuple[object, Plan]:
    run, plan = open_run_directory(Path(path))
    return run, plan


def open_compared(scene: ComparedScene) -> OpenedScene:
    """Open mask and truth of a scene.

    Raises:
        TilessegError: one of them cannot be read, or they do not lie on one grid.
    """
    name = f"scene {scene.name} of {scene.mask}" if scene.run else scene.mask
    mask: MaskReader = _open_of_run(scene) if scene.run else _open_file(scene)
    truth = open_labels(
        scene.truth, grid=mask.grid, native=mask.native, image=name, classes=scene.classes, options=scene.options
    )
    return OpenedScene(mask, truth)


def _no_scores(path: str) -> str:
    return f"{path} holds labels and no scores; evaluate the run that stored them, with --scores"


def _open_file(scene: ComparedScene) -> MaskFile:
    if scene.scores:
        raise SourceError(_no_scores(scene.mask))
    source = open_source(scene.mask)
    if len(source.bands) != 1 or source.dtype.kind not in "iu":
        because = f"a mask is one band of whole numbers, and it has {len(source.bands)} of {source.dtype}"
        raise SourceError(cannot(f"evaluate {scene.mask}", because, "give a mask"))
    return MaskFile(source.select([0]), scene.mask, len(scene.classes))


def _open_of_run(scene: ComparedScene) -> MaskOfRun:
    run, plan = open_run_directory(Path(scene.mask))
    store = run.scene(scene.name)
    planned = stored_scene_plan(store)
    if planned is None:
        raise SourceError(
            cannot(f"evaluate scene {scene.name} of {scene.mask}", "it was never planned", "run the job first")
        )
    one_score = plan.spec.decision.kind == "threshold" and plan.spec.score_channels == 1
    if scene.scores and len(plan.scores) != plan.spec.score_channels:
        raise SourceError(
            f"{scene.mask} stores {len(plan.scores)} of {plan.spec.score_channels} scores; run the job with "
            "output.scores: true, or leave --scores out"
        )
    return MaskOfRun(store.of_done_tiles(planned.tiling), planned.grid, planned.image, one_score)


@lru_cache(maxsize=8)
def _opened(scene: ComparedScene) -> OpenedScene:
    return open_compared(scene)


@dataclass(frozen=True, slots=True)
class Block:
    """A block of a scene, to be counted."""

    scene: ComparedScene
    row: int
    column: int


def block_side(shape: tuple[int, int]) -> int:
    """Side of the blocks of a scene: 1,024 px, or less where these would be few."""
    side = BLOCK
    while side > SMALLEST and -(-shape[0] // side) * -(-shape[1] // side) < ENOUGH:
        side //= 2
    return side


def blocks_of(scene: ComparedScene, shape: tuple[int, int]) -> list[Block]:
    """All blocks of a scene."""
    rows, columns = (-(-size // scene.block) for size in shape)
    return [Block(scene, row, column) for row in range(rows) for column in range(columns)]


def count_block(block: Block) -> Counts | str:
    """Counts of a block, or the reason for which it cannot be counted."""
    scene = block.scene
    try:
        opened = _opened(scene)
        whole = opened.mask.grid.window
        side = scene.block
        core = Window(block.row * side, block.column * side, side, side).intersect(whole)
        read = core.inset(-halo(scene.tolerance), -halo(scene.tolerance)).intersect(whole)
        return count_window(
            opened.truth.read(read),
            opened.mask.read(read),
            len(scene.classes),
            tolerance=scene.tolerance,
            inner=core.shift(-read.y, -read.x),
            scores=opened.mask.read_scores(core) if scene.scores else None,
            only_valid=scene.only_valid,
        )
    except SourceError as error:
        return str(error)
