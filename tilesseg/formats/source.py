"""The source: an opened image that is read by window, the same for every format."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from tilesseg.errors import joined_lines
from tilesseg.formats.damage import Damage
from tilesseg.paths import container, is_address
from tilesseg.raster.grid import Grid
from tilesseg.raster.region_of_interest import RoiCells
from tilesseg.raster.window import Window


class Pixels(NamedTuple):
    """Result of a read: values, and which pixels are valid."""

    values: NDArray[Any]
    """`(channel, y, x)`, in the source's dtype, or float32 once scaled or resampled."""
    valid: NDArray[np.bool_]
    """`(y, x)`: False where all selected bands are nodata, or one is not covered, NaN or infinite. Not to be written
    to: where all is valid it may be a single value, repeated by strides of 0."""


class Raw(NamedTuple):
    """Values of the files before scale and offset, as staging copies them."""

    values: NDArray[Any]
    """`(channel, y, x)` of the selected bands, resampled where the grid asks for it."""
    valid: NDArray[np.bool_]
    """`(mask, y, x)`: where bands are covered, then where they differ from their nodata values, see `Source.masks` and
    `Source.gaps`; values that are not finite are valid here."""


class AlphaBand(NamedTuple):
    """A band that the file tags as alpha, and that is read as the mask."""

    number: int
    """Its number from 1 among all bands of the files, alpha counted."""
    name: str | None
    """Its description in the file."""


class SalvagedPixels(NamedTuple):
    """Pixels of a window of a damaged image."""

    pixels: Pixels
    """Pixels of the window; 0 and valid where they are damaged."""
    damage: tuple[Damage, ...]
    """Damaged windows of the image that the window touches, whole."""


class SalvagedRaw(NamedTuple):
    """Values of the files in a window of a damaged image, as `SalvagedPixels`."""

    raw: Raw
    damage: tuple[Damage, ...]


class Source(Protocol):
    """An opened image that can be read by window. Picklable; safe to read from several threads at once."""

    @property
    def grid(self) -> Grid: ...

    @property
    def native(self) -> Grid:
        """Grid of the image's own finest pixels; `grid` itself unless another level or pixel size is read."""

    @property
    def canvas(self) -> tuple[int, int] | None:
        """Shape of a slide's whole canvas, in pixels of `native`, where only a part of it is the image; else None.

        The image's corner on it is that of `native`.
        """

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
    def file_dtypes(self) -> tuple[np.dtype[Any], ...]:
        """Data type of each of `bands` in its file, whether or not the image is resampled on reading."""

    @property
    def scaling(self) -> tuple[tuple[float, float], ...]:
        """Scale and offset of each of `bands`, which `read` applies and `read_raw` does not."""

    @property
    def masks(self) -> tuple[int, ...]:
        """For each selected band, the plane of `Raw.valid` that says where it is covered."""

    @property
    def gaps(self) -> tuple[int | None, ...]:
        """For each selected band, the plane of `Raw.valid` that says where it differs from its nodata value, if any."""

    @property
    def nodata(self) -> tuple[float | None, ...]:
        """Raw value of each of `bands` that means nodata by the metadata, whether or not it counts."""

    @property
    def alpha(self) -> tuple[AlphaBand, ...]:
        """Bands that the files tag as alpha and that are read as the mask, not as bands."""

    @property
    def storage_block(self) -> tuple[int, int]:
        """Height and width in pixels of the block that is decoded for a single pixel: a tile, a strip, the image."""

    def select(self, indices: Sequence[int]) -> Source:
        """The same image, reading these bands in this order."""

    def read(self, window: Window) -> Pixels:
        """Read any window; a window that leaves the image is filled by reflection (see `read_reflected`).

        Raises:
            SourceError: the pixels cannot be read; names file and window.
        """

    def read_raw(self, window: Window) -> Raw:
        """Read a window that lies in the image, without scale and offset.

        Raises:
            SourceError: as `read`.
        """

    def salvage(self, window: Window) -> SalvagedPixels:
        """Read a window that lies in the image and that `read` refuses, as far as its stored blocks can be decoded.

        Raises:
            SourceError: the file is out of reach: that is no damage, see `formats.damage`.
        """

    def salvage_raw(self, window: Window) -> SalvagedRaw:
        """Read the values of the files as far as they can be decoded, see `salvage`.

        Raises:
            SourceError: as `salvage`.
        """

    def refuse_damaged(self) -> None:
        """Refuse an image that is stored as a single block, and damaged: nothing of it could be trusted.

        The block is decoded whole; of any other image nothing is read.

        Raises:
            SourceError: names the file and the damage.
        """

    def rows(self, height: int) -> Iterator[Raw]:
        """The whole image once, from top to bottom, in strips of `height` rows; the last strip may be shorter.

        For images that any read decodes from their beginning (`storage_block` is the whole image): memory
        is bounded by a few strips where the compression can be decoded piece by piece.

        Raises:
            SourceError: as `read`.
        """

    def sample(self, inside: RoiCells | None = None, unread: list[Window] | None = None) -> NDArray[np.float64]:
        """Valid values `(channel, n)` of the selected bands, spread over the valid pixels, for statistics.

        The pixels are those that `read` gives, at most about a million; which they are depends on the grid and on what
        is valid, not on levels, overviews or storage. All of them where the image has no more. Parts that cannot be
        read are left out. Empty `(channel, 0)` only where no pixel that can be read is valid.

        Args:
            inside: region of interest, in which the pixels lie; None for the whole image.
            unread: takes the windows that cannot be read.

        Raises:
            SourceError: nothing at all could be read.
        """

    def thumbnail(self, size: int) -> Pixels:
        """A decimated view of the whole image for people to look at, its long side at most `size` pixels.

        From an overview where there is one, else the nearest pixels of strips of rows, read in turn: memory is
        bounded by the thumbnail and one strip. Never enlarged, not to be computed with. Parts that cannot be read
        are left invalid.
        """

    def identity(self) -> dict[str, Any]:
        """State of every file that the pixels come from, by its path without signature; a resumed run compares them."""

    def describe(self) -> dict[str, Any]:
        """Description of the image for `tilesseg inspect`: plain JSON data."""


def file_state(path: str) -> list[Any] | None:
    """State of a file, by which a change is found: `[size, mtime in ns]`, None where it is gone or nothing is known.

    Of a file in an archive it is that of the archive, of an address the answer of its server, and of an item in a STAC
    collection its size and checksum.
    """
    holder = container(path)
    try:
        status = os.stat(holder)
    except OSError:
        if is_address(holder) and "#" not in holder:
            from tilesseg.formats.remote_file import address_state

            return address_state(holder)
        from tilesseg.formats.stac.stac_items import member_state

        return member_state(path)
    return [status.st_size, status.st_mtime_ns]


def unreadable(where: str, why: str | Exception, do: str = "repair or replace the file") -> str:
    """Message of a refusal to read a file, as one line.

    Args:
        where: file and window.
        why: the cause; where it names its own remedy, that is kept.
        do: remedy, in the imperative.
    """
    cause = (joined_lines(why) if isinstance(why, Exception) else why).removesuffix(".")
    return f"{where}: {cause}" if ";" in cause else f"{where}: {cause}; {do}"
