"""A mask as a Cloud-Optimised GeoTIFF, and its QGIS style beside it.

GDAL's COG driver lays the file out; the levels are ours, because GDAL's own mode neither ignores nodata in ties as
we do nor is as fast. So: the mask is read once, in bands of rows; each pyramid level goes to a temporary TIFF; a
VRT ties the levels together, with colours, names and georeferencing; the COG driver copies that. Everything
happens in a hidden folder beside the target, and the finished file is moved out of it as the last step.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree as ET

import numpy as np
import rasterio
import rasterio.shutil
import tifffile
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.env import get_gdal_config, set_gdal_config
from rasterio.errors import CRSError, RasterioError

from tilesseg.errors import FormatError
from tilesseg.formats import FAILED_CLASS, Mask
from tilesseg.formats.qml import qgis_style, xml_text
from tilesseg.grid import IDENTITY
from tilesseg.labels import FAILED, NODATA
from tilesseg.pyramid import HALVES, cascade, level_shapes
from tilesseg.window import Window

SIDE = 512
"""Side of the TIFF's own tiles. A level that fits in one is the last."""
CACHE_BYTES = 64 * 2**20
NAMESPACE = "TILESSEG_"


def write_cog(
    mask: Mask, path: Path, *, overviews: Literal["mode", "nearest"] = "mode", threads: int = 1
) -> tuple[Path, ...]:
    """Write `path` as a COG with nodata 255, a colour table and our own pyramid, and `<stem>.qml` beside it.

    Memory: a few bands of 512 rows and 64 MB of GDAL's cache, whatever the height of the image. Disk: the
    temporary levels take about as much as the result. DEFLATE, because every reader knows it. A file that is
    already there is replaced once the new one is complete.

    Args:
        mask: what to write; read once, in bands of 512 rows.
        path: the target; its folder must exist.
        overviews: how a level follows from the one below, see `pyramid`.
        threads: of GDAL, for compressing.

    Returns:
        The COG, its style, and GDAL's `.aux.xml` where the CRS does not fit into GeoTIFF keys.

    Raises:
        FormatError: it cannot be written, or what was written has holes; nothing is left behind.
    """
    with _scratch(path, crs=mask.grid.crs) as folder, _bounded_cache():
        levels = [_Level(folder / f"level{k}.tif", s, threads=threads) for k, s in enumerate(_shapes(mask.grid.shape))]
        _stream(mask, levels, overviews=overviews, path=path)
        with _refusing(path):
            vrt, result = folder / "levels.vrt", folder / path.name
            vrt.write_text(_vrt(mask, levels), encoding="utf-8")
            _copy(vrt, result, overviews=len(levels) > 1, threads=threads)
            _refuse_holes(result, levels)
            (folder / _style(path).name).write_text(qgis_style(mask.classes), encoding="utf-8")
            return _publish(folder, path)


def _shapes(shape: tuple[int, int]) -> list[tuple[int, int]]:
    """Shapes of the levels. Readers tell levels apart by their widths, so one pixel of width is the end."""
    shapes = level_shapes(shape, smallest=SIDE)
    return [shapes[0], *(coarser for finer, coarser in pairwise(shapes) if finer[1] > 1)]


