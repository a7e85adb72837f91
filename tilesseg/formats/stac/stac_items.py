"""JSON of STAC, from a file or an https address, and a single item among the thousands of an item collection.

Such an item has no file of its own. It is named `items.json#id`, so that a worker can open it from its path alone;
its place in the file is determined once per process, and only its own bytes are read then. `scene_name` names a
scene by its file, folder or item.
"""

from __future__ import annotations

import codecs
import hashlib
import json
import os
import re
import urllib.request
from functools import lru_cache
from http.client import HTTPException
from pathlib import Path
from typing import Any, NamedTuple
from urllib.error import HTTPError
from urllib.parse import unquote, urljoin, urlsplit

from tilesseg.errors import joined_lines
from tilesseg.paths import decoded, is_address, name_of, opened_by_gdal, place, quote_blanks

_NO_NAMES = {"item", "stac", "metadata"}
SUFFIXES = {
    "tif", "tiff", "btf", "tf8", "cog", "jp2", "j2k", "jpx", "vrt", "img", "png", "jpg", "jpeg", "bmp",
    "webp", "gif", "hdr", "bil", "bip", "bsq", "bin", "raw", "dat", "ers", "ecw", "sid", "nc", "nc4", "hdf",
    "hdf4", "hdf5", "h4", "h5", "he5", "grib", "grb", "grb2", "asc", "kea", "gpkg", "mbtiles", "pix", "rst",
    "ntf", "nitf", "hgt", "safe", "sen3", "zarr", "ozx", "ome", "companion", "svs", "ndpi", "mrxs", "scn",
    "vms", "vmu", "bif", "svslide", "dcm", "dicom", "czi", "qptiff", "lif", "nd2", "ims", "oib", "oif", "vsi",
    "isyntax", "json", "geojson", "xml", "zip", "gz", "tar", "tgz",
}  # fmt: skip
"""Suffixes of formats, without their dots: they are no part of a scene's name."""
_JSON = (".json", ".geojson")
_TIMEOUT = 60.0  # seconds
_DECODER = json.JSONDecoder()
_SPACE = re.compile(r"[ \t\r\n]*")
_LOCAL_MEMBER = re.compile(r"(.+?\.(?:geo)?json)#(.+)", re.IGNORECASE | re.DOTALL)


class Member(NamedTuple):
    """An item among the `features` of a file: its bytes from `start` to `stop`, and its id."""

    start: int
    stop: int
    identity: str
    itself: str
    """Its own address, by its link `self`; may be empty."""
    assets: bool


def split_member(path: str) -> tuple[str, str]:
    """Path of the file, and id of the item in it: empty where the path names a whole file."""
    if is_address(path):
        place, _, member = path.partition("#")
        return place, member
    match = _LOCAL_MEMBER.fullmatch(path)
    return (match[1], match[2]) if match and not os.path.exists(path) else (path, "")


def names_item(path: str) -> bool:
    """Whether a path or address looks like that of a STAC item; nothing is opened."""
    place, member = split_member(path)
    if is_address(place):
        place = urlsplit(place).path
        return bool(member) or "/items/" in place or place.lower().endswith((".json", ".geojson"))
    return place.lower().endswith((".json", ".geojson")) and os.path.isfile(place)


def read_item(path: str) -> Any:
    """Content of the JSON at a path, or of the member of an item collection that it names.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not JSON, or the file has no such item.
    """
    place, member = split_member(path)
    return parse_json(member_bytes(path) if member else read_bytes(place))


def read_bytes(place: str) -> bytes:
    """The content of a file, or the answer of an address.

    Raises:
        OSError: the file cannot be read.
    """
    return _fetched(place) if is_address(place) else Path(place).read_bytes()


def member_bytes(path: str) -> bytes:
    """The bytes of one item of an item collection.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not JSON, or has no such item.
    """
    place, member = split_member(path)
    if is_address(place):
        data = _fetched(place)
        item = _find({entry.identity: entry for entry in outline(data)[1]}, member)
        return data[item.start : item.stop]
    state = Path(place).stat()
    item = _find(_index(place, state.st_size, state.st_mtime_ns), member)
    with open(place, "rb") as file:
        file.seek(item.start)
        return file.read(item.stop - item.start)


def member_state(path: str) -> list[int] | None:
    """`[size, part of its SHA-256]` of an item in a local collection, without its other items; None if it is gone."""
    if is_address(path) or not split_member(path)[1]:
        return None
    try:
        data = member_bytes(path)
    except (OSError, ValueError):
        return None
    return [len(data), int.from_bytes(hashlib.sha256(data).digest()[:6], "big")]


def outline(data: bytes) -> tuple[dict[str, Any], list[Member]]:
    """Own values of a JSON object, and id and place of each of its `features`.

    So a collection of many items needs little more memory than its file.

    Raises:
        ValueError: this is not a JSON object.
    """
    text = data.decode("latin-1")  # so that positions are those of bytes
    values: dict[str, Any] = {}
    members: list[Member] = []
    at = _after(text, 3 if data.startswith(codecs.BOM_UTF8) else 0, "{")
    while _sign(text, at) != "}":
        key, _, at = _value(text, at)
        at = _after(text, at, ":")
        if key == "features" and _sign(text, at) == "[":
            at = _features(text, _after(text, at, "["), members)
        else:
            values[key], _, at = _value(text, at)
        at = _next(text, at, "}")
    return values, members


