"""One raster file as GDAL opens it: its facts, and its pixels by window.

Hides rasterio's sharp edges: a dataset handle belongs to one thread and one process, an error of GDAL may be raised by
a later call that is not its cause, and the kind of mask depends on the file.
"""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window as RasterioWindow

from tilesseg.errors import SourceError
from tilesseg.formats.damage import whole_blocks
from tilesseg.formats.geotiff.block_checks import BlockChecks, block_checks, strict_jpeg
from tilesseg.formats.reading.validity import MaskKind
from tilesseg.formats.source import AlphaBand, unreadable
from tilesseg.paths import unsigned
from tilesseg.process import QUIET
from tilesseg.raster.grid import Grid
from tilesseg.raster.window import Window

# GDAL's cache defaults to 5 % of the machine's memory in every process, which no plan can count on. GDAL reads this
# setting with its first pixel; the user may set another figure.
os.environ.setdefault("GDAL_CACHEMAX", "64")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RasterFacts:
    """Facts of an open file; tuples with an entry for each band leave out alpha."""

    driver: str
    grid: Grid
    bands: tuple[int, ...]
    """Numbers of the bands in GDAL, from 1."""
    names: tuple[str | None, ...]
    dtypes: tuple[str, ...]
    scales: tuple[float, ...]
    offsets: tuple[float, ...]
    nodata: tuple[float | None, ...]
    mask: MaskKind
    """Origin of validity beside alpha: none, the nodata values, one mask for all bands, or one mask for each band."""
    gaps: tuple[bool, ...]
    """Whether each band has a nodata value, or a mask of its own, that counts."""
    alpha: tuple[AlphaBand, ...]
    """Bands that are read as the mask, by their numbers in GDAL."""
    overviews: tuple[int, ...]
    """Decimation of each overview level."""
    storage_block: tuple[int, int]
    """Storage block `(height, width)` in GDAL's view: a tile or a strip."""
    one_strip: bool
    """Whether the file is a TIFF of one strip: any read decodes it from the first row on, despite `storage_block`."""
    palette: bool
    """Whether the values are indices into a colour table, which cannot be interpolated."""
    compression: str | None
    files: tuple[str, ...]
    """Every file that pixels may come from, with members of a VRT, masks, overviews and other sidecars."""
    notes: tuple[str, ...]
    """Sentences on unusual facts, for the description."""
    size: Mapping[str, Any] = field(default_factory=dict)
    """Entries of the description on the size of a pixel in micrometres."""
    broken: tuple[tuple[Window, str], ...] = ()
    """Windows of a VRT whose members cannot be opened, each with the reason; see `vrt_members`."""


class FilePlanes(NamedTuple):
    """Pixels of a window of a file."""

    values: NDArray[Any]
    """`(channel, y, x)`, raw."""
    covered: NDArray[np.bool_]
    """`(y, x)`: False where alpha or the mask of the file says that there is nothing."""
    data: dict[int, NDArray[np.bool_]]
    """By index into `RasterFacts.bands`: where `(y, x)` a band with a nodata value differs from it."""


