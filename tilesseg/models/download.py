"""Bundles fetched once over https into the user's cache, each file checked against its sha256 before it appears.

The address names a `model.yaml` and its sha256. The weights lie beside it on the server, and the spec holds their
sha256: so the hash in the address covers all files.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from typing import BinaryIO
from urllib.error import HTTPError
from urllib.parse import urldefrag, urljoin, urlsplit
from urllib.request import urlopen

from tilesseg.errors import ModelError
from tilesseg.models.spec import read_spec

TIMEOUT = 60.0
"""Seconds without a byte before a download is given up."""
PIECE = 1 << 20


def cache_folder() -> Path:
    """Folder of fetched bundles: `TILESSEG_CACHE`, else `tilesseg` in the user's cache folder."""
    chosen = os.environ.get("TILESSEG_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    users = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA") or Path.home() / ".cache"
    return Path(users) / "tilesseg"


def fetch_bundle(address: str, *, schemes: Sequence[str] = ("https",)) -> Path:
    """Fetch a bundle into the cache, unless it is there already; returns the folder of its `model.yaml`.

    Args:
        address: `https://…/model.yaml#sha256=<64 hex digits>`.
        schemes: schemes that the address may have.

    Raises:
        ModelError: the address has another scheme or no sha256, cannot be reached, or gives a file of another sha256.
    """
    url, sha256 = _parse(address, schemes)
    folder = cache_folder() / "models" / sha256
    _fetch(url, sha256, folder / "model.yaml")
    weights = read_spec(folder / "model.yaml").weights
    if weights is not None and weights.package is None:
        if PurePosixPath(weights.file).name != weights.file or "\\" in weights.file:
            raise ModelError(
                f"{url} has its weights in {weights.file!r}, not beside itself; put them beside model.yaml"
            )
        _fetch(urljoin(url, weights.file), weights.sha256, folder / weights.file)
    return folder


def _parse(address: str, schemes: Sequence[str]) -> tuple[str, str]:
    url, fragment = urldefrag(address)
    scheme = urlsplit(url).scheme
    if scheme not in schemes:
        raise ModelError(f"{url} begins with {scheme}://; give an address that begins with {' or '.join(schemes)}://")
    if not urlsplit(url).path.endswith((".yaml", ".yml")):
        raise ModelError(f"{url} is not a model.yaml; give the address of the spec, the weights lie beside it")
    name, _, sha256 = fragment.partition("=")
    if name != "sha256" or len(sha256) != 64 or set(sha256.lower()) - set("0123456789abcdef"):
        raise ModelError(f"{url} has no sha256; write {url}#sha256=<64 hex digits of the model.yaml>")
    return url, sha256.lower()


def _fetch(url: str, sha256: str, path: Path) -> None:
    if path.is_file():
        return  # it was checked when it was written, and the weights are checked again before loading
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, partial = tempfile.mkstemp(dir=path.parent, prefix=".partial-")
    except OSError as error:
        raise ModelError(f"cannot write to the cache {path.parent}: {error.strerror}; set TILESSEG_CACHE") from None
    try:
        with os.fdopen(handle, "wb") as file:
            digest = _download(url, file)
        if digest != sha256:
            raise ModelError(f"{url} has sha256 {digest[:12]}…, not {sha256[:12]}…; correct the sha256 in the address")
        os.replace(partial, path)
    except (OSError, HTTPException) as error:
        if isinstance(error, HTTPError):
            error.close()  # it holds the connection
        raise ModelError(f"cannot fetch {url}: {error}; fetch it by hand and give its folder") from None
    finally:
        Path(partial).unlink(missing_ok=True)


def _download(url: str, file: BinaryIO) -> str:
    digest = hashlib.sha256()
    with urlopen(url, timeout=TIMEOUT) as response:
        while piece := response.read(PIECE):
            digest.update(piece)
            file.write(piece)
    return digest.hexdigest()
