"""Quick look at a result, one PNG: the image, and beside it the image under the mask in the colours of its classes.

For people to look at, not to measure: the image is stretched between its 2 and 98 % values, the mask is reduced to its
most frequent labels. Nodata is transparent, failed pixels are magenta and opaque.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from tilesseg.atomic_write import published
from tilesseg.errors import FormatError, cannot
from tilesseg.formats.reading.resample import centres
from tilesseg.formats.writer import FAILED_CLASS, Mask
from tilesseg.raster.labels import FAILED, NODATA
from tilesseg.raster.pyramid import cascade
from tilesseg.raster.window import Window

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tilesseg.formats.source import Source
    from tilesseg.formats.writer import Mask, MaskClass


if TYPE_CHECKING:
    Labels = NDArray[np.uint8]

SIZE = 1024
GAP = 8
OPACITY = 0.5
_ROWS, _STRIPE = 512, 4096
"""Height and width of the windows in which the mask is read."""
_COLOURS = (("red", "green", "blue"), ("r", "g", "b"), ("b4", "b3", "b2"), ("b04", "b03", "b02"))


def write_quick_look(path: Path, *, source: Source, mask: Mask, size: int = SIZE) -> None:
    """Draw a whole scene in bounded memory, from the thumbnail of the source and one pass over the mask.

    Args:
        path: the PNG to write.
        source: the image; see `display_bands` for the bands that are shown.
        mask: the mask of the same pixels.
        size: maximum of the picture's long side, in pixels.

    Raises:
        FormatError: the file cannot be written.
    """
    pixels = source.select(display_bands(source)).thumbnail(panel_size(mask.grid.shape, size))
    labels = thin(mask, pixels.valid.shape)
    note = mask.provenance.get("plan_fingerprint", "")
    write_preview(path, image=pixels.values, valid=pixels.valid, labels=labels, classes=mask.classes, note=note)


def write_preview(
    path: Path,
    *,
    image: NDArray[Any],
    valid: NDArray[np.bool_],
    labels: Labels,
    classes: Sequence[MaskClass],
    note: str = "",
) -> None:
    """Write image and mask of one shape as a PNG; see `draw` for the arguments, `note` is kept in the file.

    Raises:
        FormatError: the file cannot be written; nothing is left behind.
    """
    _write_png(path, draw(image, valid=valid, labels=labels, classes=classes), note)


def draw(
    image: NDArray[Any], *, valid: NDArray[np.bool_], labels: Labels, classes: Sequence[MaskClass]
) -> NDArray[np.uint8]:
    """RGBA picture of the image and the overlaid mask, beside each other, or one above the other where they are wide.

    Args:
        image: `(3, y, x)` or `(1, y, x)`, any numbers.
        valid: `(y, x)`, False where the image has no data.
        labels: `(y, x)`, 0 … n − 1, 254 failed, 255 nodata.
        classes: names and colours of the labels.

    Returns:
        `(4, y, x)` uint8.
    """
    picture = np.broadcast_to(stretch(image, valid), (3, *valid.shape))
    plain = np.concatenate([picture, np.where(valid, 255, 0).astype(np.uint8)[None]])
    panels = [plain, overlay(picture, labels, classes)]
    gap, axis = list(plain.shape), 1 + _axis(valid.shape)
    gap[axis] = GAP
    return np.concatenate([panels[0], np.zeros(gap, np.uint8), panels[1]], axis=axis)


def stretch(image: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Bands `(channel, y, x)`, each spread over 0 … 255 between its 2 and 98 % values; a constant band is grey."""
    result = np.zeros(image.shape, np.uint8)
    for out, band in zip(result, image, strict=True):
        values = band[valid].astype(np.float64)
        if values.size:
            low, high = np.percentile(values, [2, 98])
            if low == high:  # constant, except for a few pixels
                low, high = values.min(), values.max()
            share = (values - low) / (high - low) if high > low else np.full_like(values, 0.5)
            out[valid] = np.round(np.clip(share, 0, 1) * 255)
    return result


def overlay(picture: NDArray[np.uint8], labels: Labels, classes: Sequence[MaskClass]) -> NDArray[np.uint8]:
    """Picture `(3, y, x)` half covered by colours of classes, as `(4, y, x)`: transparent where labels are 255."""
    colours = np.zeros((256, 3), np.float32)
    colours[: len(classes)] = [rgb for _, rgb in classes]
    colours[FAILED] = FAILED_CLASS.rgb
    opacity = np.full(256, OPACITY, np.float32)
    opacity[FAILED] = 1.0
    cover = opacity[labels]
    mixed = picture * (1 - cover) + np.moveaxis(colours[labels], -1, 0) * cover
    return np.concatenate([np.round(mixed), np.where(labels == NODATA, 0, 255)[None]]).astype(np.uint8)


