"""STAC items: the assets that hold measured bands, and the names of these bands.

Versions 1.0 (`eo:bands` and `raster:bands`) and 1.1 (`bands`) of the specification alike.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tilesseg.errors import SourceError, cannot
from tilesseg.formats.geotiff.deliveries.delivery_files import SceneFile, SceneFiles
from tilesseg.formats.geotiff.deliveries.product_rules import stac_rule
from tilesseg.formats.stac.stac_items import linked, names_item, read_item, split_member
from tilesseg.paths import is_address, opened_by_gdal

_SUFFIXES = (".tif", ".tiff", ".jp2", ".vrt", ".img")
_PICTURES = {"visual", "tci", "preview", "rendered_preview", "overview", "thumbnail", "browse"}
_MEASURED = {"data", "reflectance", "temperature", "radiance", "backscatter", "amplitude"}
_RED_EDGES = {"rededge071": (0.69, 0.73), "rededge075": (0.73, 0.76), "rededge078": (0.76, 0.8)}


@dataclass(frozen=True, slots=True)
class _Asset:
    """An asset that holds measured bands."""

    key: str
    gsd: float | None
    """Its pixel size, where the item has it."""
    file: SceneFile

    @property
    def jp2(self) -> bool:
        return _is_jp2(self.file)


def _is_jp2(file: SceneFile) -> bool:
    return urlsplit(file.path).path.lower().endswith(".jp2")


def find_stac(path: str) -> SceneFiles | None:
    """The bands of a STAC item, or None where the path does not name one.

    Raises:
        SourceError: the item cannot be read, or no asset of it holds measured bands.
    """
    if not names_item(path):
        return None
    item = _load(path)
    try:
        rules = [stac_rule(item, jp2=jp2) for jp2 in (False, True)]
        files, notes = _without_twins(_assets(split_member(path)[0], item))
        files = files or list(_unnamed(split_member(path)[0], item))
    except (AttributeError, KeyError, TypeError, ValueError) as error:  # the values may be of any type
        because = f"{type(error).__name__}, {error}"
        raise SourceError(cannot(f"open the STAC item {path}", because, "give the image files as a list")) from error
    if not files:
        because = "no asset of it holds measured bands"
        raise SourceError(cannot(f"open the STAC item {path}", because, "give the image files as a list"))
    there = [file for file in files if opened_by_gdal(file.path) or os.path.exists(file.path)]
    if not there:
        because = f"none of its {len(files)} files is there, {files[0].path} first"
        raise SourceError(cannot(f"open the STAC item {path}", because, "fetch its files"))
    missing = [str(file.names[0]) if file.names else file.key for file in files if file not in there]
    notes += [f"the files of {', '.join(missing)} are not there: left out"] if missing else []
    ruled = (replace(file, rule=rules[_is_jp2(file)]) for file in _with_nir(there, notes))
    return SceneFiles(path, tuple(ruled), tuple(notes))


def _load(path: str) -> dict[str, Any]:
    try:
        item = read_item(path)
    except (OSError, ValueError) as error:
        raise SourceError(cannot(f"read {path} as a STAC item", error, "correct the path or the file")) from error
    if isinstance(item, dict) and _lists_items(item):
        raise SourceError(f"{path}: a STAC {item['type']} of many items is no image; give it to a job as its scenes")
    if not isinstance(item, dict) or item.get("type") != "Feature" or not isinstance(item.get("assets"), dict):
        kind = item.get("type", "no type") if isinstance(item, dict) else type(item).__name__
        raise SourceError(f"{path}: neither an image nor a STAC item, but {kind}; give a Feature with assets")
    return item


def _lists_items(value: Mapping[str, Any]) -> bool:
    features = value.get("features")
    members = features if isinstance(features, list) else []
    return value.get("type") in ("Catalog", "Collection") or any(
        isinstance(member, dict) and "assets" in member for member in members
    )


def _is_measured(key: str, asset: Mapping[str, Any]) -> bool:
    """Whether an asset holds measurements: an image, no picture, no mask, no metadata."""
    roles = set(asset.get("roles") or ["data"])
    suffix = Path(urlsplit(str(asset.get("href", ""))).path).suffix.lower()
    image = suffix in _SUFFIXES or str(asset.get("type", "")).startswith(("image/tiff", "image/jp2"))
    picture = key.lower() in _PICTURES or roles & _PICTURES
    return bool(image and roles & _MEASURED and not picture)


def _bands(asset: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Bands of an asset, each with the entries of all lists that describe it."""
    named: Sequence[Mapping[str, Any]] = asset.get("bands") or asset.get("eo:bands") or []
    raster: Sequence[Mapping[str, Any]] = asset.get("raster:bands") or []
    stored = [*raster, *({} for _ in named)]
    return [{**asset, **stored[k], **band} for k, band in enumerate(named)]


def _name(band: Mapping[str, Any]) -> str | None:
    """Common name of a band, of a red edge by its wavelength; else the sensor's own name."""
    common = band.get("eo:common_name") or band.get("common_name")
    if common == "rededge":
        centre = float(band.get("eo:center_wavelength") or band.get("center_wavelength") or 0)
        common = next((name for name, (low, high) in _RED_EDGES.items() if low <= centre < high), None)
        if common is None and 0.85 <= centre < 0.88:
            common = "nir08"  # the name of Sentinel-2's B8A in older items
    name = common or band.get("name")
    return str(name) if name else None


