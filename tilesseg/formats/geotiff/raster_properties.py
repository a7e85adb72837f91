"""Opening a raster file and collecting its properties: bands, mask kind, storage, files, notes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

import rasterio
from rasterio.enums import ColorInterp

from tilesseg.errors import SourceError, cannot
from tilesseg.formats.geotiff.band_names import band_names
from tilesseg.formats.geotiff.georeferencing import find_place
from tilesseg.formats.geotiff.raster_file import (
    RasterFacts,
    RasterFile,
    one_line_errors,
    open_dataset,
    settled,
)
from tilesseg.formats.geotiff.strip_stream import is_one_strip
from tilesseg.formats.geotiff.vrt_members import broken_members
from tilesseg.formats.reading.proj_data import check_data
from tilesseg.formats.reading.validity import DTYPES, AlphaUse, MaskChoice, choose_mask
from tilesseg.formats.source import AlphaBand
from tilesseg.paths import opened_by_gdal

_MEMBERS = 16  # of a VRT that are opened
_SIDECARS = (".vrt", ".ovr", ".msk", ".xml")


def decoded_block(file: RasterFile) -> tuple[int, int]:
    """Height and width of the block that is decoded for a pixel: a tile, a strip, the image; of a VRT the largest."""
    facts = file.facts
    shape, block = facts.grid.shape, facts.storage_block
    if facts.one_strip:
        block = shape
    elif facts.driver == "GTiff" and facts.compression is None and block[1] >= shape[1]:
        block = 1, shape[1]  # without compression, any row is read by its position
    blocks = [block, *(_members(file) if facts.driver == "VRT" else [])]
    heights, widths = zip(*blocks, strict=True)
    return min(shape[0], max(heights)), min(shape[1], max(widths))


def _members(file: RasterFile) -> list[tuple[int, int]]:
    names = [name for name in file.facts.files if name != file.path and not name.lower().endswith(_SIDECARS)]
    blocks = []
    for name in names[:_MEMBERS]:
        try:
            blocks.append(decoded_block(open_raster(name)))
        except SourceError:  # it is missing, or no image: the refusal comes with the read
            continue
    return blocks


_PALETTE_NOTE = "a palette image: its values are indices into a colour table, not brightness; never interpolated"
_GAPS_NOTE = "a VRT without nodata: where no member lies it is 0 and valid; gdalbuildvrt -addalpha marks such gaps"
_MOST_BANDS = 10_000  # one patch of more would not fit into memory; damaged headers declare 65535


def open_raster(path: str, alpha: AlphaUse | None = None) -> RasterFile:
    """Open a file with GDAL and collect its facts; `alpha` says what a band that is tagged alpha is.

    Raises:
        SourceError: missing, not an image, of a data type that cannot be segmented, or GDAL has no data of PROJ.
    """
    check_data()
    if not is_remote(path):
        if not os.path.exists(path):
            raise SourceError(cannot(f"open {path}", "no such file", "correct the path"))
        path = os.path.abspath(path)
    with one_line_errors(f"{path}: not an image that GDAL can open", "give a raster image, or repair this file"):
        dataset = open_dataset(path)
    with one_line_errors(f"{path}: cannot read its properties"), rasterio.Env():
        return RasterFile(path, settled(lambda: _facts(path, dataset, alpha)))


def is_remote(path: str) -> bool:
    """Whether only GDAL can open a path: a URL, a `/vsi…` path or a `DRIVER:…` name."""
    return opened_by_gdal(path) or (":" in path and not os.path.exists(path))


def _facts(path: str, dataset: Any, use: AlphaUse | None) -> RasterFacts:
    if dataset.count > _MOST_BANDS:
        raise SourceError(
            f"{path}: {dataset.count} bands, more than {_MOST_BANDS}: its header is probably damaged; replace the file"
        )
    colours = dataset.colorinterp
    mask = _mask(dataset, colours, use)
    bands = tuple(i for i in dataset.indexes if i - 1 not in mask.alpha)
    if not bands:
        raise SourceError(cannot(f"read {path}", "it has no band with data", "give another image"))
    dtypes = tuple(dataset.dtypes[i - 1] for i in bands)
    wrong = [dtype for dtype in dtypes if dtype not in DTYPES]
    if wrong:
        raise SourceError(f"{path}: data type {wrong[0]}, not one of {', '.join(DTYPES)}; {_remedy(wrong[0])}")
    grid, notes, size = find_place(dataset)
    compression = dataset.compression
    broken = broken_members(path, dataset.shape) if dataset.driver == "VRT" and not is_remote(path) else ()
    return RasterFacts(
        driver=dataset.driver,
        grid=grid,
        bands=bands,
        names=band_names([dataset.descriptions[i - 1] for i in bands], [colours[i - 1].name for i in bands]),
        dtypes=dtypes,
        scales=tuple(float(dataset.scales[i - 1]) for i in bands),
        offsets=tuple(float(dataset.offsets[i - 1]) for i in bands),
        nodata=tuple(dataset.nodatavals[i - 1] for i in bands),
        mask=mask.kind,
        gaps=mask.gaps,
        alpha=tuple(AlphaBand(i + 1, _description(dataset, i)) for i in mask.alpha),
        overviews=() if broken else tuple(dataset.overviews(bands[0])),  # GDAL opens the members for theirs
        storage_block=dataset.block_shapes[bands[0] - 1],
        one_strip=is_one_strip(path, dataset),
        palette=ColorInterp.palette in colours,
        compression=compression.value if compression else None,
        broken=broken,
        files=_files(path, dataset),
        size=size.properties,
        notes=(*notes, *_more_notes(dataset, colours, mask)),
    )


def _mask(dataset: Any, colours: Sequence[Any], use: AlphaUse | None) -> MaskChoice:
    flags = [{flag.name for flag in of_band} for of_band in dataset.mask_flag_enums]
    return choose_mask([colour == ColorInterp.alpha for colour in colours], flags, use)


def _description(dataset: Any, index: int) -> str | None:
    return band_names([dataset.descriptions[index]], ["alpha"])[0]


def _more_notes(dataset: Any, colours: Sequence[Any], mask: MaskChoice) -> Iterator[str]:
    if ColorInterp.palette in colours:
        yield _PALETTE_NOTE
    if dataset.driver == "VRT" and mask.kind == "none" and not mask.alpha:
        yield _GAPS_NOTE
    bands = [i for i in dataset.indexes if colours[i - 1] == ColorInterp.alpha and i - 1 not in mask.alpha]
    if bands:
        yield f"band {', '.join(map(str, bands))} is tagged alpha, and is read as a band"
    unused = {value for value in dataset.nodatavals if value is not None}
    if mask.alpha and unused:
        yield f"alpha is the mask: the nodata value {', '.join(f'{value:g}' for value in sorted(unused))} is not used"


def _remedy(dtype: str) -> str:
    """Remedy for a data type that cannot be segmented."""
    if dtype.startswith("complex"):
        return "make a real image of it first: its amplitude (the VRT pixel function mod), or one of its parts"
    return "convert it first: gdal_translate -ot Float64 keeps whole numbers up to 2^53, -ot Int32 small ones"


def _files(path: str, dataset: Any) -> tuple[str, ...]:
    """Files of the dataset, with the files of VRTs within VRTs."""
    files = dict.fromkeys([path])
    pending = list(settled(lambda: dataset.files))
    while pending:
        name = pending.pop(0)
        if name in files:
            continue
        files[name] = None
        if name.lower().endswith(".vrt") and os.path.exists(name):
            with one_line_errors(f"{path}: cannot open its member {name}"), open_dataset(name) as member:
                pending += settled(lambda member=member: member.files)  # type: ignore[misc]
    return tuple(files)