def thin(mask: Mask, shape: tuple[int, int]) -> Labels:
    """Mask at a smaller shape `(y, x)`: halved by mode while larger than that, then its nearest pixels."""
    rows, columns = (centres(full, thin) for full, thin in zip(mask.grid.shape, shape, strict=True))
    level = max(0, min(full // small for full, small in zip(mask.grid.shape, shape, strict=True)).bit_length() - 1)
    if 0 < level <= len(mask.levels):
        stored = mask.levels[level - 1]
        labels = stored.read(Window(0, 0, *stored.shape))
        return labels.take(rows >> level, axis=0).take(columns >> level, axis=1)
    result = np.empty(shape, np.uint8)
    side = max(_STRIPE, 1 << level)  # whole pixels of the level
    for x in range(0, mask.grid.width, side):
        places = np.flatnonzero(columns // side == x // side)
        for k, y, labels in cascade(_rows_of_stripe(mask, x, side), levels=level + 1):
            if k == level:
                chosen = np.flatnonzero((rows >> level >= y) & (rows >> level < y + len(labels)))
                picked = (rows[chosen] >> level) - y, (columns[places] - x) >> level
                result[np.ix_(chosen, places)] = labels[np.ix_(*picked)]
    return result


def display_bands(source: Source) -> tuple[int, ...]:
    """Indices of the bands to show: red, green and blue by name, else the first three selected, else the first."""
    return colours_among(source.bands) or (source.selected[:3] if len(source.selected) >= 3 else source.selected[:1])


def colours_among(names: Sequence[str | None]) -> tuple[int, ...] | None:
    """Indices of red, green and blue among names of bands; None where they are not there."""
    lower = [name.lower() if name else None for name in names]
    found = next((triple for triple in _COLOURS if all(name in lower for name in triple)), None)
    return found and tuple(map(lower.index, found))


def panel_size(shape: tuple[int, int], size: int) -> int:
    """Long side of each of the two panels, so that the picture's long side is at most `size`."""
    room = [size, size]
    room[_axis(shape)] = (size - GAP) // 2
    return max(1, int(max(shape) * min(have / need for have, need in zip(room, shape, strict=True))))


def _axis(shape: tuple[int, int]) -> int:
    """Axis along which the panels are placed: 1, beside each other; 0, one above the other, where the image is wide."""
    return 0 if shape[1] > 1.5 * shape[0] else 1


def _rows_of_stripe(mask: Mask, x: int, width: int) -> Iterator[Labels]:
    """Labels of a stripe of the mask, from top to bottom."""
    stripe = Window(0, x, mask.grid.height, width).intersect(mask.grid.window)
    for y in range(0, mask.grid.height, _ROWS):
        yield mask.read(Window(y, x, _ROWS, stripe.width).intersect(stripe))


def _write_png(path: Path, picture: NDArray[np.uint8], note: str) -> None:
    data = _with_note(_png(picture), note) if note else _png(picture)
    try:
        with published(path) as temporary:
            temporary.write_bytes(data)
    except OSError as error:
        raise FormatError(cannot(f"write {path}", error, "choose another path")) from error


def small_picture(source: Source, size: int) -> bytes:
    """JPEG of the image alone, of which the long side is at most `size` pixels; nodata is light grey."""
    pixels = source.select(display_bands(source)).thumbnail(size)
    picture = np.broadcast_to(stretch(pixels.values, pixels.valid), (3, *pixels.valid.shape))
    return encode(np.where(pixels.valid, picture, np.uint8(240)), "JPEG", QUALITY=80)


def _png(picture: NDArray[np.uint8]) -> bytes:
    return encode(picture, "PNG")


def _with_note(png: bytes, note: str) -> bytes:
    """A PNG with a chunk of text behind its header (PNG specification, 11.3.3.2)."""
    chunk = b"tEXttilesseg\0" + note.encode("latin-1", "replace")
    header = png[:33]  # signature and IHDR
    return b"".join([header, (len(chunk) - 4).to_bytes(4), chunk, crc32(chunk).to_bytes(4), png[33:]])


def encode(picture: NDArray[np.uint8], driver: str, **options: Any) -> bytes:
    """Picture `(channel, y, x)` encoded in memory, so that an error of the disk is an OSError and none of GDAL."""
    import rasterio
    from rasterio.io import MemoryFile

    count, height, width = picture.shape
    # PNG and JPEG keep no transform, and without a sidecar (PAM) nothing else does; given none, rasterio warns.
    where = rasterio.Affine.scale(2.0)
    with rasterio.Env(GDAL_PAM_ENABLED="NO"), MemoryFile() as memory:
        size = {"count": count, "height": height, "width": width}
        with memory.open(driver=driver, dtype="uint8", transform=where, **size, **options) as file:
            file.write(picture)
        data: bytes = memory.read()
    return data


SLOW = 1_000_000_000
"""Pixels from which an image without overviews is not read for a picture."""
