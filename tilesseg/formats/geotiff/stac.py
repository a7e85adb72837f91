"""STAC items: which assets hold measured bands, and what they are called.

Versions 1.0 (`eo:bands` and `raster:bands`) and 1.1 (`bands`) of the specification alike.
"""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

from tilesseg.errors import SourceError
from tilesseg.formats.geotiff.scene_files import SceneFile, SceneFiles

_SUFFIXES = (".tif", ".tiff", ".jp2", ".vrt", ".img")
_PICTURES = {"visual", "tci", "preview", "rendered_preview", "overview", "thumbnail", "browse"}
_MEASURED = {"data", "reflectance", "temperature", "radiance", "backscatter", "amplitude"}
_RED_EDGES = {"rededge071": (0.69, 0.73), "rededge075": (0.73, 0.76), "rededge078": (0.76, 0.8)}
_TIMEOUT = 60.0  # seconds


def find_stac(path: str) -> SceneFiles | None:
    """The bands of a STAC item, or None where the path does not name one.

    Raises:
        SourceError: the item cannot be read, or no asset of it holds named bands.
    """
    item = _load(path)
    if item is None:
        return None
    assets = {key: asset for key, asset in item.get("assets", {}).items() if _is_measured(key, asset)}
    files, notes = _without_twins(_files(path, item, assets))
    if not files:
        raise SourceError(f"{path}: a STAC item without an asset whose bands have names, at least one needed")
    there = [file for file in files if "://" in file.path or file.path.startswith("/vsi") or Path(file.path).exists()]
    if not there:
        raise SourceError(f"{path}: none of the item's {len(files)} files is there; the first is {files[0].path}")
    missing = [str(file.names[0]) for file in files if file not in there]
    notes += [f"the files of {', '.join(missing)} are not there: left out"] if missing else []
    return SceneFiles(path, tuple(_with_nir(there, notes)), tuple(notes))


def _load(path: str) -> dict[str, Any] | None:
    """The item, where the path is one."""
    url = urlsplit(path)
    if url.scheme in ("http", "https"):
        if not (url.path.endswith((".json", ".geojson")) or "/items/" in url.path):
            return None
    elif not path.lower().endswith((".json", ".geojson")) or not Path(path).is_file():
        return None
    try:
        text = _fetched(path) if url.scheme in ("http", "https") else Path(path).read_bytes()
        item = json.loads(text)
    except (OSError, ValueError) as error:
        raise SourceError(f"{path}: cannot be read as a STAC item: {' '.join(str(error).split())}") from error
    if not isinstance(item, dict) or item.get("type") != "Feature" or not isinstance(item.get("assets"), dict):
        kind = item.get("type", "no type") if isinstance(item, dict) else type(item).__name__
        raise SourceError(f"{path}: not an image and not a STAC item: {kind}, a Feature with assets needed")
    return item


def _fetched(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=_TIMEOUT) as answer:
        content: bytes = answer.read()
        return content


def _is_measured(key: str, asset: Mapping[str, Any]) -> bool:
    """Whether an asset holds measured bands with names: no picture, no mask, no metadata."""
    roles = set(asset.get("roles") or ["data"])
    suffix = Path(urlsplit(str(asset.get("href", ""))).path).suffix.lower()
    image = suffix in _SUFFIXES or str(asset.get("type", "")).startswith(("image/tiff", "image/jp2"))
    picture = key.lower() in _PICTURES or roles & _PICTURES
    return bool(image and roles & _MEASURED and not picture and any(_name(band) for band in _bands(asset)))


def _bands(asset: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The asset's bands, each with everything said of it in one place or another."""
    named: Sequence[Mapping[str, Any]] = asset.get("bands") or asset.get("eo:bands") or []
    raster = asset.get("raster:bands") or [{}] * len(named)
    return [{**asset, **stored, **band} for band, stored in zip(named, raster, strict=False)]


def _name(band: Mapping[str, Any]) -> str | None:
    """The common name, the red edges told apart by their wavelength; else the sensor's own."""
    common = band.get("eo:common_name") or band.get("common_name")
    if common == "rededge":
        centre = float(band.get("eo:center_wavelength") or band.get("center_wavelength") or 0)
        common = next((name for name, (low, high) in _RED_EDGES.items() if low <= centre < high), None)
        if common is None and 0.85 <= centre < 0.88:
            common = "nir08"  # as older items call Sentinel-2's B8A
    found = common or band.get("name")
    return str(found) if found else None


def _files(path: str, item: Mapping[str, Any], assets: Mapping[str, Mapping[str, Any]]) -> Iterator[SceneFile]:
    for asset in assets.values():
        bands = _bands(asset)
        yield SceneFile(
            path=_place(path, item, str(asset["href"])),
            names=tuple(map(_name, bands)),
            scales=tuple(_number(band, "scale") for band in bands),
            offsets=tuple(_number(band, "offset") for band in bands),
            nodata=_number(bands[0], "nodata"),
        )


def _number(band: Mapping[str, Any], what: str) -> float | None:
    found = band.get(f"raster:{what}", band.get(what))
    return None if found is None else float(found)


def _place(path: str, item: Mapping[str, Any], href: str) -> str:
    """An asset's file: beside the item, or where the item says that it itself is."""
    if "://" in href or href.startswith(("/vsi", "/")):
        return href.removeprefix("file://")
    if "://" in path:
        return urljoin(path, href)
    beside = Path(path).parent / href
    itself = next((link.get("href", "") for link in item.get("links", []) if link.get("rel") == "self"), "")
    return urljoin(itself, href) if "://" in itself and not beside.exists() else str(beside)


def _without_twins(found: Iterator[SceneFile]) -> tuple[list[SceneFile], list[str]]:
    """Each band once: GeoTIFF before JPEG 2000, files of one band before those of several."""
    files, notes = list(found), []
    best: list[SceneFile] = []
    for file in sorted(files, key=lambda file: (len(file.names), urlsplit(file.path).path.lower().endswith(".jp2"))):
        twins = {name for other in best for name in other.names} & set(file.names)
        if twins:
            notes.append(f"{file.path} is left out: {', '.join(sorted(map(str, twins)))} also come from another file")
        else:
            best.append(file)
    return sorted(best, key=files.index), notes


def _with_nir(files: Sequence[SceneFile], notes: list[str]) -> list[SceneFile]:
    """Landsat's near infrared is `nir08` in STAC, and `nir` to whoever makes models."""
    names = [name for file in files for name in file.names]
    if "nir" in names or "nir08" not in names:
        return list(files)
    notes.append("nir08, the only near-infrared band, is called nir")
    return [
        SceneFile(
            file.path,
            tuple("nir" if name == "nir08" else name for name in file.names),
            file.scales,
            file.offsets,
            file.nodata,
        )
        for file in files
    ]
