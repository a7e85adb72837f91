"""Size of tiles: shards and cores for given lattices. Whole shards, little computed twice, no idle slot."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import ceil

from tilesseg.errors import JobError
from tilesseg.planning.machine import Compute
from tilesseg.raster.tiling import Lattice, computed, round_up

DEAR = 1.05
"""A layout with more tiles is accepted if it costs at most this factor of the cheapest one."""
ALIKE = 1.1
"""With `crop`, the lattice that predicts fewer pixels is preferred as long as its estimated cost is within this factor
of the cheapest. With equally fast networks a whole job was a tenth faster so: the work around the network grows with
the number of predicted pixels."""
EVEN = 0.8
"""Minimum mean tile size, as a share of the largest tile, for 'N tiles per slot' to count: edge tiles are smaller."""
SHORT, LONG = 1.0, 60.0
"""Least and largest number of seconds that a tile should take."""
TALL = 32768
"""Largest height of a core in pixels, where patches overlap or tiles would else be short."""


def choose_shard(lattice: Lattice, *, core: int | None = None, about: int = 1024) -> tuple[int, int]:
    """Sides of shard and chunk for the mask: with crop a multiple of the stride, so that nothing is computed twice.

    Args:
        lattice: the lattice of patches.
        core: side of the cores, where the job states it: shards must divide it.
        about: preferred side, in pixels.

    Raises:
        JobError: the core is no multiple of the stride (crop) or of 64 (blended).
    """
    unit = lattice.stride if lattice.exclusive else 64
    if core is None:
        count = max(1, round(about / unit))
    elif core % unit or core < unit:
        what = "the stride" if lattice.exclusive else "the smallest shard"
        raise JobError(f"core {core} is not a multiple of {unit}, {what}; take {max(1, round(core / unit)) * unit}")
    else:
        units = core // unit
        count = max(n for n in range(1, units + 1) if units % n == 0 and (n == 1 or n * unit <= about))
    shard = unit * count
    chunk = max(side for side in range(1, min(shard, 512) + 1) if shard % side == 0)
    return shard, chunk if chunk >= 64 else shard


@dataclass(frozen=True)
class Cut:
    """A lattice and a size of core for a scene, with their cost."""

    shape: tuple[int, int]
    """Height and width of the scene."""
    lattice: Lattice
    height: int
    width: int
    rows: tuple[int, ...]
    """Number of patches that each row of cores computes, along a column."""
    columns: tuple[int, ...]
    """Number of patches that each column of cores computes, along a row."""
    compute: Compute
    seconds: float | None
    """Seconds that a patch takes, where its speed is known."""

    @property
    def tiles(self) -> int:
        return len(self.rows) * len(self.columns)

    @property
    def largest(self) -> int:
        """Number of patches that the largest tile predicts."""
        return max(self.rows) * max(self.columns)

    def tiles_for_each_slot(self, number: int) -> bool:
        """Whether each slot has so many tiles of about the same size: slivers at the scene's edges do not count."""
        return self.patches >= EVEN * number * self.compute.slots * self.largest

    @cached_property
    def patches(self) -> int:
        """Number of patches that all tiles predict; a patch that two tiles share counts twice."""
        return sum(self.rows) * sum(self.columns)

    @cached_property
    def cost(self) -> float:
        """Seconds of all networks together, or else predicted pixels; idle networks cost as much as busy ones.

        Two slots share a network, as two tiles at a time in a worker do; unless it computes for both at the same time.
        """
        networks = ceil(self.compute.slots * self.compute.parallel_batches / 2)
        patch = self.lattice.patch**2 if self.seconds is None else self.seconds
        rounds = ceil(self.tiles / networks)
        return patch * networks * max(rounds * self.patches / self.tiles, self.largest)

    @property
    def tile_seconds(self) -> float | None:
        """Mean number of seconds that a tile takes, where the patch's speed is known."""
        return None if self.seconds is None else self.seconds * self.patches / self.tiles


def cuts(
    shape: tuple[int, int],
    lattice: Lattice,
    *,
    compute: Compute,
    shard: int,
    largest: tuple[int, int] = (8192, 8192),
    core: int | None = None,
) -> Iterator[Cut]:
    """All sizes of core that a scene may have: whole numbers of shards.

    Args:
        shape: height and width of the scene.
        lattice: the lattice of patches.
        compute: how the network is computed, with speeds where patches are chosen by them.
        shard: side of a shard.
        largest: largest height and width of a core, in pixels; one shard is always allowed, and a larger height where
            a tile would take less than a second.
        core: side of the cores, where the job states it.
    """
    seconds = compute.batch_seconds(lattice.patch)
    tall, wide = largest
    if seconds and seconds * lattice.cells(tall) * lattice.cells(wide) < SHORT:
        tall = TALL
    heights, widths = (
        [(side, tuple(computed(lattice, size, side))) for side in ([core] if core else _sides(size, shard, most))]
        for size, most in zip(shape, (tall, wide), strict=True)
    )
    for height, rows in heights:
        for width, columns in widths:
            yield Cut(shape, lattice, height, width, rows, columns, compute, seconds)


def best_cut(candidates: Sequence[Cut]) -> Cut:
    """The lattice and the core with which a scene takes least time, in tiles of a good size.

    1. Cuts with a tile for each slot, where there are any; with crop, of one lattice (see `ALIKE`): there the number
       of tiles does not change the number of predicted pixels.
    2. Cuts within 5 % of the least cost, and of these, as far as there are any: tiles of a minute at most, two tiles
       for each slot, then four, tiles of a second at least.
    3. The lattice that costs least, and of its cores within 5 % the widest, then the highest: rows of image files are
       stored together, and cores as wide in a small scene as in a large one need as much memory.
    """
    kept = [cut for cut in candidates if cut.tiles_for_each_slot(1)] or list(candidates)
    if kept[0].lattice.exclusive:
        kept = _with_best_lattice(kept, ALIKE)
    least = min(cut.cost for cut in kept)
    kept = [cut for cut in kept if cut.cost <= DEAR * least]
    for wish in _WISHES:
        kept = [cut for cut in kept if wish(cut)] or kept
    kept = _with_best_lattice(kept, 1.03)
    least = min(cut.cost for cut in kept)
    return max((cut for cut in kept if cut.cost <= 1.05 * least), key=lambda cut: (cut.width, cut.height))


def _with_best_lattice(candidates: Sequence[Cut], alike: float) -> list[Cut]:
    """Cuts with one lattice: of all that cost up to `alike` times the least, the lattice that predicts fewest pixels.

    Speeds are known to some per cent only, predicted pixels exactly.
    """
    least = min(cut.cost for cut in candidates)
    near = (cut for cut in candidates if cut.cost <= alike * least)
    best = min(near, key=lambda cut: (cut.patches * cut.lattice.patch**2, cut.lattice.patch))
    return [cut for cut in candidates if cut.lattice == best.lattice]


_WISHES: tuple[Callable[[Cut], bool], ...] = (
    lambda cut: cut.tile_seconds is None or cut.tile_seconds <= LONG,
    lambda cut: cut.tiles_for_each_slot(2),
    lambda cut: cut.tiles_for_each_slot(4),
    lambda cut: cut.tile_seconds is None or cut.tile_seconds >= SHORT,
)
"""Wishes for the cores, the most important first."""


def _sides(size: int, shard: int, largest: int) -> range:
    """Whole numbers of shards up to `largest`, and no larger than the image needs."""
    most = min(max(shard, largest), round_up(size, shard))
    return range(shard, most + 1, shard)
