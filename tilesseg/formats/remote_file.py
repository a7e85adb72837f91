"""State of a file behind an address, from the answer to a request for its first byte.

A request for the headers alone (HEAD) is cheaper, but an address that is signed for reading may refuse it.
"""

from __future__ import annotations

from base64 import b64encode
from http.client import HTTPException
from typing import Any
from urllib.parse import unquote, urlsplit
from urllib.request import Request, urlopen

from tilesseg.paths import quote_blanks

TIMEOUT = 20.0
"""Seconds that a server has for its answer."""
_JSON = (".json", ".geojson")


def address_state(address: str) -> list[Any] | None:
    """`[size, ETag, Last-Modified]` of the file behind an http or https address, each None where the server has none.

    None where nothing is known: the server does not answer, refuses, or makes a JSON anew for each request.
    """
    parts = urlsplit(quote_blanks(address.partition("#")[0]))
    request = Request(parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl())
    request.add_header("Range", "bytes=0-0")
    request.add_header("Accept-Encoding", "identity")
    if parts.username is not None:
        user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        request.add_header("Authorization", f"Basic {b64encode(user.encode()).decode()}")
    try:
        with urlopen(request, timeout=TIMEOUT) as answer:
            state = [_size(answer), answer.headers["ETag"], answer.headers["Last-Modified"]]
    except (OSError, HTTPException, ValueError):
        return None
    made = parts.path.lower().endswith(_JSON) or "/items/" in parts.path
    return None if state[1:] == [None, None] and (made or state[0] is None) else state


def _size(answer: Any) -> int | None:
    """Size of the whole file, of which the answer is one byte, or all of it."""
    text = answer.headers["Content-Range" if answer.status == 206 else "Content-Length"] or ""
    size = text.rpartition("/")[2]
    return int(size) if size.isdecimal() else None
