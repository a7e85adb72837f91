"""What an image is to the engine, and which file hides which foreign library.

A new format is one row in `FORMATS` and one file beside this one. Only these files speak another axis order
than `(channel, y, x)`, and they convert at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from tilesseg.errors import SourceError
from tilesseg.formats.opening import Opening
from tilesseg.formats.outgoing import FAILED_CLASS as FAILED_CLASS
from tilesseg.formats.outgoing import Check as Check
from tilesseg.formats.outgoing import Level as Level
from tilesseg.formats.outgoing import Mask as Mask
from tilesseg.formats.outgoing import MaskClass as MaskClass
from tilesseg.formats.outgoing import Scores as Scores
from tilesseg.formats.outgoing import Writer as Writer
from tilesseg.formats.reflection import reflect, spread
from tilesseg.formats.table import FORMATS as FORMATS
from tilesseg.formats.table import Format as Format
from tilesseg.formats.table import resolve as resolve
from tilesseg.grid import Grid
from tilesseg.window import Window


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
    def cell(self) -> tuple[int, int]:
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

        For images that are decoded from their beginning whatever is read (`cell` is the whole image): memory is
        bounded by some bands where the compression can be undone piece by piece.

        Raises:
            SourceError: as `read`.
        """

    def sample(self) -> NDArray[np.float64]:
        """Valid values `(channel, n)` of the selected bands, spread over the whole image, for statistics.

        At most about a million per band; from an overview where there is one, else from windows on a regular
        lattice. Windows that cannot be read are left out. Empty `(channel, 0)` when nothing sampled is valid.

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


class OpenSource(Protocol):
    """What a row's `opens` names."""

    def __call__(self, paths: Sequence[str], opening: Opening) -> Source:
        """Open an image. What of the opening a format cannot do it refuses, see `Opening.refuse`."""


def open_source(image: str | Sequence[str], opening: Opening | None = None) -> Source:
    """Open an image for reading by window. Everything that is not another format's is tried by rasterio.

    Args:
        image: a path, a Zarr, a folder of single-band files, or a list of files that together make one image.
        opening: what the file does not say, or says too much of; None takes it as it is.

    Raises:
        SourceError: missing, unreadable, or of a kind that cannot be segmented.
    """
    from tilesseg.formats.rescaled import rescaled, with_mpp
    from tilesseg.formats.sniff import format_of

    paths, opening = [image] if isinstance(image, str) else list(image), opening or Opening()
    if not paths:
        raise SourceError("no image given: an empty list of files")
    name = format_of(paths[0]) if len(paths) == 1 else "geotiff"
    opener: OpenSource = resolve(str(FORMATS[name].opens))
    if name in ("geotiff", "zarr") and opening.mpp is None:
        return opener(paths, opening)  # resamples by itself: its bands may have pixels of several sizes
    source = opener(paths, opening.without_resolution())
    if opening.mpp is not None:
        source = with_mpp(source, opening.mpp, image=paths[0])
    if opening.resolution is None:
        return source
    if source.grid.unit == "pixel":
        raise SourceError(
            f"{paths[0]}: pixels of {opening.resolution:g} µm are wanted and it does not say how large its own are; "
            "give input.mpp (--mpp)"
        )
    return rescaled(source, opening.resolution, tolerance=opening.tolerance)


def to_lonlat(points: Sequence[tuple[float, float]], crs: str | None) -> list[tuple[float, float]]:
    """World coordinates `(x, y)` of a CRS given as WKT as longitude and latitude; without a CRS as they are."""
    if crs is None:
        return list(points)
    from rasterio.warp import transform

    longitudes, latitudes = transform(crs, "OGC:CRS84", *zip(*points, strict=True))
    return list(zip(longitudes, latitudes, strict=True))


def read_reflected(window: Window, inside: Window, read: Callable[[Window], Pixels]) -> Pixels:
    """Read a window that may leave the image `inside`, reflecting the whole image at its borders.

    Reflection is index arithmetic on the image, never padding of a window: so a pixel beyond the border has the
    same value whichever window asks for it.

    Args:
        window: what is wanted.
        inside: the image's own window, at `(0, 0)`.
        read: reads a window that lies in the image.
    """
    if inside.contains(window):
        return read(window)
    rows = reflect(window.y, window.y_stop, inside.height)
    columns = reflect(window.x, window.x_stop, inside.width)
    y, x = int(rows.min()), int(columns.min())
    values, valid = read(Window.from_bounds(y, x, int(rows.max()) + 1, int(columns.max()) + 1))
    rows, columns = rows - y, columns - x
    part = window.intersect(inside)
    if part.empty:
        return Pixels(values[:, rows[:, None], columns], valid[rows[:, None], columns])
    inner = part.slices(window)
    values = spread(values, rows, columns, inner)  # one after the other: what was read is let go
    valid = spread(valid, rows, columns, inner)
    return Pixels(values, valid)