class _Level:
    """One level of the pyramid in a temporary TIFF, written in whole rows of TIFF tiles, each of them once."""

    def __init__(self, path: Path, shape: tuple[int, int], *, threads: int) -> None:
        self.path = path
        self.height, self.width = shape
        self.filled: list[NDArray[np.bool_]] = []
        """Which TIFF tiles hold more than nodata, per row of tiles; the others are not stored."""
        self._threads = threads
        self._waiting = np.empty((min(SIDE, self.height), self.width), np.uint8)
        self._rows = self._y = 0

    def open(self) -> None:
        # Any transform will do, the VRT has the true one; none at all makes rasterio warn.
        self._file = rasterio.open(
            self.path, "w", driver="GTiff", dtype="uint8", count=1, height=self.height, width=self.width,
            nodata=NODATA, transform=rasterio.Affine.scale(2.0), tiled=True, blockxsize=SIDE, blockysize=SIDE,
            compress="zstd", zstd_level=1, num_threads=self._threads, sparse_ok=True, bigtiff="if_safer",
        )  # fmt: skip

    def add(self, rows: NDArray[np.uint8]) -> None:
        while len(rows):
            taken, rows = np.split(rows, [SIDE - self._rows])
            if len(taken) < SIDE:
                self._waiting[self._rows : self._rows + len(taken)] = taken
                self._rows += len(taken)
            if len(taken) == SIDE:
                self._write(taken)
            elif self._rows == SIDE or self._y + self._rows == self.height:
                self._write(self._waiting[: self._rows])
                self._rows = 0

    def _write(self, rows: NDArray[np.uint8]) -> None:
        lowest = np.minimum.reduceat(rows.min(axis=0), np.arange(0, self.width, SIDE))
        self.filled.append(lowest != NODATA)
        self._file.write(rows, 1, window=((self._y, self._y + len(rows)), (0, self.width)))
        self._y += len(rows)

    def close(self) -> None:
        self._file.close()


def _stream(mask: Mask, levels: list[_Level], *, overviews: str, path: Path) -> None:
    """Read the mask once, top to bottom, and write all levels."""
    with ExitStack() as opened:
        for level in levels:
            with _refusing(path):
                level.open()
            opened.callback(level.close)
        for k, _, rows in cascade(_bands(mask), levels=len(levels), halve=HALVES[overviews]):
            with _refusing(path):
                levels[k].add(rows)


def _bands(mask: Mask) -> Iterator[NDArray[np.uint8]]:
    for y in range(0, mask.grid.height, SIDE):
        yield mask.read(Window(y, 0, min(SIDE, mask.grid.height - y), mask.grid.width))


def _copy(vrt: Path, result: Path, *, overviews: bool, threads: int) -> None:
    rasterio.shutil.copy(
        vrt, result, driver="COG", COMPRESS="DEFLATE", BLOCKSIZE=SIDE, BIGTIFF="IF_SAFER", SPARSE_OK="TRUE",
        OVERVIEWS="FORCE_USE_EXISTING" if overviews else "NONE", NUM_THREADS=threads,
    )  # fmt: skip


def _vrt(mask: Mask, levels: list[_Level]) -> str:
    """The levels as one virtual dataset: the finest, with the others as its overviews."""
    grid = mask.grid
    root = ET.Element("VRTDataset", rasterXSize=str(grid.width), rasterYSize=str(grid.height))
    if grid.crs is not None:
        ET.SubElement(root, "SRS").text = grid.crs
    if grid.transform != IDENTITY:
        a, b, c, d, e, f = grid.transform
        ET.SubElement(root, "GeoTransform").text = ", ".join(map(repr, map(float, (c, a, b, f, d, e))))
    metadata = ET.SubElement(root, "Metadata")
    for key, value in _tags(mask).items():
        ET.SubElement(metadata, "MDI", key=key).text = value
    band = ET.SubElement(root, "VRTRasterBand", dataType="Byte", band="1", blockXSize=str(SIDE), blockYSize=str(SIDE))
    ET.SubElement(band, "Description").text = "mask"
    ET.SubElement(band, "NoDataValue").text = str(NODATA)
    ET.SubElement(band, "ColorInterp").text = "Palette"
    colours = ET.SubElement(band, "ColorTable")
    for c1, c2, c3, c4 in _colours(mask):
        ET.SubElement(colours, "Entry", c1=str(c1), c2=str(c2), c3=str(c3), c4=str(c4))
    for place, level in zip(["SimpleSource"] + ["Overview"] * len(levels), levels, strict=False):
        source = ET.SubElement(band, place)
        ET.SubElement(source, "SourceFilename", relativeToVRT="1").text = level.path.name
        ET.SubElement(source, "SourceBand").text = "1"
    return ET.tostring(root, encoding="unicode")


