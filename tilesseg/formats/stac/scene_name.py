"""What a scene is called: by its file or folder, or by the id of a STAC item, whose file is often just `item.json`."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import urlsplit

from tilesseg.formats.stac.stac_items import split_member

_NO_NAMES = {"item", "stac", "metadata"}
_JSON = (".json", ".geojson")


def scene_name(path: str) -> str:
    """A name for the image at a path or URL, without its suffixes; reads nothing but local JSON."""
    path, member = split_member(path)
    if member:
        return safe_name(member) or "scene"
    remote = "://" in path
    place = Path(urlsplit(path).path if remote else path)
    item = place.suffix.lower() in _JSON
    if item and not remote and (found := _item_id(place)):
        return found
    whole = item or (remote and place.parent.name == "items")  # an id may have dots
    stem = safe_name(place.name.removesuffix(place.suffix if item else "")) if whole else _stem(place)
    told = stem not in _NO_NAMES or not place.suffix
    return (stem if told else place.parent.name or stem) or "scene"


def safe_name(identity: str) -> str:
    """An id as a folder may be called; may be empty."""
    return "".join(sign if sign.isalnum() or sign in "-_." else "_" for sign in identity).strip(".")


def _stem(place: Path) -> str:
    return place.name.partition(".")[0] or "scene"


def _item_id(place: Path) -> str | None:
    """The id of an item; what is wrong with the file is said when it is opened."""
    try:
        item = json.loads(place.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return safe_name(str(item.get("id") or "")) or None if isinstance(item, dict) else None