def _assets(path: str, item: Mapping[str, Any]) -> Iterator[_Asset]:
    """Assets that hold measured bands with names; `path` is the file of the item."""
    for key, asset in item["assets"].items():
        bands = _bands(asset) if _is_measured(key, asset) else []
        if not any(map(_name, bands)):
            continue
        file = SceneFile(
            path=_place(path, item, str(asset["href"])),
            names=tuple(map(_name, bands)),
            scales=tuple(_number(band, "scale") for band in bands),
            offsets=tuple(_number(band, "offset") for band in bands),
            nodata=_number(bands[0], "nodata"),
        )
        yield _Asset(key, _gsd(bands[0], item), file)


def _unnamed(path: str, item: Mapping[str, Any]) -> Iterator[SceneFile]:
    """Files of measurements without names of bands in the item: the files' own names are used, or the keys."""
    for key, asset in item["assets"].items():
        if _is_measured(key, asset):
            bands = [{**asset, **band} for band in asset.get("raster:bands") or [{}]]
            scales, offsets = (tuple(_number(band, field) for band in bands) for field in ("scale", "offset"))
            place = _place(path, item, str(asset["href"]))
            yield SceneFile(place, (), scales, offsets, _number(bands[0], "nodata"), key)


def _gsd(band: Mapping[str, Any], item: Mapping[str, Any]) -> float | None:
    """Pixel size in the item's unit, mostly metres: of the band, of its asset, or of the whole item."""
    transform = band.get("proj:transform")
    places = (
        *(band.get(key) for key in ("spatial_resolution", "raster:spatial_resolution", "gsd")),
        abs(transform[0]) if transform else None,
        (item.get("properties") or {}).get("gsd"),
    )
    return next((float(size) for size in places if size is not None), None)


def _number(band: Mapping[str, Any], key: str) -> float | None:
    number = band.get(f"raster:{key}", band.get(key))
    return None if number is None else float(number)


def _place(path: str, item: Mapping[str, Any], href: str) -> str:
    """Path of an asset: beside the item, or beside the address that the item gives for itself."""
    target = linked(path, href)
    if opened_by_gdal(target) or os.path.isabs(href) or os.path.exists(target):
        return target
    itself = next((link.get("href", "") for link in item.get("links", []) if link.get("rel") == "self"), "")
    return linked(itself, href) if is_address(itself) else target


def _without_twins(assets: Iterator[_Asset]) -> tuple[list[SceneFile], list[str]]:
    """Each band once, from its finest file; bands of equal rank keep the key of their asset: `B04_20m.red`."""
    kept: list[_Asset] = []
    notes = []
    for asset in assets:
        twins = [other for other in kept if _shared(other, asset)]
        better = next((other for other in twins if _is_better(other, asset)), None)
        worse = [other for other in twins if better is None and _is_better(asset, other)]
        notes += [_left_out(one, better or asset) for one in (worse if better is None else [asset])]
        kept = [one for one in kept if one not in worse] + ([asset] if better is None else [])
    counts = Counter(name for asset in kept for name in asset.file.names if name)
    double = [name for name, count in counts.items() if count > 1]
    if double:
        keys = ", ".join(asset.key for asset in kept if set(double) & set(asset.file.names))
        notes.append(f"{', '.join(double)} come from {keys} alike, and keep those names before theirs")
    return [_with_key(asset, double) for asset in kept], notes


def _shared(one: _Asset, two: _Asset) -> set[str | None]:
    return set(one.file.names) & set(two.file.names) - {None}


def _is_better(one: _Asset, two: _Asset) -> bool:
    """Whether an asset is finer; if equal, has fewer bands, or is GeoTIFF before JPEG 2000, or is the same file."""
    if one.gsd is not None and two.gsd is not None and one.gsd != two.gsd:
        return one.gsd < two.gsd
    ranks = [(len(asset.file.names), asset.jp2) for asset in (one, two)]
    return ranks[0] < ranks[1] or one.file.path == two.file.path


def _left_out(asset: _Asset, better: _Asset) -> str:
    twins = ", ".join(sorted(map(str, _shared(asset, better))))
    return f"{asset.file.path} is left out: {twins} also come from another file"


def _with_key(asset: _Asset, double: Sequence[str]) -> SceneFile:
    names = (f"{asset.key}.{name}" if name in double else name for name in asset.file.names)
    return replace(asset.file, names=tuple(names))


def _with_nir(files: Sequence[SceneFile], notes: list[str]) -> list[SceneFile]:
    """Files whose only near infrared is called `nir`, as models call it: Landsat's is `nir08` in STAC."""
    names = [name for file in files for name in file.names]
    if "nir" in names or "nir08" not in names:
        return list(files)
    notes.append("nir08, the only near-infrared band, is called nir")
    renamed = (tuple("nir" if name == "nir08" else name for name in file.names) for file in files)
    return [replace(file, names=names) for file, names in zip(files, renamed, strict=True)]
