"""One raster file as GDAL opens it: its facts, and its pixels by window.

Hides rasterio's sharp edges: a dataset handle belongs to one thread and one process, GDAL's errors may be raised
by an innocent call later on, and what a mask is depends on the file.
"""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window as RasterioWindow

from tilesseg.errors import SourceError
from tilesseg.process import QUIET
from tilesseg.raster.grid import Grid
from tilesseg.raster.window import Window

# GDAL's cache defaults to 5 % of the machine's memory in every process, which no plan can count on. GDAL looks
# at this when it first reads a pixel; whoever runs tilesseg may set another figure.
os.environ.setdefault("GDAL_CACHEMAX", "64")

MaskKind = Literal["none", "nodata", "dataset", "bands"]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RasterFacts:
    """What is known about a file once it is open; per-band tuples leave out alpha."""

    driver: str
    grid: Grid
    bands: tuple[int, ...]
    """GDAL's band numbers, from 1."""
    names: tuple[str | None, ...]
    dtypes: tuple[str, ...]
    scales: tuple[float, ...]
    offsets: tuple[float, ...]
    nodata: tuple[float | None, ...]
    mask: MaskKind
    """Where validity comes from: nowhere, the nodata values, one mask or alpha for all bands, or one mask per band."""
    alpha: bool
    overviews: tuple[int, ...]
    """Decimation of each overview level."""
    storage_block: tuple[int, int]
    """Storage block `(height, width)` as GDAL tells it: a tile or a strip."""
    one_strip: bool
    """A TIFF of one strip: whatever is read is decoded from the first row on, whatever `storage_block` says."""
    palette: bool
    """The values are indices into a colour table: between two of them there is nothing."""
    compression: str | None
    files: tuple[str, ...]
    """Everything the pixels may come from: members of a VRT, masks, overviews and other sidecars too."""
    notes: tuple[str, ...]
    """Sentences on what is unusual, for whoever inspects the file."""
    broken: tuple[tuple[Window, str], ...] = ()
    """Windows of a VRT whose members cannot be opened, and why; see `vrt_members`."""


class RasterFile:
    """A file that can be read by window from any thread; each thread opens its own handle.

    Handles are closed when their thread or this object goes, which is when the last reference to them does.
    """

    def __init__(self, path: str, facts: RasterFacts) -> None:
        self.path = path
        self.facts = facts
        self._local = threading.local()

    def __reduce__(self) -> tuple[type[RasterFile], tuple[str, RasterFacts]]:
        return RasterFile, (self.path, self.facts)

    def read(
        self, bands: Sequence[int], window: Window, *, dtype: np.dtype[Any], level: int | None = None
    ) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Raw values `(channel, y, x)` and the dataset mask `(y, x)` of a window inside the file.

        Args:
            bands: indices into `facts.bands`.
            window: pixels of the file, or of the overview.
            dtype: what GDAL converts to while reading.
            level: index into `facts.overviews`, None for full resolution.

        Raises:
            SourceError: unreadable; names file and window.
        """
        where = f"{self.path}: cannot read rows {window.y}–{window.y_stop - 1}, columns {window.x}–{window.x_stop - 1}"
        for broken, why in self.facts.broken:
            if level is not None or not broken.intersect(window).empty:
                raise SourceError(f"{where}: {why}")
        with one_line_errors(where), rasterio.Env():  # an Env sends GDAL's own complaints to logging, not to stderr
            try:
                dataset = self._handle(level)
                at = RasterioWindow(window.x, window.y, window.width, window.height)
                values = dataset.read([self.facts.bands[band] for band in bands], window=at, out_dtype=dtype)
                return values, self._mask(dataset, bands, at, values)
            except Exception:
                # Once a read has failed, the next one through the same handle may give zeros without a word.
                self._handles().pop(level, None)
                raise

    def level_shape(self, level: int) -> tuple[int, int]:
        """Shape of an overview."""
        with one_line_errors(f"{self.path}: cannot open its overview {level}"):
            dataset = self._handle(level)
            return int(dataset.height), int(dataset.width)

    def _mask(self, dataset: Any, bands: Sequence[int], at: RasterioWindow, values: NDArray[Any]) -> NDArray[np.bool_]:
        if self.facts.mask == "none":
            return np.broadcast_to(np.True_, values.shape[1:])  # takes no memory
        if self.facts.mask == "dataset":
            return np.asarray(dataset.read_masks(1, window=at) != 0)
        valid = np.zeros(values.shape[1:], np.bool_)
        left = dict.fromkeys(range(len(self.facts.bands)))
        if self.facts.mask == "nodata":
            for band, channel in zip(bands, values, strict=True):
                told = differs(channel, self.facts.nodata[band], self.facts.dtypes[band])
                if told is not None:
                    valid |= told
                    left.pop(band, None)
        for band in left:
            if valid.all():  # a pixel is valid where any band is: the others cannot change that
                break
            valid |= dataset.read_masks(self.facts.bands[band], window=at) != 0
        return valid

    def _handle(self, level: int | None) -> Any:
        handles = self._handles()
        if level not in handles:
            handles[level] = open_dataset(self.path, **({} if level is None else {"overview_level": level}))
        return handles[level]

    def _handles(self) -> dict[int | None, Any]:
        """This thread's open datasets by overview level."""
        if getattr(self._local, "pid", None) != os.getpid():  # a forked child must not share the parent's handles
            self._local.pid, self._local.handles = os.getpid(), {}
        handles: dict[int | None, Any] = self._local.handles
        return handles


def open_dataset(path: str, **options: Any) -> Any:
    """Open for reading, without a word on missing georeference; the caller catches the errors."""
    with QUIET, warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.Env():
            dataset = rasterio.open(path, **options)
            settled(lambda: dataset.colorinterp)
    return dataset


def settled(ask: Callable[[], T]) -> T:
    """Ask a dataset something, again if GDAL had an old error to get rid of.

    rasterio raises whatever error GDAL last left behind, also one that opening the file has already got over.
    """
    try:
        return ask()
    except CPLE_BaseError:
        return ask()


@contextmanager
def one_line_errors(where: str) -> Iterator[None]:
    """Whatever rasterio raises becomes one line that ends with GDAL's own last message."""
    try:
        yield
    except (RasterioError, CPLE_BaseError, OSError, ValueError, MemoryError) as error:
        cause = error.__cause__ or error
        message = cause.errmsg if isinstance(cause, CPLE_BaseError) else str(cause) or type(cause).__name__
        raise SourceError(f"{where}: {' '.join(message.split())}") from error


def differs(channel: NDArray[Any], nodata: float | None, dtype: str) -> NDArray[np.bool_] | None:
    """Where a band differs from its nodata value, as GDAL's mask band would say; None where only GDAL can tell."""
    if nodata is None or channel.dtype != np.dtype(dtype):
        return None
    if np.isnan(nodata):
        return ~np.isnan(channel) if channel.dtype.kind == "f" else None
    if channel.dtype.kind != "f":
        bounds = np.iinfo(channel.dtype)
        whole = float(nodata).is_integer() and bounds.min <= nodata <= bounds.max
        return np.asarray(channel != int(nodata)) if whole else None
    with np.errstate(all="ignore"):
        value = channel.dtype.type(nodata)
        differs = np.asarray(channel != value)
        # GDAL allows floats a few ulp: where a value comes that close, let it decide
        close = np.abs(channel - value) <= abs(value) * channel.dtype.type(1e-5)
    return None if np.isfinite(value) and (close & differs).any() else differs
