"""Tiling: one lattice of patches for the whole scene, and tiles that choose which of them to compute.

    lattice, fixed to the image origin          a tile
    0      S      2S     3S                     ┌───────────────┐ halo: read, then discarded
    ├──────┼──────┼──────┤  stride cells        │  ┌─────────┐  │
    ╞═══════════╡             patch 0: −L … P−L │  │  core   │  │ core: what this tile alone writes,
           ╞═══════════╡      patch 1           │  └─────────┘  │ a whole number of shards
     lead L ↔                                   └───────────────┘

Patch `k` of an axis begins at `k·S − L` for `k ≥ 0` and its *support*, where its weights are not zero, leaves out
the margin. A tile computes every patch whose support touches its core, so a pixel's value depends on the lattice
alone, never on tiles, workers or order. Neighbouring tiles recompute the patches that they share.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from math import ceil
from typing import NamedTuple

from tilesseg.errors import JobError
from tilesseg.raster.window import Window


class Patch(NamedTuple):
    """Input window of the network, and the part of its prediction that counts."""

    window: Window
    support: Window


class PatchRow(NamedTuple):
    """One row of the lattice, as far as a tile needs it."""

    window: Window
    """Window around all its patches: one read."""
    patches: tuple[Patch, ...]
    until: int
    """Core rows above this image row are complete once this row of patches is."""


@dataclass(frozen=True, slots=True)
class Lattice:
    """The patches' size and spacing, the same along both axes."""

    patch: int
    """Side of a patch, P."""
    stride: int
    """Distance between patch origins, S."""
    lead: int
    """Distance from the beginning of patch 0 to the image, L."""
    before: int
    """Number of untrusted pixels at the top and left of a patch's prediction, counted from the patch's edge."""
    after: int
    """The same at the bottom and right."""

    def __post_init__(self) -> None:
        if not 0 < self.stride <= self.patch:
            raise ValueError(f"stride {self.stride} is not within 1 … patch {self.patch}")
        if not self.before <= self.lead <= self.patch - self.stride - self.after:
            raise ValueError(f"lead {self.lead} leaves stride cells without a trusted prediction: {self}")

    @property
    def support(self) -> int:
        """Side of the part of a prediction that counts."""
        return self.patch - self.before - self.after

    @property
    def discarded(self) -> int:
        """Number of pixels on each side of every patch that do not count."""
        return min(self.before, self.after)

    @property
    def exclusive(self) -> bool:
        """Whether every pixel has exactly one prediction (crop)."""
        return self.support == self.stride

    def cells(self, size: int) -> int:
        """Number of patches along an axis of `size` pixels."""
        return ceil(size / self.stride)

    def touching(self, start: int, stop: int, size: int) -> range:
        """The patches whose support touches the pixels `start … stop − 1` of an axis of `size` pixels."""
        first = (start + self.lead - self.patch + self.after) // self.stride + 1
        last = ceil((stop + self.lead - self.before) / self.stride)
        return range(max(0, first), min(self.cells(size), last))

    def origin(self, k: int) -> int:
        return k * self.stride - self.lead


@dataclass(frozen=True, slots=True)
class Tile:
    """The unit of work, retry and resume: a row and a column, and the windows that follow from them."""

    row: int
    column: int
    core: Window
    lattice: Lattice
    shape: tuple[int, int]
    """Shape of the whole image."""

    @property
    def name(self) -> str:
        return tile_name(self.row, self.column)

    @property
    def patch_rows(self) -> Iterator[PatchRow]:
        """The rows of patches from top to bottom: stream them, and memory grows with the tile's width only."""
        lattice, core = self.lattice, self.core
        rows = lattice.touching(core.y, core.y_stop, self.shape[0])
        columns = lattice.touching(core.x, core.x_stop, self.shape[1])
        for ky in rows:
            patches = tuple(self._patch(ky, kx) for kx in columns)
            first, last = patches[0].window, patches[-1].window
            later = lattice.origin(ky + 1) + lattice.before
            until = core.y_stop if ky == rows[-1] else min(max(later, core.y), core.y_stop)
            yield PatchRow(Window.from_bounds(first.y, first.x, last.y_stop, last.x_stop), patches, until)

    @property
    def outer(self) -> Window:
        """Core and halo: everything this tile reads, as far as it lies in the image."""
        rows = list(self.patch_rows)
        first, last = rows[0].window, rows[-1].window
        reads = Window.from_bounds(first.y, first.x, last.y_stop, last.x_stop)
        return reads.intersect(Window(0, 0, *self.shape))

    def _patch(self, ky: int, kx: int) -> Patch:
        lattice = self.lattice
        window = Window(lattice.origin(ky), lattice.origin(kx), lattice.patch, lattice.patch)
        return Patch(window, window.inset(lattice.before, lattice.after))