def _tags(mask: Mask) -> dict[str, str]:
    """Class names, the meaning of 254 and 255, and where the mask comes from."""
    tags = {"AREA_OR_POINT": "Area"}
    for key, value in mask.provenance.items():
        tags[NAMESPACE + re.sub(r"\W+", "_", key).upper()] = value
    for label, (name, _) in enumerate(mask.classes):
        tags[f"{NAMESPACE}CLASS_{label}"] = name
    tags[f"{NAMESPACE}CLASS_{FAILED}"] = FAILED_CLASS.name
    tags[f"{NAMESPACE}CLASS_{NODATA}"] = "nodata"
    return {key: xml_text(value) for key, value in tags.items()}


def _colours(mask: Mask) -> list[tuple[int, int, int, int]]:
    table = [(0, 0, 0, 255)] * 256
    for label, (_, rgb) in [*enumerate(mask.classes), (FAILED, FAILED_CLASS)]:
        table[label] = (*rgb, 255)
    table[NODATA] = (0, 0, 0, 0)
    return table


def _refuse_holes(result: Path, levels: list[_Level]) -> None:
    """Check that each TIFF tile with labels is stored, whole: GDAL may report a full disk to nobody when it closes."""
    size = result.stat().st_size
    with tifffile.TiffFile(result) as tiff:
        pages = [tiff.pages[k].aspage() for k in range(len(tiff.pages))]
        if [(page.imagelength, page.imagewidth) for page in pages] != [(v.height, v.width) for v in levels]:
            raise FormatError(f"{result.name}: its levels are not those of the mask; is the disk full?")
        for page, level in zip(pages, levels, strict=True):
            counts, offsets = np.asarray(page.databytecounts), np.asarray(page.dataoffsets)
            filled = np.concatenate(level.filled)
            if (filled & (counts == 0)).any() or (offsets + counts).max() > size:
                raise FormatError(f"{result.name}: parts of it were not written; is the disk full?")


def _publish(folder: Path, path: Path) -> tuple[Path, ...]:
    """Move the finished files to where they belong, the COG last, and drop the sidecars of a file they replace."""
    sidecars = [path.with_name(path.name + suffix) for suffix in (".aux.xml", ".ovr", ".msk")]
    written = [path, _style(path), *(file for file in sidecars if (folder / file.name).exists())]
    for target in reversed(written):
        os.replace(folder / target.name, target)
    for stale in set(sidecars) - set(written):
        stale.unlink(missing_ok=True)
    return tuple(written)


def _style(path: Path) -> Path:
    return path.with_suffix(".qml")


@contextmanager
def _scratch(path: Path, *, crs: str | None) -> Iterator[Path]:
    """A hidden folder beside the target, so that the last step is a rename; removed whatever happens."""
    with _refusing(path):
        if crs is not None:
            rasterio.CRS.from_wkt(crs)  # a VRT drops what GDAL cannot parse without a word
        for target in (path, _style(path)):
            if target.is_dir():
                raise FormatError(f"cannot write {target}: it is a folder; give another file name")
        folder = Path(tempfile.mkdtemp(prefix=".tilesseg-", dir=path.parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _bounded_cache() -> Iterator[None]:
    """GDAL's cache of raster cells, of the whole process, held at 64 MB: its default is 5 % of the machine."""
    with rasterio.Env():
        before = int(get_gdal_config("GDAL_CACHEMAX"))
        set_gdal_config("GDAL_CACHEMAX", min(before, CACHE_BYTES))
        try:
            yield
        finally:
            set_gdal_config("GDAL_CACHEMAX", before)


@contextmanager
def _refusing(path: Path) -> Iterator[None]:
    """What GDAL and the file system complain about, as one line that names the target."""
    try:
        yield
    except (RasterioError, CPLE_BaseError) as error:
        free = shutil.disk_usage(path.parent).free / 2**20  # GDAL's words for a full disk seldom say so
        reason = f"{' '.join(str(error).split())}; {free:.0f} MB are free there"
        raise FormatError(f"cannot write {path}: {reason}") from error
    except (CRSError, OSError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise FormatError(f"cannot write {path}: {' '.join(reason.split())}") from error
