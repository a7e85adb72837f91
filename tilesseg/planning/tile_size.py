"""How large shards and cores should be, given lattices: whole shards, little computed twice, nobody idle."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import ceil

from tilesseg.errors import JobError
from tilesseg.raster.tiling import Lattice, computed, round_up

DEAR = 1.05
"""Of the least cost: what more tiles than that takes may cost."""
ALIKE = 1.1
"""Of the least cost: what a lattice of `crop` may cost that predicts less. With equally fast networks a whole job was a
tenth faster so: what goes on around the network grows with what is predicted."""
EVEN = 0.8
"""Of the largest tile: what tiles must have on average to count. Those at a scene's edges share fewer patches."""
SHORT, LONG = 1.0, 60.0
"""Seconds that a tile should take, at least and at most."""
TALL = 32768
"""Pixels that a core is high at most, where patches overlap or tiles would else be short."""


def choose_shard(lattice: Lattice, *, core: int | None = None, about: int = 1024) -> tuple[int, int]:
    """Sides of shard and chunk for the mask: with crop a multiple of the stride, so that nothing is computed twice.

    Args:
        lattice: the lattice of patches.
        core: side of the cores, where it is given: shards must divide it.
        about: side wanted, in pixels.

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
    """A lattice and a size of core for a scene, with what they cost."""

    shape: tuple[int, int]
    """Of the scene."""
    lattice: Lattice
    height: int
    width: int
    rows: tuple[int, ...]
    """Patches that each row of cores computes, along a column."""
    columns: tuple[int, ...]
    slots: int
    seconds: float | None
    """That a patch takes, where it was measured."""
    parallel_batches: int = 1
    """Batches that a worker process computes at the same time."""

    @property
    def tiles(self) -> int:
        return len(self.rows) * len(self.columns)

    @property
    def largest(self) -> int:
        """Patches that the largest tile predicts."""
        return max(self.rows) * max(self.columns)

    def tiles_for_each_slot(self, number: int) -> bool:
        """Whether there are so many, of about the same size: slivers at the scene's edges do not count."""
        return self.patches >= EVEN * number * self.slots * self.largest

    @cached_property
    def patches(self) -> int:
        """That all tiles predict, those counted twice that two tiles share."""
        return sum(self.rows) * sum(self.columns)

    @cached_property
    def cost(self) -> float:
        """Seconds of all networks together, or else predicted pixels, and what idle ones could have computed.

        Two slots share a network, as two tiles at a time in a worker do; unless it computes for both at the same time.
        """
        networks = ceil(self.slots * self.parallel_batches / 2)
        one = self.lattice.patch**2 if self.seconds is None else self.seconds
        rounds = ceil(self.tiles / networks)
        return one * networks * max(rounds * self.patches / self.tiles, self.largest)

    @property
    def tile_seconds(self) -> float | None:
        """That a tile takes, on average."""
        return None if self.seconds is None else self.seconds * self.patches / self.tiles


def cuts(
    shape: tuple[int, int],
    lattice: Lattice,
    *,
    shard: int,
    slots: int,
    largest: tuple[int, int] = (8192, 8192),
    core: int | None = None,
    seconds: float | None = None,
    parallel_batches: int = 1,
) -> Iterator[Cut]:
    """The sizes of core that a scene may have, all whole numbers of shards.

    Args:
        shape: height and width of the scene.
        lattice: of patches.
        shard: side of a shard.
        slots: tiles that will be worked on at the same time.
        largest: height and width of a core at most, in pixels; one shard always may be, and the height may be more
            where a tile would take less than a second.
        core: side of the cores, where it is given.
        seconds: that a patch takes, where it was measured.
        parallel_batches: batches that a worker process computes at the same time.
    """
    tall, wide = largest
    if seconds and seconds * lattice.cells(tall) * lattice.cells(wide) < SHORT:
        tall = TALL
    heights, widths = (
        [(side, tuple(computed(lattice, size, side))) for side in ([core] if core else _sides(size, shard, most))]
        for size, most in zip(shape, (tall, wide), strict=True)
    )
    for height, rows in heights:
        for width, columns in widths:
            yield Cut(shape, lattice, height, width, rows, columns, slots, seconds, parallel_batches)


def best_cut(found: Sequence[Cut]) -> Cut:
    """The lattice and the core with which a scene is done soonest, and in tiles of a good size.

    Of those with a tile for each slot, where there are any, one lattice with crop (see `ALIKE`), for there the
    number of tiles does not change what is predicted. Of all within 5 % of the least cost, as far as there are any:
    those with tiles that take a minute at most, with two tiles for each slot, or four, and with tiles that take a
    second at least. Of these, the lattice that costs least, and of its cores within 5 % the widest, then the highest:
    rows of image files are stored together, and cores as wide in a small scene as in a large one need as much memory.
    """
    kept = [one for one in found if one.tiles_for_each_slot(1)] or list(found)
    if kept[0].lattice.exclusive:
        kept = _with_best_lattice(kept, ALIKE)
    least = min(one.cost for one in kept)
    kept = [one for one in kept if one.cost <= DEAR * least]
    for wish in _WISHES:
        kept = [one for one in kept if wish(one)] or kept
    kept = _with_best_lattice(kept, 1.03)
    least = min(one.cost for one in kept)
    return max((one for one in kept if one.cost <= 1.05 * least), key=lambda one: (one.width, one.height))


def _with_best_lattice(found: Sequence[Cut], alike: float) -> list[Cut]:
    """Those with one lattice: of all that cost up to `alike` times the least, the one that predicts least.

    Speeds are known to some per cent only, predicted pixels exactly.
    """
    least = min(one.cost for one in found)
    near = (one for one in found if one.cost <= alike * least)
    best = min(near, key=lambda one: (one.patches * one.lattice.patch**2, one.lattice.patch))
    return [one for one in found if one.lattice == best.lattice]


_WISHES: tuple[Callable[[Cut], bool], ...] = (
    lambda one: one.tile_seconds is None or one.tile_seconds <= LONG,
    lambda one: one.tiles_for_each_slot(2),
    lambda one: one.tiles_for_each_slot(4),
    lambda one: one.tile_seconds is None or one.tile_seconds >= SHORT,
)
"""What the cores should be like, the most important first."""


def _sides(size: int, shard: int, largest: int) -> range:
    """Whole numbers of shards up to `largest`, and no larger than the image needs."""
    most = min(max(shard, largest), round_up(size, shard))
    return range(shard, most + 1, shard)
