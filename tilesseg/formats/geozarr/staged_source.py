"""Zarr of a staged copy: the raw values of an image, its masks and all its metadata, as sharded Zarr 3.

    image.zarr/  zarr.json        attributes spatial: and proj: for other readers, `tilesseg` for `open_staged`
                 spatial_ref      the same georeference by the conventions CF
                 image/           (channel, y, x), raw values: scale and offset are applied on reading
                 valid/           (mask, y, x) bool: where bands are covered, and where they are not nodata; shards in
                                  which all is valid are not stored

Pixels read from a copy equal those read from the image, byte for byte.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import ZstdCodec
from zarr.errors import BaseZarrError

from tilesseg.atomic_write import published
from tilesseg.errors import SourceError, StoreError, cannot
from tilesseg.formats.damage import Damage, DamageRecord
from tilesseg.formats.geozarr.conventions import grid_mapping, spatial_attributes
from tilesseg.formats.reading.band_planes import ImageBand
from tilesseg.formats.reading.image import Image, ImageFacts
from tilesseg.formats.reading.validity import UNSCALED
from tilesseg.formats.source import Raw, Source
from tilesseg.formats.zarr.source import ZarrLayer, ZarrReader
from tilesseg.formats.zarr.zarr_array import Axes, ZarrArray, metadata_files
from tilesseg.raster.grid import ControlPoint, Grid, Placement
from tilesseg.raster.window import Window

FORMAT = 2
_CHANNELS = Axes(y=1, x=2, channel=0)


def create_staged(path: Path, *, source: Source, shard: tuple[int, int], chunk: tuple[int, int]) -> None:
    """Make an empty copy of the selected bands, whole or not at all; an existing copy is replaced.

    Args:
        path: the Zarr to make.
        source: the image.
        shard: height and width of a shard, the unit of writing; whole chunks.
        chunk: height and width of a chunk, the unit of reading.

    Raises:
        StoreError: the copy cannot be written.
    """
    bands, count = _bands(source), len({*source.masks, *source.gaps} - {None})
    stored = np.result_type(*(band["dtype"] for band in bands))
    attributes = {**spatial_attributes(source.grid), "tilesseg": _fields(source, bands)}
    arrays = (("image", "channel", len(bands), stored, 0), ("valid", "mask", count, np.dtype(bool), True))
    try:
        with published(path, folder=True) as temporary:
            group = zarr.create_group(str(temporary), attributes=attributes)
            for name, axis, length, dtype, fill in arrays:
                group.create_array(
                    name,
                    shape=(length, *source.grid.shape),
                    chunks=(1, *chunk),
                    shards=(1, *shard),
                    dtype=dtype,
                    fill_value=fill,
                    compressors=[ZstdCodec(level=1)],
                    dimension_names=(axis, "y", "x"),
                )
            if source.grid.georeferenced:
                group["image"].attrs["grid_mapping"] = "spatial_ref"
                group.create_array("spatial_ref", shape=(), dtype=np.int64, attributes=grid_mapping(source.grid))
    except OSError as error:
        raise StoreError(cannot(f"write {path}", error, "choose another run directory")) from None


class StagedWriter:
    """Writer of a copy, in whole shards. Several processes may write different shards."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[type[StagedWriter], tuple[Path]]:
        return StagedWriter, (self.path,)

    def write(self, y: int, x: int, raw: Raw) -> None:
        """Store raw values and masks, of which the first pixel is pixel `(y, x)` of the image.

        Raises:
            ValueError: the pixels do not fill whole shards.
            StoreError: a shard cannot be written.
        """
        place = Window(y, x, *raw.values.shape[1:])
        self._check(place)
        try:
            for index, channel in enumerate(raw.values):
                self._write(self._image, index, place, channel)
            for index, mask in enumerate(raw.valid):
                if not (mask.all() and not any(self._masks.stored(index, place))):
                    self._write(self._valid, index, place, mask)
        except OSError as error:
            raise StoreError(cannot(f"write {self.path}", error, "make room and run again")) from None

    @cached_property
    def _image(self) -> zarr.Array[Any]:
        # every chunk is stored, so that a missing chunk has not been copied
        return self._open("image", write_empty_chunks=True)

    @cached_property
    def _valid(self) -> zarr.Array[Any]:
        return self._open("valid", write_empty_chunks=False)

    @cached_property
    def _masks(self) -> ZarrArray:
        return ZarrArray(str(self.path / "valid"), _CHANNELS)

    def _open(self, name: str, **config: bool) -> zarr.Array[Any]:
        try:
            opened: Any = zarr.open_array(str(self.path / name), mode="r+")
        except (OSError, BaseZarrError) as error:
            raise StoreError(cannot(f"open the copy {self.path}", error, "stage the image again")) from None
        array: zarr.Array[Any] = opened.with_config(config)
        return array

    def _check(self, place: Window) -> None:
        (_, height, width), (_, tall, wide) = self._image.shape, self._shard
        whole_rows = place.y % tall == 0 and (place.y_stop % tall == 0 or place.y_stop == height)
        whole_columns = place.x % wide == 0 and (place.x_stop % wide == 0 or place.x_stop == width)
        if not (whole_rows and whole_columns):
            raise ValueError(f"{place} is not made of whole shards of {tall} × {wide} of {height} × {width}")

    @property
    def _shard(self) -> tuple[int, ...]:
        shards = self._image.shards
        assert shards is not None
        return shards

    def _write(self, array: zarr.Array[Any], index: int, place: Window, plane: NDArray[Any]) -> None:
        """Write a plane shard by shard: zarr has some copies of each shard in memory while it writes."""
        _, tall, wide = self._shard
        for y in range(place.y, place.y_stop, tall):
            for x in range(place.x, place.x_stop, wide):
                part = Window(y, x, tall, wide).intersect(place)
                array[index, *part.slices()] = plane[part.slices(place)]


