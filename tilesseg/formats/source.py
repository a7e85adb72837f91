"""The source: an opened image that is read by window. What every reader gives, whatever the format."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from tilesseg.raster.grid import Grid
from tilesseg.raster.window import Window


class Pixels(NamedTuple):
    """What a read gives."""

    values: NDArray[Any]
    """`(channel, y, x)`, in the source's dtype, or float32 once scaled or resampled."""
    valid: NDArray[np.bool_]
    """`(y, x)`: False where the image has nodata, is masked out, or a selected band is NaN or infinite. Not to be
    written to: where all is valid it may be one value seen everywhere."""


class Raw(NamedTuple):
    """What the files hold, before scale and offset: what staging copies."""

    values: NDArray[Any]
    """`(channel, y, x)` of the selected bands, resampled where the grid asks for it."""
    valid: NDArray[np.bool_]
    """`(mask, y, x)`: what each of the files' own masks says; whether a value is finite is not looked at."""


class Source(Protocol):
    """An opened image that can be read by window. Picklable; safe to read from several threads at once."""

    @property
    def grid(self) -> Grid: ...

    @property
    def native(self) -> Grid:
        """The grid of the image's own finest pixels; `grid` itself unless another level or pixel size is read."""

    @property
    def levels(self) -> Sequence[Source]:
        """Coarser levels of the image, finest first, from which pixels may be computed.

        The same bands are selected; grids have the same top-left corner. Empty where the file has none to be trusted.
        """

    @property
    def bands(self) -> tuple[str | None, ...]:
        """Names of all bands that carry data (no alpha, no mask), None where a band has no name."""

    @property
    def selected(self) -> tuple[int, ...]:
        """Indices into `bands`, from 0, in the order in which `read` gives them."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Data type of the values that `read` gives."""

    @property
    def raw_dtypes(self) -> tuple[np.dtype[Any], ...]:
        """Data type of each of `bands` as `read_raw` gives it alone; several come in the type that holds all."""

    @property
    def scaling(self) -> tuple[tuple[float, float], ...]:
        """Scale and offset of each of `bands`, which `read` applies and `read_raw` does not."""

    @property
    def masks(self) -> tuple[int, ...]:
        """For each of the selected bands, which plane of `Raw.valid` says where it is valid."""

    @property
    def storage_block(self) -> tuple[int, int]:
        """Height and width in pixels of what is decoded when one pixel is read: a tile, a strip, the whole image."""

    def select(self, indices: Sequence[int]) -> Source:
        """The same image, reading these bands in this order."""

    def read(self, window: Window) -> Pixels:
        """Read any window, also one that leaves the image: there it is reflected (see `read_reflected`).

        Raises:
            SourceError: the pixels cannot be read; names file and window.
        """

    def read_raw(self, window: Window) -> Raw:
        """Read a window that lies in the image, without scale and offset.

        Raises:
            SourceError: as `read`.
        """

    def rows(self, height: int) -> Iterator[Raw]:
        """The whole image once, from top to bottom, in bands of `height` rows, the last one shorter.

        For images that are decoded from their beginning whatever is read (`storage_block` is the whole image): memory
        is bounded by some bands where the compression can be undone piece by piece.

        Raises:
            SourceError: as `read`.
        """

    def sample(self) -> NDArray[np.float64]:
        """Valid values `(channel, n)` of the selected bands, spread over the whole image, for statistics.

        At most about a million per band; from an overview where there is one, else from windows on a regular
        grid. Windows that cannot be read are left out. Empty `(channel, 0)` when nothing sampled is valid.

        Raises:
            SourceError: nothing at all could be read.
        """

    def thumbnail(self, size: int) -> Pixels:
        """A decimated view of the whole image for people to look at, its long side at most `size` pixels.

        From an overview where there is one, else the nearest pixels of strips of rows read one at a time: memory is
        bounded by the thumbnail and one strip. Never enlarged, not to be computed with. Parts that cannot be read
        are left invalid.
        """

    def identity(self) -> dict[str, Any]:
        """Size and mtime in ns of every file the pixels come from, by path: what resume compares."""

    def describe(self) -> dict[str, Any]:
        """What `tilesseg inspect` prints: plain JSON data."""


def file_state(path: str) -> list[int] | None:
    """`[size, mtime in ns]`, None where it is gone; of an item in a STAC item collection, its own size and checksum."""
    try:
        found = os.stat(path)
    except OSError:
        from tilesseg.formats.stac.stac_items import member_state

        return member_state(path)
    return [found.st_size, found.st_mtime_ns]