@dataclass(frozen=True)
class Tiling:
    """Cores that partition the image, over one lattice."""

    shape: tuple[int, int]
    lattice: Lattice
    core: tuple[int, int]
    """Height and width of a core; those at the bottom and right edge may be smaller."""
    shard: int
    """Side of a shard of the stored mask; a core is a whole number of them."""

    def __post_init__(self) -> None:
        if any(side % self.shard for side in self.core):
            raise ValueError(f"core {self.core} is not a whole number of shards of {self.shard}")

    @property
    def rows(self) -> int:
        return ceil(self.shape[0] / self.core[0])

    @property
    def columns(self) -> int:
        return ceil(self.shape[1] / self.core[1])

    def __len__(self) -> int:
        return self.rows * self.columns

    def __iter__(self) -> Iterator[Tile]:
        return (self.tile(row, column) for row in range(self.rows) for column in range(self.columns))

    def tile(self, row: int, column: int) -> Tile:
        height, width = self.core
        core = Window(row * height, column * width, height, width).intersect(Window(0, 0, *self.shape))
        return Tile(row, column, core, self.lattice, self.shape)

    def named(self, name: str) -> Tile:
        """Tile of a name; raises a ValueError as `tile_position`."""
        return self.tile(*tile_position(name))

    @property
    def patches(self) -> int:
        """Number of patches that all tiles predict; a patch that two tiles share is counted twice."""
        (h, w), (height, width) = self.shape, self.core
        return sum(computed(self.lattice, h, height)) * sum(computed(self.lattice, w, width))

    @property
    def overlap_factor(self) -> float:
        """Patch area ÷ stride area: the price of overlap."""
        return (self.lattice.patch / self.lattice.stride) ** 2

    @cached_property
    def recompute_factor(self) -> float:
        """Patches computed ÷ patches on the lattice: the price of independent tiles."""
        return self.patches / (self.lattice.cells(self.shape[0]) * self.lattice.cells(self.shape[1]))

    @property
    def work_factor(self) -> float:
        """Predicted pixels ÷ scene pixels: overlap, recompute and the overhang at the scene's edges together."""
        return self.patches * self.lattice.patch**2 / (self.shape[0] * self.shape[1])


def tile_name(row: int, column: int) -> str:
    """Name of a tile by its row and column, from 0: `r012-c034`. Regions of a staged copy are named alike."""
    return f"r{row:03d}-c{column:03d}"


def tile_position(name: str) -> tuple[int, int]:
    """Row and column of a tile by its name.

    Raises:
        ValueError: this is no name of a tile.
    """
    match = re.fullmatch(r"r(\d+)-c(\d+)", name, re.ASCII)
    if match is None:
        raise ValueError(f"{name!r} is no name of a tile; names are like {tile_name(12, 34)}")
    return int(match[1]), int(match[2])


def crop_lattice(patch: int, *, margin: int, multiple: int) -> Lattice:
    """The lattice of `blend: crop`: margins are discarded, every pixel is predicted once.

    Args:
        patch: side of a patch.
        margin: pixels not trusted at each side, at least the receptive half-width.
        multiple: patch origins are multiples of this (2^depth).

    Raises:
        JobError: nothing is left of the patch.
    """
    lead = round_up(margin, multiple)
    stride = (patch - lead - margin) // multiple * multiple
    if stride < 1:
        raise JobError(
            f"patch {patch} leaves nothing between two margins of {margin}; take a patch of at least "
            f"{lead + margin + multiple}, or blend: gaussian"
        )
    return Lattice(patch, stride, lead, before=lead, after=patch - lead - stride)


def blend_lattice(patch: int, *, overlap: int, margin: int, multiple: int) -> Lattice:
    """The lattice of the blended modes: neighbouring patches share `overlap` pixels.

    Args:
        patch: side of a patch.
        overlap: pixels shared by two neighbours, both margins included.
        margin: pixels not trusted at each side (half the shrink of valid convolutions).
        multiple: patch origins are multiples of this (2^depth).

    Raises:
        JobError: the overlap does not fit the patch, the margin or the multiple.
    """
    stride = patch - overlap
    lead = max(overlap // 2 // multiple * multiple, round_up(margin, multiple))
    if stride < 1 or stride % multiple:
        near = max(multiple, round(stride / multiple) * multiple)
        raise JobError(
            f"patch {patch} with overlap {overlap} has a stride of {stride}, and this model's patches must begin at "
            f"multiples of {multiple}; take overlap {patch - near}"
        )
    if overlap - lead < margin:
        raise JobError(
            f"overlap {overlap} does not cover the {margin} px at each side that the network cannot predict; "
            f"take overlap {patch - (patch - round_up(margin, multiple) - margin) // multiple * multiple} or more"
        )
    return Lattice(patch, stride, lead, before=margin, after=margin)


def round_up(value: int, multiple: int) -> int:
    """The smallest multiple that is not below `value`."""
    return -(-value // multiple) * multiple


def computed(lattice: Lattice, size: int, core: int) -> list[int]:
    """Number of patches that each core of an axis computes."""
    return [len(lattice.touching(y, min(y + core, size), size)) for y in range(0, size, core)]
