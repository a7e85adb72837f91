"""Reader of patches: from a tile's rows of patches to batches for the network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tilesseg.inference.decoded_rows import RowCache
from tilesseg.planning.memory import batches_ahead
from tilesseg.planning.recipe import Recipe, raw_dtype
from tilesseg.raster.window import Window

if TYPE_CHECKING:
    from tilesseg.formats.damage import Damage
    from tilesseg.formats.source import Source
    from tilesseg.inference.worker_phases import Stopwatch
    from tilesseg.models.spec import ModelSpec
    from tilesseg.raster.region_of_interest import RoiCells
    from tilesseg.raster.tiling import Patch, PatchRow, Tile


class Invalid(NamedTuple):
    """Invalid pixels of a window."""

    window: Window
    bits: NDArray[np.uint8]
    """Mask of the invalid pixels, packed row by row."""

    @property
    def mask(self) -> NDArray[np.bool_]:
        """Mask of the invalid pixels, `(y, x)`."""
        flags = np.unpackbits(self.bits, count=self.window.area).view(np.bool_)
        return flags.reshape(self.window.shape)


@dataclass(frozen=True, slots=True)
class Row:
    """Marker in a batch's steps: a new row of patches starts here."""

    first: Window
    """Support of the row's first patch, whether predicted or not."""
    final: Window
    """Pixels of the core that the row completes."""
    patches: int
    """Number of predicted patches that follow."""
    invalid: Invalid | None
    """Invalid pixels of `final`; None where all pixels in the region of interest are valid."""
    lost: tuple[Window, ...] = ()
    """Parts of `final` that depend on a patch with damaged pixels, which is not predicted."""


@dataclass(slots=True)
class Batch:
    """Patches for one call of the network; they may come from several rows of patches."""

    values: NDArray[Any] | None
    """Array `(batch_size, channel, P, P)`, 0 after the last patch; None where there is no patch."""
    steps: list[Row | Patch] = field(default_factory=list)
    """Rows and patches in lattice order, for the writer of the predictions."""


@dataclass(slots=True)
class PatchReader:
    """Reader of a tile's patches. Its counts are complete after the last batch."""

    tile: Tile
    source: Source
    spec: ModelSpec
    recipe: Recipe
    clock: Stopwatch
    predicted: int = 0
    skipped: int = 0
    pixels: int = 0
    """Number of pixels of the image that were read."""
    damage: dict[Damage, None] = field(default_factory=dict)
    """Damage that patches of the tile show."""
    _lost: list[Window] = field(default_factory=list)
    """Supports of patches that were not predicted for the damage that they show."""
    _spare: SimpleQueue[NDArray[Any]] = field(default_factory=SimpleQueue)

    @property
    def depth(self) -> int:
        """Number of batches that are prefetched."""
        size, lattice = self.recipe.batch_size, self.tile.lattice
        patch = lattice.patch**2 * len(self.spec.bands) * self._dtype.itemsize
        return batches_ahead(size, patch_bytes=patch, row=-(-self.tile.core.width // lattice.stride))

    def batches(self) -> Iterator[Batch]:
        """All batches of the tile; only the last one may be padded.

        Raises:
            SourceError: the tile's pixels cannot be read.
        """
        core, cells = self.tile.core, self.recipe.cells
        windows = [_hull(_patches_in_roi(row, core, cells), row) for row in self.tile.patch_rows]
        cache = RowCache(self.source, windows, surplus=self.tile.lattice.patch)
        batch, filled, top = Batch(None), 0, core.y
        for number, row in enumerate(self.tile.patch_rows):
            with self.clock("read"):
                cache.advance(number)
                wanted = [patch for patch in _patches_in_roi(row, core, cells) if self._any_valid(patch, cache)]
                wanted = [patch for patch in wanted if self._undamaged(patch, cache)]
                final = Window.from_bounds(top, core.x, row.until, core.x_stop)
                invalid = _invalid(cache, final.intersect(windows[number]))
            batch.steps.append(Row(row.patches[0].support, final, len(wanted), invalid, self._lost_in(final)))
            self.predicted, self.skipped = self.predicted + len(wanted), self.skipped + len(row.patches) - len(wanted)
            self.pixels, top = cache.pixels, row.until
            for patch in wanted:
                with self.clock("read"):
                    if batch.values is None:
                        batch.values = self._buffer()
                    cache.cut(patch.window, batch.values[filled], fill=self.spec.fill)
                batch.steps.append(patch)
                filled += 1
                if filled == self.recipe.batch_size:
                    yield batch
                    batch, filled = Batch(None), 0
            if not filled and batch.steps:  # no patch is pending, so nothing is gained by waiting
                yield batch
                batch = Batch(None)
        if batch.values is not None:
            batch.values[filled:] = 0
            yield batch

    @property
    def _dtype(self) -> np.dtype[Any]:
        """Type of raw patches."""
        return raw_dtype(self.source.dtype, self.spec.fill)

    def give_back(self, batch: Batch) -> None:
        """Reuse the memory of a batch that has been predicted."""
        if batch.values is not None:
            self._spare.put(batch.values)
            batch.values = None

    def _buffer(self) -> NDArray[Any]:
        try:
            return self._spare.get_nowait()
        except Empty:
            side = self.tile.lattice.patch
            shape = (self.recipe.batch_size, len(self.spec.bands), side, side)
            return np.empty(shape, self._dtype)

    def _undamaged(self, patch: Patch, cache: RowCache) -> bool:
        """Whether a patch shows no damaged pixel; damage that it shows is noted, and what depends on it is lost."""
        damage = cache.damage_in(patch.window)
        self.damage.update(dict.fromkeys(damage))
        if all(one.coarser for one in damage):
            return True
        self._lost.append(patch.support)
        return False

    def _lost_in(self, final: Window) -> tuple[Window, ...]:
        """Parts of the rows `final` that depend on a lost patch; supports above them are forgotten."""
        parts = tuple(part for support in self._lost if not (part := support.intersect(final)).empty)
        self._lost = [support for support in self._lost if support.y_stop > final.y_stop]
        return parts

    def _any_valid(self, patch: Patch, cache: RowCache) -> bool:
        """Whether a valid pixel in the region of interest depends on the patch; other pixels need no prediction."""
        support = patch.support.intersect(self.tile.core)
        parts = [support] if self.recipe.cells is None else self.recipe.cells.inside(support)
        return any(cache.any_valid(part) for part in parts)


def _patches_in_roi(row: PatchRow, core: Window, cells: RoiCells | None) -> Sequence[Patch]:
    """Patches of a row on which a pixel in the region of interest depends."""
    if cells is None:
        return row.patches
    return [patch for patch in row.patches if cells.touches(patch.support.intersect(core))]


def _hull(patches: Sequence[Patch], row: PatchRow) -> Window:
    """Smallest window around patches of a row; empty without patches."""
    if not patches:
        return Window(row.window.y, row.window.x, 0, 0)
    first, last = patches[0].window, patches[-1].window
    return Window.from_bounds(first.y, first.x, last.y_stop, last.x_stop)


def _invalid(cache: RowCache, window: Window) -> Invalid | None:
    mask = None if window.empty else cache.invalid(window)
    return None if mask is None or not mask.any() else Invalid(window, np.packbits(mask))
