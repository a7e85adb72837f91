"""Polygons of a tile's core on disk: traced by a worker, read when polygons of all tiles are joined.

A core is traced in parts of at most 2048², so that memory does not grow with the core; parts meet in seams as tiles do.
GDAL traces each 4-connected component as one valid polygon with its holes.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import rasterio.features
from numpy.typing import NDArray

from tilesseg.atomic_write import published
from tilesseg.errors import FormatError, cannot
from tilesseg.formats.vector.polygon_outlines import Polygons, Runs, border_runs, offsets, turned
from tilesseg.process import QUIET
from tilesseg.raster.labels import FAILED
from tilesseg.raster.window import Window

PART = 2048
"""Side, in pixels, of the windows that are traced."""


Read = Callable[[Window], NDArray[np.uint8]]


@dataclass(frozen=True, slots=True)
class Part:
    """Polygons of a window, and their edges on its border."""

    window: Window
    polygons: Polygons
    runs: Runs


def write_parts(read: Read, core: Window, path: Path) -> None:
    """Trace the labels of a core and store the polygons in `path`, whole or not at all."""
    arrays: dict[str, NDArray[np.generic]] = {}
    for number, window in enumerate(parts_of(core)):
        polygons = traced(read(window), window)
        runs = border_runs(polygons, window)
        own = {name: getattr(polygons, name) for name in ("labels", "polygons", "rings", "points")}
        place = np.array([window.y, window.x, window.height, window.width])
        own |= {"window": place, "runs": np.stack(runs)}
        arrays |= {f"{number}/{name}": array for name, array in own.items()}
    with published(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def parts_of(window: Window) -> Iterator[Window]:
    """Windows of at most `PART`² that partition a window."""
    for y in range(window.y, window.y_stop, PART):
        for x in range(window.x, window.x_stop, PART):
            yield Window(y, x, PART, PART).intersect(window)


def traced(labels: NDArray[np.uint8], window: Window) -> Polygons:
    """Polygons of the classes in a window, in corners of the image; 254 and 255 have none."""
    values: list[int] = []
    counts: list[int] = []
    rings: list[Sequence[tuple[float, float]]] = []
    with QUIET:
        shapes = list(rasterio.features.shapes(labels, mask=labels < FAILED, connectivity=4))
    for geometry, value in shapes:
        values.append(int(value))
        counts.append(len(geometry["coordinates"]))
        rings.extend(geometry["coordinates"])
    lengths = list(map(len, rings))
    flat = np.fromiter(chain.from_iterable(chain.from_iterable(rings)), np.int32, 2 * sum(lengths)).reshape(-1, 2)
    points = flat[:, ::-1] + np.array([window.y, window.x], np.int32)
    return turned(Polygons(np.array(values, np.uint8), offsets(counts), offsets(lengths), points))


def read_runs(path: Path) -> list[tuple[Window, NDArray[np.uint8], Runs]]:
    """Window, labels of the polygons, and edges on the border, of each stored part.

    Raises:
        FormatError: the file is missing or damaged.
    """
    with _opened(path) as file:
        return [(_window(file, k), file[f"{k}/labels"], _runs(file, k)) for k in range(_count(file))]


def read_parts(path: Path) -> Iterator[Part]:
    """Stored parts, one at a time.

    Raises:
        FormatError: the file is missing or damaged.
    """
    with _opened(path) as file:
        for k in range(_count(file)):
            polygons = Polygons(*(file[f"{k}/{name}"] for name in ("labels", "polygons", "rings", "points")))
            yield Part(_window(file, k), polygons, _runs(file, k))


@contextmanager
def _opened(path: Path) -> Iterator[np.lib.npyio.NpzFile]:
    try:
        with path.open("rb") as file, np.load(file) as arrays:  # NumPy leaves a damaged one open
            yield arrays
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise FormatError(cannot(f"read polygons of a tile from {path}", error, "run the job again")) from None


def _count(file: np.lib.npyio.NpzFile) -> int:
    return sum(name.endswith("/window") for name in file.files)


def _window(file: np.lib.npyio.NpzFile, number: int) -> Window:
    return Window(*file[f"{number}/window"].tolist())


def _runs(file: np.lib.npyio.NpzFile, number: int) -> Runs:
    return Runs(*file[f"{number}/runs"])
