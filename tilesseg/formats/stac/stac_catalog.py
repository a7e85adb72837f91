"""Items of a STAC collection, catalog or item collection: their paths and names. Their files are not opened.

Links are followed from one JSON to the next; each is read once, so that links in a circle end. A fault of the
collection itself is refused here, a fault of one of its items when that item is opened.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import urljoin, urlsplit

from tilesseg.errors import SourceError, cannot
from tilesseg.formats.stac.stac_items import Member, linked, outline, read_bytes, scene_name, split_member
from tilesseg.paths import is_address, quote_blanks

_SUFFIXES = (".json", ".geojson")
_LISTS = re.compile(r"/(items|search|collections/[^/.]+)/?$")
"""Addresses of an API whose answers hold many items."""
_FOLLOWED = {"item": ("item",), "Catalog": ("child",), "Collection": ("child",), "FeatureCollection": ("next",)}


class Item(NamedTuple):
    """An item: its name as a scene, and its path."""

    name: str
    path: str


def find_items(path: str) -> list[Item] | None:
    """The items that a JSON file or address lists, or None where it does not list any: one item, or no STAC at all.

    Raises:
        SourceError: it, or a catalog or page that it leads to, cannot be read, or there are no items.
    """
    if split_member(path)[1] or not _may_list(path):
        return None
    try:
        values, members = outline(read_bytes(path))
    except (OSError, ValueError) as error:
        if _is_api(path):
            raise SourceError(cannot(f"read {path} as STAC", error, "correct the address or try again")) from error
        return None  # the refusal comes when it is opened as an image
    if values.get("type") not in ("Catalog", "Collection", "FeatureCollection"):
        return None
    items = list(_walk(path if is_address(path) else os.path.abspath(path), values, members))
    if not items:
        raise SourceError(
            cannot(f"take {path} as scenes", f"a STAC {values['type']} without items", "give another one")
        )
    return items


def _may_list(path: str) -> bool:
    if is_address(path):
        return urlsplit(path).path.lower().endswith(_SUFFIXES) or _is_api(path)
    return path.lower().endswith(_SUFFIXES) and os.path.isfile(path)


def _is_api(path: str) -> bool:
    return is_address(path) and _LISTS.search(urlsplit(path).path) is not None


def _walk(place: str, values: Mapping[str, Any], members: list[Member]) -> Iterator[Item]:
    """Depth first, in the order of the links: a catalog's own items before those of its children."""
    visited = {_known_as(place)}
    yield from _own_items(place, values, members, visited)
    pending = list(_further(place, values))[::-1]
    while pending:
        place, parent = pending.pop()
        if _known_as(place) in visited:
            continue
        visited.add(_known_as(place))
        values, members = _read(place, parent)
        if values.get("type") == "Feature":  # an item linked as if it were a catalog
            yield Item(scene_name(place), place)
            continue
        yield from _own_items(place, values, members, visited)
        pending += list(_further(place, values))[::-1]


def _read(place: str, parent: str) -> tuple[dict[str, Any], list[Member]]:
    try:
        return outline(read_bytes(place))
    except (OSError, ValueError) as error:
        raise SourceError(
            cannot(f"read {place} as STAC, to which {parent} links", error, "correct the link")
        ) from error


def _own_items(place: str, values: Mapping[str, Any], members: list[Member], visited: set[str]) -> Iterator[Item]:
    """The items that a JSON holds, and those that it links to."""
    if members and not any(member.assets for member in members):
        raise SourceError(f"{place}: no image and no STAC item, but FeatureCollection; give a Feature with assets")
    known: set[str] = set()
    for member in members:
        if member.identity in known:
            raise SourceError(f"{place}: two items have the id {member.identity}; give each its own")
        known.add(member.identity)
        itself = is_address(place) and is_address(member.itself)  # read alone rather than with all the others
        path = member.itself if itself else f"{place}#{member.identity}"
        yield Item(scene_name(f"{place}#{member.identity}"), path)
    for href in _links(values, ("item",)):
        path = _joined(place, href)
        if _known_as(path) not in visited:
            visited.add(_known_as(path))
            yield Item(scene_name(path), path)


def _further(place: str, values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Catalogs below a catalog, or pages after a page, each with the place that links to it."""
    kind = str(values.get("type"))
    if kind == "FeatureCollection":
        by_post = any(link.get("rel") == "next" and link.get("method", "GET") != "GET" for link in _all_links(values))
        if by_post:
            raise SourceError(f"{place}: its next page needs a POST request, not GET; save all items as one file")
    links = list(_links(values, _FOLLOWED.get(kind, ())))
    if kind == "Collection" and not links and not any(_links(values, ("item",))):
        links = list(_links(values, ("items",)))  # the link of an API
    yield from ((_joined(place, href), place) for href in links)


def _links(values: Mapping[str, Any], relations: Sequence[str]) -> Iterator[str]:
    return (str(link["href"]) for link in _all_links(values) if str(link.get("rel")) in relations and link.get("href"))


def _all_links(values: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    links = values.get("links")
    return (link for link in links if isinstance(link, dict)) if isinstance(links, list) else iter(())


def _joined(place: str, href: str) -> str:
    """Target of a link. A link of another machine never leads to a file of this one."""
    if is_address(place):
        target = urljoin(place, quote_blanks(href))
        if not is_address(target):
            raise SourceError(f"{place} links to {href}, no address that begins with http; correct the link")
        return target
    try:
        target = linked(place, href)
    except ValueError as error:
        raise SourceError(cannot(f"follow a link of {place}", error, "correct the link")) from None
    return target if is_address(target) else os.path.normpath(target)


def _known_as(place: str) -> str:
    return place if is_address(place) else os.path.realpath(place)
