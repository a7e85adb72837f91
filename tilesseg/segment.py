"""`segment_tile`: the function that every worker runs, whatever runs the workers."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tilesseg.blend import Blend, Blender, Mosaic, decide, decide_and_keep, patch_weights
from tilesseg.cells import Cells
from tilesseg.census import Census
from tilesseg.events import TileDone
from tilesseg.formats import Pixels
from tilesseg.labels import NODATA
from tilesseg.locks import this_process
from tilesseg.phases import enter
from tilesseg.window import Window

if TYPE_CHECKING:
    from tilesseg.formats import Source
    from tilesseg.grid import Grid
    from tilesseg.models import Model
    from tilesseg.models.spec import ModelSpec
    from tilesseg.normalise import Normalisation
    from tilesseg.store import Store
    from tilesseg.tiling import Patch, PatchRow, Tile


@dataclass(frozen=True, slots=True)
class Recipe:
    """What the plan fixed for every tile of a scene, so that no tile decides anything."""

    blend: Blend
    normalisation: Normalisation
    batch_size: int
    """Patches a call of the network gets; the last batch is padded, so its shape never changes."""
    scores: tuple[int, ...] = ()
    """Channels whose blended scores are stored beside the labels."""
    cells: Cells | None = None
    """Where to look; None looks everywhere."""


def segment_tile(
    tile: Tile, *, source: Source, model: Model, store: Store, recipe: Recipe, attempt: int = 1
) -> TileDone:
    """Segment one tile and store its core. Depends on its arguments alone, and is safe to run twice.

    Raises:
        SourceError: the tile's pixels cannot be read.
        ValueError: the model gave scores that are not finite.
        ModelError: scores are to be stored and are not between 0 and 1.
    """
    spec, clock = model.spec, Stopwatch()
    blender = _blender(tile, spec, recipe)
    inputs = np.zeros((recipe.batch_size, len(spec.bands), tile.lattice.patch, tile.lattice.patch), np.float32)
    census, bands = Census(source.grid.pixel_areas), store.bands(tile.core, scores=len(recipe.scores))
    predicted = skipped = seen = outside = 0
    for row in tile.patch_rows:
        patches, window = _looked_at(row, tile.core, recipe.cells)
        with clock("read"):
            pixels = source.read(window) if patches else _nothing(window)
        seen += window.intersect(source.grid.window).area
        blender.start(row.patches[0].support, row.until)
        wanted = [patch for patch in patches if _any_valid(patch, tile.core, pixels, window, recipe.cells)]
        predicted, skipped = predicted + len(wanted), skipped + len(row.patches) - len(wanted)
        for batch in batched(wanted, recipe.batch_size):
            with clock("prepare"):
                _cut(pixels, window, batch, fill=spec.fill, recipe=recipe, out=inputs)
            with clock("predict"):
                scores = model.predict(inputs)
            with clock("blend"):
                _blend(blender, batch, scores, shrink=spec.patch.shrink)
        with clock("blend"):
            final = Window.from_bounds(bands[0].y_next, tile.core.x, row.until, tile.core.x_stop)
            planes = _planes(blender.finish())
            _mark_nodata(planes, final, pixels, window)
            outside += _mark_outside(planes, final, recipe.cells)
            census.add(planes[0], final.y)
        with clock("write"):
            for band, plane in zip(bands, planes, strict=True):
                band.write(plane)
        del pixels, planes  # before the next row is read
    return store.mark_done(
        TileDone(
            scene=store.scene,
            tile=tile.name,
            pixels=tile.core.area,
            patches=predicted,
            skipped=skipped,
            counts=census.counts,
            areas=census.areas,
            outside=outside,
            read=seen,
            seconds=clock.seconds,
            peak_mb=peak_mb(),
            worker=this_process(),
            started=clock.started,
            wall=clock.wall,
            attempts=attempt,
        )
    )


def skip_tile(tile: Tile, cells: Cells, *, grid: Grid, store: Store, scores: int = 0) -> TileDone:
    """Store the core of a tile of which no cell is looked at, without its source and without a model.

    Args:
        tile: the tile.
        cells: where to look.
        grid: the scene's.
        store: the scene's.
        scores: how many classes' scores are stored.
    """
    clock, census, core = Stopwatch(), Census(grid.pixel_areas), tile.core
    bands = store.bands(core, scores=scores)
    census.add_uniform(cells.label, core)
    with clock("write"):
        for y in range(core.y, core.y_stop, store.shard):
            part = Window.from_bounds(y, core.x, min(y + store.shard, core.y_stop), core.x_stop)
            planes = np.empty((1 + scores, *part.shape), np.uint8)
            _mark_outside(planes, part, cells)
            for band, plane in zip(bands, planes, strict=True):
                band.write(plane)
    return store.mark_done(
        TileDone(
            scene=store.scene,
            tile=tile.name,
            pixels=core.area,
            patches=0,
            skipped=sum(len(row.patches) for row in tile.patch_rows),
            counts=census.counts,
            areas=census.areas,
            outside=core.area,
            seconds=clock.seconds,
            peak_mb=peak_mb(),
            worker=this_process(),
            started=clock.started,
            wall=clock.wall,
        )
    )


def batched(items: Sequence[Patch], size: int) -> Iterator[Sequence[Patch]]:
    """Runs of `size` items, the last one shorter."""
    return (items[start : start + size] for start in range(0, len(items), size))


def _looked_at(row: PatchRow, core: Window, cells: Cells | None) -> tuple[Sequence[Patch], Window]:
    """The patches of a row that have a say in any pixel that is looked at, and what they see: one read."""
    if cells is None:
        return row.patches, row.window
    patches = [patch for patch in row.patches if cells.touches(patch.support.intersect(core))]
    if not patches:
        return (), Window(row.window.y, core.x, 0, 0)
    first, last = patches[0].window, patches[-1].window
    return patches, Window.from_bounds(first.y, first.x, last.y_stop, last.x_stop)


def _nothing(window: Window) -> Pixels:
    """What is read where nothing is looked at."""
    return Pixels(np.empty((0, *window.shape), np.uint8), np.empty(window.shape, np.bool_))


def _any_valid(patch: Patch, core: Window, pixels: Pixels, read: Window, cells: Cells | None) -> bool:
    """Whether the patch has a say in any valid pixel that is looked at; elsewhere the mask is what it is anyway."""
    seen = patch.support.intersect(core)
    if cells is None:
        return bool(pixels.valid[seen.slices(read)].any())
    return any(bool(pixels.valid[part.slices(read)].any()) for part in cells.inside(seen))


def _blender(tile: Tile, spec: ModelSpec, recipe: Recipe) -> Blender | Mosaic:
    """What joins a tile's predictions to labels and, below them, stored scores."""
    lattice, decided = tile.lattice, partial(decide, threshold=spec.decision.threshold)
    if recipe.scores:
        decided = partial(decide_and_keep, threshold=spec.decision.threshold, kept=recipe.scores)
    if lattice.exclusive:
        return Mosaic(tile.core, spec.score_channels, decided)
    weights = patch_weights(recipe.blend, lattice.support)
    return Blender(tile.core, weights, spec.score_channels, decided, stride=lattice.stride)


