"""Writer of a tile: predictions are blended or laid side by side, decided, marked, counted and stored."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tilesseg.inference.blending import Blender, Mosaic, Shares, profile
from tilesseg.inference.class_counts import ClassCounts, areas_on_ground
from tilesseg.inference.patch_reader import Invalid, Row
from tilesseg.planning.recipe import Recipe, gives_labels
from tilesseg.raster.labels import FAILED, NODATA, decide, decide_and_keep
from tilesseg.raster.window import Window
from tilesseg.store.shard_writer import stored_sums

if TYPE_CHECKING:
    from tilesseg.inference.worker_phases import Stopwatch
    from tilesseg.models.spec import ModelSpec
    from tilesseg.raster.grid import Grid
    from tilesseg.raster.region_of_interest import RoiCells
    from tilesseg.raster.tiling import Patch, Tile
    from tilesseg.store.scene_store import Store


class Predicted(NamedTuple):
    """Predictions of a batch."""

    steps: Sequence[Row | Patch]
    outputs: NDArray[Any] | None
    """Labels `(n, y, x)` or scores `(n, score, y, x)`, at least as many as patches among the steps; without the margin
    that the lattice discards."""


class TileWriter:
    """Writer of a tile's core: takes predictions in lattice order, and stores row by row."""

    def __init__(
        self, tile: Tile, *, spec: ModelSpec, recipe: Recipe, grid: Grid, store: Store, clock: Stopwatch
    ) -> None:
        self.class_counts, self.outside = ClassCounts(areas_on_ground(grid), tile.core.x), 0
        """Counts of the core's labels, and the number of its pixels outside the region of interest."""
        self._blender, self._discarded = _blender(tile, spec, recipe), tile.lattice.discarded
        self._shard_rows = store.core_rows(tile.core, scores=len(recipe.scores))
        self._cells, self._clock = recipe.cells, clock
        self._row: Row | None = None
        self._left = 0
        """Number of patches of the row that are still to come."""

    def take(self, predicted: Predicted) -> None:
        """Process a batch of predictions.

        Raises:
            ModelError: scores are to be stored and are not between 0 and 1.
        """
        outputs = iter(() if predicted.outputs is None else predicted.outputs)
        for step in predicted.steps:
            if isinstance(step, Row):
                self._row, self._left = step, step.patches
                self._blender.start(step.first, step.final.y_stop)
            else:
                self._left -= 1
                with self._clock("blend"):
                    output = step.window.inset(self._discarded, self._discarded)
                    self._blender.add(step.support, next(outputs)[..., *step.support.slices(output)])
            if self._row is not None and not self._left:
                self._finish(self._row)

    def stored(self) -> dict[str, str]:
        """Sums of the stored shards, for the tile's record; to be asked after the last prediction."""
        return stored_sums(self._shard_rows)

    def _finish(self, row: Row) -> None:
        with self._clock("blend"):
            decided = self._blender.finish()
            planes = decided if decided.ndim == 3 else decided[None]
            _mark_lost(planes, row)
            _mark_nodata(planes, row.final, row.invalid)
            self.outside += mark_outside(planes, row.final, self._cells)
            self.class_counts.add(planes[0], row.final.y)
        with self._clock("write"):
            for rows, plane in zip(self._shard_rows, planes, strict=True):
                rows.write(plane)


def _blender(tile: Tile, spec: ModelSpec, recipe: Recipe) -> Blender | Mosaic:
    """Blender of a tile's predictions, which gives labels and, below them, stored scores."""
    lattice, decided = tile.lattice, partial(decide, threshold=spec.decision.threshold)
    if gives_labels(lattice, recipe):
        return Mosaic(tile.core)
    if recipe.scores:
        decided = partial(decide_and_keep, threshold=spec.decision.threshold, kept=recipe.scores)
    if lattice.exclusive:
        return Mosaic(tile.core, decided, channels=spec.score_channels)
    weights, first = profile(recipe.blend, lattice.support), lattice.before - lattice.lead
    y, x = (Shares(weights, stride=lattice.stride, first=first, count=lattice.cells(size)) for size in tile.shape)
    return Blender(tile.core, (y, x), spec.score_channels, decided)


def _mark_lost(planes: NDArray[np.uint8], row: Row) -> None:
    """Mark the pixels that depend on a patch with damaged pixels."""
    for part in row.lost:
        planes[:, *part.slices(row.final)] = FAILED


def _mark_nodata(planes: NDArray[np.uint8], final: Window, invalid: Invalid | None) -> None:
    """Mark the invalid pixels of the rows `final`."""
    if invalid is None:
        return
    rows, columns = invalid.window.slices(final)
    mask = invalid.mask
    for plane in planes:
        np.copyto(plane[rows, columns], NODATA, where=mask)


def mark_outside(planes: NDArray[np.uint8], final: Window, cells: RoiCells | None) -> int:
    """Mark the pixels of the rows `final` outside the region of interest, which have no scores; their number."""
    if cells is None:
        return 0
    pixels = 0
    for part in cells.inside(final, in_roi=False):
        place = part.slices(final)
        planes[0][place] = cells.label
        planes[1:, *place] = NODATA
        pixels += part.area
    return pixels