def open_staged(path: Path, holes: Sequence[tuple[Window, str]] = (), damage: Sequence[Damage] = ()) -> Image:
    """A copy as an image that reads as the image it was made of, as far as it has been copied.

    Args:
        path: the Zarr.
        holes: windows that could not be copied, and why.
        damage: damage of the image that was met while it was copied.

    Raises:
        SourceError: there is none, or it was made by another version.
    """
    reader = staged_reader(path)
    return Image.of(replace(reader, holes=tuple(holes), damage=(*reader.damage, *damage)))


def note_damage(path: Path, damage: Sequence[Damage]) -> None:
    """Keep the damage of the image in the attributes of a copy, which then is read as the image would be.

    Raises:
        StoreError: the copy cannot be written.
    """
    record = DamageRecord.of(damage)
    try:
        group = zarr.open_group(str(path), mode="r+", use_consolidated=False)
        group.attrs["tilesseg"] = {**group.attrs["tilesseg"], "damage": record._asdict()}  # type: ignore[dict-item]
    except OSError as error:
        raise StoreError(cannot(f"write {path}", error, "stage the image again")) from None


def staged_reader(path: Path) -> ZarrReader:
    """The reader of a copy, see `open_staged`.

    Raises:
        SourceError: there is none, or it was made by another version.
    """
    try:
        told: Any = zarr.open_group(str(path), mode="r", use_consolidated=False).attrs.asdict().get("tilesseg")
    except (OSError, ValueError, BaseZarrError) as error:
        raise SourceError(f"{path}: no staged image ({' '.join(str(error).split())}); stage it again") from None
    if not isinstance(told, Mapping) or told.get("format") != FORMAT:
        found = told.get("format") if isinstance(told, Mapping) else None
        raise SourceError(f"{path}: staged format {found}, this version reads {FORMAT}; stage the image again")
    image, valid = (ZarrArray(str(path / name), _CHANNELS) for name in ("image", "valid"))
    bands = tuple(ImageBand(file=image.path, index=index, **fields) for index, fields in enumerate(told["bands"]))
    folders = [str(path), image.path, valid.path]
    files = tuple(file for folder in folders for file in metadata_files(folder))
    notes = tuple(f"of the image that was copied: {note}" for note in told["notes"])
    facts = ImageFacts(str(path), _grid(told["grid"]), bands, files, notes=notes)
    damage = DamageRecord(**told["damage"]).windows() if "damage" in told else ()
    return ZarrReader(facts, (ZarrLayer(image),), valid=valid, damage=tuple(damage))


def _bands(source: Source) -> list[dict[str, Any]]:
    """Fields of each selected band in the copy's attributes."""
    return [
        {
            "name": source.bands[i],
            "dtype": str(source.raw_dtypes[i]),
            "scale": source.scaling[i][0],
            "offset": source.scaling[i][1],
            "mask": mask,
            "gaps": gaps,
            "nodata": _finite(source.nodata[i]),
            "resampled": _resampled(source, i),
        }
        for i, mask, gaps in zip(source.selected, source.masks, source.gaps, strict=True)
    ]


def _finite(nodata: float | None) -> float | None:
    """A nodata value as JSON data, which has no NaN; NaN is nodata anyway."""
    return nodata if nodata is not None and np.isfinite(nodata) else None


def _resampled(source: Source, band: int) -> bool:
    """Whether a band is float32 because it was resampled: then a band beside it does not make the two float64."""
    types = source.raw_dtypes
    plain = [i for i in source.selected if source.scaling[i] == UNSCALED]
    if band not in plain or types[band] != np.float32:
        return False
    return any(source.select([band, i]).dtype != np.result_type(np.float32, types[i]) for i in plain)


def _fields(source: Source, bands: list[dict[str, Any]]) -> dict[str, Any]:
    described = source.describe()
    return {
        "format": FORMAT,
        "bands": bands,
        "grid": _grid_fields(source.grid),
        "notes": described.get("notes", []),
        "source": described,
        "identity": source.identity(),
    }


def _grid_fields(grid: Grid) -> dict[str, Any]:
    placement = grid.placement
    return {
        "height": grid.height,
        "width": grid.width,
        "transform": list(grid.transform),
        "crs": grid.crs,
        "unit": grid.unit,
        "metres_per_unit": grid.metres_per_unit,
        "placement": placement
        and {
            "crs": placement.crs,
            "points": [[point.y, point.x, list(point.world), point.name] for point in placement.points],
            "rpcs": dict(placement.rpcs),
        },
    }


def _grid(fields: Mapping[str, Any]) -> Grid:
    placed = fields["placement"]
    points = [ControlPoint(y, x, tuple(world), name) for y, x, world, name in placed["points"]] if placed else []
    placement = Placement(tuple(points), placed["crs"], dict(placed["rpcs"])) if placed else None
    return Grid(**{**fields, "transform": tuple(fields["transform"]), "placement": placement})
