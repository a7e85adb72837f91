"""Names of the classes of a mask, as our products carry them: COG, OME-TIFF and OME-Zarr."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from xml.etree import ElementTree

from tilesseg.formats.cog.cog_layers import NAMESPACE
from tilesseg.raster.labels import FAILED


def mask_classes(path: str) -> tuple[str, ...] | None:
    """Names of the classes 0 … n − 1 of a mask, or None where the file does not say them."""
    names = _of_zarr(path) if os.path.isdir(path) else _of_tiff(path)
    count = next(number for number in range(FAILED + 1) if number not in names)
    return tuple(names[number] for number in range(count)) if count >= 2 else None


def _of_tiff(path: str) -> Mapping[int, str]:
    """Names in the tags of a COG, or in the OME-XML of an OME-TIFF."""
    import tifffile

    try:
        with tifffile.TiffFile(path) as tiff:
            tags = tiff.pages.first.tags
            texts = [str(tags[code].value) for code in ("ImageDescription", "GDAL_METADATA") if code in tags]
    except (OSError, ValueError, tifffile.TiffFileError):
        return {}
    return {label: name for text in texts for label, name in _of_xml(text)}


def _of_xml(text: str) -> list[tuple[int, str]]:
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError:
        return []
    tags = re.compile(f"{re.escape(NAMESPACE)}CLASS_([0-9]+)")
    items = [(tags.fullmatch(item.get("name", "")), item.text or "") for item in root.iter("Item")]
    named = [(int(match[1]), name) for match, name in items if match]
    for note in root.iter():
        pairs = {each.get("K"): each.text or "" for each in note if each.tag.endswith("}M")}
        if {"label", "name"} <= pairs.keys():
            named.append((int(pairs["label"]), pairs["name"]))
    return named


def _of_zarr(path: str) -> Mapping[int, str]:
    import zarr
    from zarr.errors import BaseZarrError

    try:
        attributes = dict(zarr.open_group(path, mode="r").attrs)
    except (BaseZarrError, OSError, ValueError):
        return {}
    properties = [
        each
        for holder in (attributes, attributes.get("ome"))
        if isinstance(holder, dict) and isinstance(label := holder.get("image-label"), dict)
        for each in label.get("properties", [])
    ]
    return {each["label-value"]: each["class"] for each in properties if "class" in each}
