"""Name of a scene: from its file or folder, or from the id of a STAC item, whose file is often just `item.json`."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import urlsplit

from tilesseg.formats.stac.stac_items import split_member

_NO_NAMES = {"item", "stac", "metadata"}
_JSON = (".json", ".geojson")


def scene_name(path: str) -> str:
    """Name for the image at a path or URL, without its suffixes; only local JSON is read."""
    path, member = split_member(path)
    if member:
        return safe_name(member) or "scene"
    remote = "://" in path
    place = Path(urlsplit(path).path if remote else path)
    item = place.suffix.lower() in _JSON
    if item and not remote and (identity := _item_id(place)):
        return identity
    whole = item or (remote and place.parent.name == "items")  # an id may have dots
    stem = safe_name(place.name.removesuffix(place.suffix if item else "")) if whole else _stem(place)
    named = stem not in _NO_NAMES or not place.suffix
    return (stem if named else place.parent.name or stem) or "scene"


def safe_name(identity: str) -> str:
    """An id as the name of a folder; may be empty."""
    return "".join(sign if sign.isalnum() or sign in "-_." else "_" for sign in identity).strip(".")


def _stem(place: Path) -> str:
    return place.name.partition(".")[0] or "scene"


def _item_id(place: Path) -> str | None:
    """Id of an item; a file that cannot be read is refused when it is opened."""
    try:
        item = json.loads(place.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return safe_name(str(item.get("id") or "")) or None if isinstance(item, dict) else None
