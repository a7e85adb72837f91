"""`segment_tile`: the function that every worker runs, whatever runs the workers."""

from __future__ import annotations

import resource
import socket
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tilesseg.blend import Blend, Blender, Mosaic, decide, decide_and_keep, patch_weights
from tilesseg.events import TileDone
from tilesseg.labels import NODATA
from tilesseg.window import Window

if TYPE_CHECKING:
    from tilesseg.formats import Pixels, Source
    from tilesseg.models import Model
    from tilesseg.models.spec import ModelSpec
    from tilesseg.normalise import Normalisation
    from tilesseg.store import Store
    from tilesseg.tiling import Patch, Tile


_TALLIED = 1 << 17
"""Labels counted at a time: NumPy makes each of them eight bytes first."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """What the plan fixed for every tile of a scene, so that no tile decides anything."""

    blend: Blend
    normalisation: Normalisation
    batch_size: int
    """Patches a call of the network gets; the last batch is padded, so its shape never changes."""
    scores: tuple[int, ...] = ()
    """Channels whose blended scores are stored beside the labels."""


def segment_tile(tile: Tile, *, source: Source, model: Model, store: Store, recipe: Recipe) -> TileDone:
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
    predicted = skipped = 0
    for row in tile.patch_rows:
        with clock("read"):
            pixels = source.read(row.window)
        blender.start(row.patches[0].support, row.until)
        wanted = [patch for patch in row.patches if _any_valid(patch, tile.core, pixels, row.window)]
        predicted, skipped = predicted + len(wanted), skipped + len(row.patches) - len(wanted)
        for batch in batched(wanted, recipe.batch_size):
            with clock("prepare"):
                _cut(pixels, row.window, batch, fill=spec.fill, recipe=recipe, out=inputs)
            with clock("predict"):
                scores = model.predict(inputs)
            with clock("blend"):
                _blend(blender, batch, scores, shrink=spec.patch.shrink)
        with clock("blend"):
            final = Window.from_bounds(bands[0].y_next, tile.core.x, row.until, tile.core.x_stop)
            planes = _planes(blender.finish())
            _mark_nodata(planes, pixels.valid[final.slices(row.window)])
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
            seconds=clock.seconds,
            peak_mb=peak_mb(),
            worker=socket.gethostname(),
        )
    )


def batched(items: Sequence[Patch], size: int) -> Iterator[Sequence[Patch]]:
    """Runs of `size` items, the last one shorter."""
    return (items[start : start + size] for start in range(0, len(items), size))


def _any_valid(patch: Patch, core: Window, pixels: Pixels, read: Window) -> bool:
    """Whether the patch has a say in any valid pixel of the core; elsewhere the mask is nodata whatever it says."""
    seen = patch.support.intersect(core)
    return bool(pixels.valid[seen.slices(read)].any())


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

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[part] = round(self.seconds.get(part, 0.0) + time.perf_counter() - start, 4)


def _planes(decided: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """What was decided of some rows as `(1 + scores, rows, width)`: labels first."""
    return decided if decided.ndim == 3 else decided[None]


def _mark_nodata(planes: NDArray[np.uint8], valid: NDArray[np.bool_]) -> None:
    for plane in planes:
        for row, seen in zip(plane, valid, strict=True):
            row[~seen] = NODATA


@dataclass(slots=True)
class Census:
    """Counts pixels and square metres per label while the labels pass by."""

    pixel_areas: Any
    _counts: Counter[int] = field(default_factory=Counter)
    _areas: Counter[int] = field(default_factory=Counter)

    def add(self, labels: NDArray[np.uint8], y: int) -> None:
        """Count the rows `labels (rows, width)` that begin at image row `y`."""
        if not len(labels):
            return
        areas, counts = self.pixel_areas(y, y + len(labels)), _tally(labels)
        self._counts.update(counts)
        if areas is None:
            return
        if np.all(areas == areas[0]):
            self._areas.update({label: count * float(areas[0]) for label, count in counts.items()})
            return
        for row, area in zip(labels, areas, strict=True):
            self._areas.update({label: count * float(area) for label, count in _tally(row).items()})

    @property
    def counts(self) -> Mapping[str, int]:
        return {str(label): self._counts[label] for label in sorted(self._counts)}

    @property
    def areas(self) -> Mapping[str, float]:
        return {str(label): self._areas[label] for label in sorted(self._areas)}


def _tally(labels: NDArray[np.uint8]) -> dict[int, int]:
    counts = np.zeros(256, np.int64)
    step = max(1, _TALLIED // max(1, labels.shape[-1]))
    for start in range(0, len(labels), step):
        counts += np.bincount(labels[start : start + step].ravel(), minlength=256)
    return {int(label): int(counts[label]) for label in np.flatnonzero(counts)}