class RasterFile:
    """A file that can be read by window from any thread; each thread opens its own handle.

    A handle is closed with its thread or with this object: when the last reference to it goes.
    """

    def __init__(self, path: str, facts: RasterFacts) -> None:
        self.path = path
        self.facts = facts
        self._local = threading.local()
        self._checking = threading.Lock()
        self._checks: tuple[BlockChecks | None] | None = None

    def __reduce__(self) -> tuple[type[RasterFile], tuple[str, RasterFacts]]:
        return RasterFile, (self.path, self.facts)

    def read(
        self, bands: Sequence[int], window: Window, *, dtype: np.dtype[Any], level: int | None = None
    ) -> FilePlanes:
        """Raw values and masks of a window inside the file.

        Args:
            bands: indices into `facts.bands`.
            window: pixels of the file, or of the overview.
            dtype: data type to which GDAL converts while reading.
            level: index into `facts.overviews`, None for full resolution.

        Raises:
            SourceError: unreadable; names file and window.
        """
        where = f"{self.path}: cannot read rows {window.y}–{window.y_stop - 1}, columns {window.x}–{window.x_stop - 1}"
        for broken, why in self.facts.broken:
            if level is not None or not broken.intersect(window).empty:
                raise SourceError(unreadable(where, why))
        with one_line_errors(where), rasterio.Env():  # an Env sends GDAL's own complaints to logging, not to stderr
            try:
                dataset = self._handle(level)
                whole = self._unit(window, dataset)
                at = RasterioWindow(whole.x, whole.y, whole.width, whole.height)
                with strict_jpeg():
                    values = dataset.read([self.facts.bands[band] for band in bands], window=at, out_dtype=dtype)
                    covered, data = self._covered(dataset, at), self._data(dataset, bands, at, values)
                if level is None and (checks := self._block_checks()) is not None:
                    checks.check(window)
                part = window.slices(whole)
                return FilePlanes(values[:, *part], covered[part], {band: mask[part] for band, mask in data.items()})
            except Exception:
                # Once a read has failed, the next one through the same handle may give zeros without a word.
                self._handles().pop(level, None)
                raise

    @property
    def local(self) -> bool:
        """Whether the file lies on this machine, under its own name."""
        return os.path.isfile(self.path)

    def unit_block(self, level: int | None = None) -> tuple[int, int]:
        """Height and width of the block that is damaged as a whole: a tile, a strip, a row, a block of a VRT."""
        facts = self.facts
        if level is not None:
            height, width = self._handle(level).block_shapes[facts.bands[0] - 1]
            return int(height), int(width)
        if facts.one_strip:
            return facts.grid.shape
        if facts.driver == "GTiff" and facts.compression is None and facts.storage_block[1] >= facts.grid.shape[1]:
            return 1, facts.grid.shape[1]
        return facts.storage_block

    def _unit(self, window: Window, dataset: Any) -> Window:
        """The window that is read for a window: of a VRT whole blocks, since those of its members lie anywhere."""
        if self.facts.driver != "VRT":
            return window
        block = dataset.block_shapes[self.facts.bands[0] - 1]
        whole = whole_blocks(window, block, (dataset.height, dataset.width))
        return window if any(member.touches(whole) for member, _ in self.facts.broken) else whole

    def _block_checks(self) -> BlockChecks | None:
        """Checks of the file's blocks, made once for all threads; None where there are none."""
        with self._checking:
            if self._checks is None:
                facts = self.facts
                can = facts.driver == "GTiff" and not facts.one_strip and self.local
                self._checks = (block_checks(self.path, facts.compression, facts.grid.shape) if can else None,)
            return self._checks[0]

    def level_shape(self, level: int) -> tuple[int, int]:
        """Shape of an overview."""
        with one_line_errors(f"{self.path}: cannot open its overview {level}"):
            dataset = self._handle(level)
            return int(dataset.height), int(dataset.width)

    def _covered(self, dataset: Any, at: RasterioWindow) -> NDArray[np.bool_]:
        covered = np.broadcast_to(np.True_, (int(at.height), int(at.width)))  # takes no memory
        for band in self.facts.alpha:  # GDAL's own mask of alpha knows only the second of two and the fourth of four
            covered = covered & (np.nan_to_num(dataset.read(band.number, window=at)) != 0)
        if self.facts.mask == "dataset":
            covered = covered & (dataset.read_masks(self.facts.bands[0], window=at) != 0)
        return covered

    def _data(
        self, dataset: Any, bands: Sequence[int], at: RasterioWindow, values: NDArray[Any]
    ) -> dict[int, NDArray[np.bool_]]:
        data = {}
        for band, channel in zip(bands, values, strict=True):
            if self.facts.gaps[band] and band not in data:
                known = differs(channel, self.facts.nodata[band], self.facts.dtypes[band])
                by_value = known if self.facts.mask == "nodata" else None
                data[band] = (
                    dataset.read_masks(self.facts.bands[band], window=at) != 0 if by_value is None else by_value
                )
        return data

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
    """Open a dataset for reading, without warnings on missing georeference; the caller handles the errors."""
    with QUIET, warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.Env(**_request_options(path)):
            dataset = rasterio.open(path, **options)
            settled(lambda: dataset.colorinterp)
    return dataset


def _request_options(path: str) -> dict[str, str]:
    """Options of GDAL for an address with a signature, which may be for reading (GET) alone, not for headers (HEAD)."""
    return {"CPL_VSIL_CURL_USE_HEAD": "NO"} if unsigned(path) != path else {}


def settled(query: Callable[[], T]) -> T:
    """Result of a query to a dataset, repeated if GDAL had an old error pending.

    rasterio raises the last error that GDAL recorded, even where opening the file has recovered from it.
    """
    try:
        return query()
    except CPLE_BaseError:
        return query()


@contextmanager
def one_line_errors(where: str, do: str = "repair or replace the file") -> Iterator[None]:
    """Make one line of any error of rasterio, with GDAL's own last message."""
    try:
        yield
    except (RasterioError, CPLE_BaseError, OSError, ValueError, MemoryError) as error:
        cause = error.__cause__ or error
        message = cause.errmsg if isinstance(cause, CPLE_BaseError) else str(cause) or type(cause).__name__
        raise SourceError(unreadable(where, " ".join(message.split()), do)) from error


def differs(channel: NDArray[Any], nodata: float | None, dtype: str) -> NDArray[np.bool_] | None:
    """Pixels of a band that differ from its nodata value, equal to GDAL's mask band; None where only GDAL can tell."""
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
        differing = np.asarray(channel != value)
        # GDAL allows floats a few ulp: where a value comes that close, GDAL decides
        close = np.abs(channel - value) <= abs(value) * channel.dtype.type(1e-5)
    return None if np.isfinite(value) and (close & differing).any() else differing