def _cut(
    pixels: Pixels, read: Window, batch: Sequence[Patch], *, fill: float, recipe: Recipe, out: NDArray[np.float32]
) -> None:
    """Put the network's input into `out (batch_size, channel, P, P)`: filled, normalised, padded with 0."""
    out[len(batch) :] = 0
    for place, patch in zip(out, batch, strict=False):
        rows, columns = patch.window.slices(read)
        values, valid = pixels.values[:, rows, columns], pixels.valid[rows, columns]
        if not valid.all():
            values = _filled(values, valid, fill)
        recipe.normalisation.apply(values, out=place)


def _filled(values: NDArray[Any], valid: NDArray[np.bool_], fill: float) -> NDArray[Any]:
    """Values `(channel, y, x)` with `fill` where invalid; wider where their own type cannot hold it."""
    dtype = values.dtype
    if dtype.kind in "iu" and not (float(fill).is_integer() and np.iinfo(dtype).min <= fill <= np.iinfo(dtype).max):
        dtype = np.dtype(np.float64)
    return np.where(valid, values, np.asarray(fill, dtype))


def _blend(blender: Blender | Mosaic, batch: Sequence[Patch], scores: NDArray[np.float32], *, shrink: int) -> None:
    """Add the part of each prediction that counts, in lattice order."""
    for patch, predicted in zip(batch, scores, strict=False):
        output = patch.window.inset(shrink // 2, shrink // 2)
        blender.add(patch.support, predicted[:, *patch.support.slices(output)])


def peak_mb() -> float:
    """Peak resident memory of this process so far, in MB of 10^6 bytes.

    Of the kernel's figures VmHWM, where there is one: ru_maxrss still counts what this process was forked from.
    """
    try:
        with open("/proc/self/status", encoding="ascii") as status:
            found = next(line for line in status if line.startswith("VmHWM:"))
        return int(found.split()[1]) * 1024 / 1e6
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


class Stopwatch:
    """Wall seconds by the part of the work they went to."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.started, self._begun = round(time.time(), 3), time.perf_counter()

    @property
    def wall(self) -> float:
        """Seconds since the start."""
        return round(time.perf_counter() - self._begun, 4)

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        enter(part)
        start = time.perf_counter()
        yield
        self.seconds[part] = round(self.seconds.get(part, 0.0) + time.perf_counter() - start, 4)


def _planes(decided: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """What was decided of some rows as `(1 + scores, rows, width)`: labels first."""
    return decided if decided.ndim == 3 else decided[None]


def _mark_nodata(planes: NDArray[np.uint8], final: Window, pixels: Pixels, read: Window) -> None:
    """Mark what is invalid of the rows `final`, in the columns that were read."""
    if read.empty:
        return
    part = final.intersect(read)
    valid, columns = pixels.valid[part.slices(read)], part.slices(final)[1]
    for plane in planes:
        for row, seen in zip(plane[:, columns], valid, strict=True):
            row[~seen] = NODATA


def _mark_outside(planes: NDArray[np.uint8], final: Window, cells: Cells | None) -> int:
    """Mark what is not looked at of the rows `final`, which has no scores; how many pixels that is."""
    if cells is None:
        return 0
    pixels = 0
    for part in cells.inside(final, looked_at=False):
        place = part.slices(final)
        planes[0][place] = cells.label
        planes[1:, *place] = NODATA
        pixels += part.area
    return pixels
