"""Small pictures of a scene and of its mask, as data URIs; the page says why a picture is missing.

Where the run has written a quick look, its two panels are made smaller: neither image nor mask is read again.
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tilesseg.errors import SourceError, TilessegError, joined_lines
from tilesseg.formats.open import open_source
from tilesseg.formats.reading.resample import centres
from tilesseg.formats.writer import Mask
from tilesseg.formats.writing.preview import GAP, SLOW, display_bands, encode, overlay, stretch, thin
from tilesseg.paths import without_secrets
from tilesseg.planning.product_checks import mask_of
from tilesseg.raster.window import Window

if TYPE_CHECKING:
    from tilesseg.planning.scene_plan import SceneRun
    from tilesseg.reporting.results import SceneReport


Picture = NDArray[np.uint8]
LARGE = 100_000_000
"""Pixels from which a mask is thinned to its nearest labels, not to the most frequent labels."""
_BAND, _STRIPE = 512, 4096


class Pictures(NamedTuple):
    """Two pictures of the same shape, as data URIs, or the reason why there are none."""

    image: str | None
    mask: str | None
    problem: str = ""
    wide: bool = False
    """Whether a picture is much wider than high: the two then stand above each other."""


def pictures_of(scene_run: SceneRun, report: SceneReport, *, size: int) -> Pictures:
    """Draw image and mask, long sides at most about `size` pixels. Never fails."""
    scene = scene_run.scene
    wide = scene.grid.width > 1.5 * scene.grid.height
    try:
        look = _quick_look(report)
        image, mask, problem = _panels(look, size, wide) if look else _drawn(scene_run, size)
    except (TilessegError, OSError, ValueError, MemoryError) as error:
        return Pictures(None, None, f"no picture: {without_secrets(joined_lines(error))}", wide)
    return Pictures(image, mask, problem, wide)


def _quick_look(report: SceneReport) -> Path | None:
    """Path of the quick look of a scene whose tiles are all tried."""
    if report.state not in ("complete", "damaged", "failed tiles"):
        return None
    paths = (Path(path) for path in report.products if path.endswith(".png"))
    return next((path for path in paths if path.exists()), None)


def _panels(path: Path, size: int, wide: bool) -> tuple[str, str, str]:
    """Panels of a quick look, made smaller."""
    look = open_source(str(path))
    values, valid = look.read(look.grid.window)
    whole = np.concatenate([values, np.where(valid, 255, 0).astype(np.uint8)[None]])
    axis = 1 if wide else 2
    side = (whole.shape[axis] - GAP) // 2
    if side < 1:
        raise SourceError(
            f"{path} is no quick look: it is {whole.shape[axis]} px long; delete it, and export the scene again"
        )
    first, second = np.take(whole, range(side), axis), np.take(whole, range(side + GAP, 2 * side + GAP), axis)
    return _uri(_smaller(first, size)), _uri(_smaller(second, size)), ""


def _drawn(scene_run: SceneRun, size: int) -> tuple[str | None, str, str]:
    """Pictures of the image and of the mask; of the mask alone if the image cannot be read."""
    mask, scene = mask_of(scene_run), scene_run.scene
    long = max(mask.grid.shape)
    small = tuple(max(1, round(side * min(1.0, size / long))) for side in mask.grid.shape)
    problem, image = "", None
    picture, valid = np.full((3, *small), 225, np.uint8), None
    try:
        source = scene.open_for_tiles(scene_run.store.folder)
        if mask.grid.window.area > SLOW and not source.levels:
            raise SourceError("the image is too large to be read for a picture and has no overviews; add overviews")
        pixels = source.select(display_bands(source)).thumbnail(size)
        small, valid = pixels.valid.shape, pixels.valid
        picture = np.array(np.broadcast_to(stretch(pixels.values, valid), (3, *small)))
        image = _uri(np.concatenate([picture, np.where(valid, 255, 0).astype(np.uint8)[None]]))
    except (TilessegError, OSError, ValueError) as error:
        problem = f"no picture of the image: {without_secrets(joined_lines(error))}"
    shape = (int(small[0]), int(small[1]))
    labels = thin(mask, shape) if mask.grid.window.area <= LARGE else _nearest(mask, shape)
    return image, _uri(overlay(picture, labels, mask.classes)), problem


def _nearest(mask: Mask, shape: tuple[int, int]) -> Picture:
    """Nearest labels of the mask at a smaller shape, read in windows."""
    rows, columns = (centres(full, small) for full, small in zip(mask.grid.shape, shape, strict=True))
    result = np.empty(shape, np.uint8)
    for y in range(0, mask.grid.height, _BAND):
        chosen = np.flatnonzero(rows // _BAND == y // _BAND)
        for x in range(0, mask.grid.width if len(chosen) else 0, _STRIPE):
            places = np.flatnonzero(columns // _STRIPE == x // _STRIPE)
            labels = mask.read(Window(y, x, _BAND, _STRIPE).intersect(mask.grid.window))
            result[np.ix_(chosen, places)] = labels[np.ix_(rows[chosen] - y, columns[places] - x)]
    return result


def _smaller(picture: Picture, size: int) -> Picture:
    """Means of squares, weighted by the opacity of their pixels."""
    step = -(-max(picture.shape[1:]) // size)
    if step < 2:
        return picture
    height, width = (max(1, side // step) for side in picture.shape[1:])
    tall, broad = min(step, picture.shape[1]), min(step, picture.shape[2])
    cut = picture[:, : height * tall, : width * broad].astype(np.float32)
    cells = cut.reshape(4, height, tall, width, broad)
    opaque = cells[3] / 255
    total = opaque.sum(axis=(1, 3))
    colours = (cells[:3] * opaque).sum(axis=(2, 4)) / np.maximum(total, 1e-6)
    smaller = np.concatenate([colours, total[None] / (tall * broad) * 255])
    return np.asarray(np.rint(smaller), np.uint8)


def _uri(picture: Picture) -> str:
    return "data:image/png;base64," + base64.b64encode(encode(picture, "PNG")).decode("ascii")
