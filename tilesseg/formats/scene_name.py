"""What a scene is called: by its file or folder, or by the id of a STAC item, whose file is often just `item.json`."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import urlsplit

_NO_NAMES = {"item", "stac", "metadata"}


def scene_name(path: str) -> str:
    """A name for the image at a path or URL, without its suffixes; reads nothing but local JSON."""
    place = Path(urlsplit(path).path if "://" in path else path)
    if "://" not in path and place.suffix.lower() in (".json", ".geojson"):
        return _item_id(place) or _stem(place)
    stem = _stem(place)
    return place.parent.name if stem in _NO_NAMES and place.suffix and place.parent.name else stem


def _stem(place: Path) -> str:
    return place.name.partition(".")[0] or "scene"


def _item_id(place: Path) -> str | None:
    """The id as a folder may be called; what is wrong with the file is said when it is opened."""
    try:
        item = json.loads(place.read_bytes())
    except (OSError, ValueError):
        return None
    identity = str(item.get("id") or "") if isinstance(item, dict) else ""
    return "".join(sign if sign.isalnum() or sign in "-_." else "_" for sign in identity).strip(".") or None