def _features(text: str, at: int, members: list[Member]) -> int:
    """Collect the elements of an array, and return the place of its end."""
    while _sign(text, at) != "]":
        item, start, at = _value(text, at)
        members.append(Member(start, at, *_member_facts(item, len(members) + 1)))
        at = _next(text, at, "]")
    return _after(text, at, "]")


def _member_facts(item: Any, number: int) -> tuple[str, str, bool]:
    """Id, own address and whether there are assets; an item without a usable id is named by its number."""
    if not isinstance(item, dict):
        return f"item-{number}", "", False
    links = item.get("links")
    own = (link for link in links if isinstance(link, dict)) if isinstance(links, list) else ()
    itself = next((str(link.get("href", "")) for link in own if link.get("rel") == "self"), "")
    identity = str(item.get("id") or "")
    named = identity if identity.isprintable() and identity else f"item-{number}"
    return named, itself, isinstance(item.get("assets"), dict)


def _value(text: str, at: int) -> tuple[Any, int, int]:
    """The value at a position, with its begin and end."""
    start = _skip(text, at)
    value, stop = _decode(text, start)
    part = text[start:stop]
    return (value if part.isascii() else json.loads(part.encode("latin-1"))), start, stop


def _decode(text: str, at: int) -> tuple[Any, int]:
    try:
        return _DECODER.raw_decode(text, at)
    except RecursionError:
        raise ValueError(f"nested too deeply at byte {at}") from None


def _skip(text: str, at: int) -> int:
    space = _SPACE.match(text, at)
    return space.end() if space else at


def _sign(text: str, at: int) -> str:
    """The next sign that is no space; empty at the end."""
    at = _skip(text, at)
    return text[at : at + 1]


def _after(text: str, at: int, sign: str) -> int:
    if _sign(text, at) != sign:
        raise ValueError(f"{sign} expected at byte {_skip(text, at)}")
    return _skip(text, at) + 1


def _next(text: str, at: int, end: str) -> int:
    """Past a comma, or before the end."""
    return at if _sign(text, at) == end else _after(text, at, ",")


@lru_cache(maxsize=8)
def _index(place: str, size: int, mtime: int) -> dict[str, Member]:
    """Place of each item in a file; `size` and `mtime` identify the version of the file."""
    return {member.identity: member for member in outline(Path(place).read_bytes())[1]}


def _find(members: dict[str, Member], identity: str) -> Member:
    if identity not in members:
        raise ValueError(f"no item with the id {identity} among its {len(members)}")
    return members[identity]


def linked(base: str, href: str) -> str:
    """Target of a link of a STAC item or catalog: its `href` is a part of an address, where a blank is `%20`.

    Raises:
        ValueError: the link leads nowhere.
    """
    if is_address(base) and not (opened_by_gdal(href) or href.startswith(("/", "file:"))):
        return urljoin(base, quote_blanks(href))
    if opened_by_gdal(href) or href[:5].lower() == "file:":
        return place(href).text
    folder = os.path.dirname(base)
    return str(Path(folder, decoded(href, lambda path: os.path.lexists(os.path.join(folder, path)))))


def parse_json(data: bytes) -> Any:
    """Content of JSON.

    Raises:
        ValueError: the data are no JSON.
    """
    try:
        return json.loads(data)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _fetched(url: str) -> bytes:
    try:
        with urllib.request.urlopen(quote_blanks(url), timeout=_TIMEOUT) as answer:
            content: bytes = answer.read()
    except HTTPError as error:
        error.close()
        raise
    except HTTPException as error:  # an answer that ends too early, or is none
        raise OSError(joined_lines(error)) from error
    return content


def scene_name(path: str) -> str:
    """Name for the image at a path or URL, without its suffixes; only local JSON is read."""
    path, member = split_member(path)
    if member:
        return safe_name(member) or "scene"
    remote = opened_by_gdal(path)
    at = _remote_name(path) if remote else Path(path)
    item = at.suffix.lower() in _JSON
    if item and not remote and (identity := _item_id(at)):
        return identity
    whole = item or (remote and at.parent.name == "items")  # an id may have dots
    stem = safe_name(at.name.removesuffix(at.suffix if item else "")) if whole else _stem(at)
    named = stem not in _NO_NAMES or not at.suffix
    return (stem if named else at.parent.name or stem) or "scene"


def _remote_name(path: str) -> Path:
    """Path of an address; of an image in a container the name of the file, then that of the image: `scene-red.nc`."""
    if is_address(path):
        return Path(unquote(urlsplit(path).path))
    name, *inside = name_of(path).split(":")
    return Path(name).with_stem("-".join([Path(name).stem, *inside])) if name else Path("scene")


def safe_name(identity: str) -> str:
    """An id as the name of a folder; may be empty."""
    return "".join(sign if sign.isalnum() or sign in "-_." else "_" for sign in identity).strip(".")


def _stem(place: Path) -> str:
    """Name of a file without the suffixes of formats: any other part of it after a dot belongs to it."""
    stem = place.name
    while (parts := stem.rpartition("."))[0] and parts[2].lower() in SUFFIXES:
        stem = parts[0]
    return stem.strip(".") or "scene"


def _item_id(place: Path) -> str | None:
    """Id of an item; a file that cannot be read is refused when it is opened."""
    try:
        item = json.loads(place.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return safe_name(str(item.get("id") or "")) or None if isinstance(item, dict) else None
