"""Paths: file names, `~`, addresses, archives and names of GDAL's drivers, told apart in one place.

| as it is written | what it is |
| --- | --- |
| `scene.tif`, `~/scene.tif`, `file:///data/my%20scene.tif` | a file of this machine |
| `https://host/scene.tif` | an address, read over the network |
| `s3://bucket/key`, `gs://…`, `az://…` | object storage, read by GDAL |
| `/vsizip//data/a.zip/scene.tif`, `zip:///data/a.zip!scene.tif`, `/vsicurl/https://…` | a path of GDAL's file systems |
| `NETCDF:"scene.nc":red`, `GTIFF_DIR:2:scene.tif`, `vrt://scene.tif?bands=1` | a name of a driver of GDAL |

A file whose name looks like a driver's, and which is there, is a file. No other file is looked at.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import quote, unquote, urlsplit

Kind = Literal["file", "address", "storage", "vsi", "driver", "unknown"]

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_SLASHED = re.compile(r"(https?|ftp|s3|gs|az|abfss?|oss|swift):/+(?!/)", re.IGNORECASE)
"""Address that lost a slash, as `s3:/bucket`: nobody means a folder called `s3:`."""
ADDRESSES = ("http", "https", "ftp")
STORAGE = {"s3": "s3", "gs": "gs", "az": "az", "abfs": "adls", "abfss": "adls", "oss": "oss", "swift": "swift"}
"""Schemes of object storage, with the name of GDAL's file system."""
_STORAGE = (*STORAGE, "s3a", "s3n", "gcs", "adl", "wasb", "wasbs", "hdfs", "webhdfs")
_ARCHIVES = {"zip": "zip", "tar": "tar", "gzip": "gzip", "7z": "7z", "rar": "rar"}
"""Schemes of archives, `zip://archive!member`, with the name of GDAL's file system."""
_DRIVERS = re.compile(
    r"(NETCDF|HDF4_SDS|HDF4_EOS|HDF5|HDF5IMAGE|BAG|S102|S104|S111|GTIFF_DIR|GTIFF_RAW|NITF_IM|NITF_TOC_ENTRY"
    r"|DERIVED_SUBDATASET|SENTINEL2_L1B|SENTINEL2_L1C|SENTINEL2_L1C_TILE|SENTINEL2_L2A|SENTINEL1_CALIB"
    r"|RADARSAT_2_CALIB|RCM_CALIB|ZARR|GPKG|RASTERLITE2?|ISIS3|PDS4|VICAR|WMS|WMTS|WCS|EEDAI|EEDA|STACIT|STACTA"
    r"|PLMOSAIC|TILEDB|DIMAP|MBTILES|GTI|RPFTOC|ECRGTOC|COASP|TSX|KEA|FITS|GRIB)(?=:)",
    re.IGNORECASE,
)
_NO_FILE = ("WMS", "WMTS", "WCS", "EEDAI", "EEDA", "PLMOSAIC", "TILEDB")
"""Drivers whose names have no file."""
_FILE_LAST = ("GTIFF_DIR", "GTIFF_RAW", "NITF_IM", "DERIVED_SUBDATASET", "SENTINEL1_CALIB", "RADARSAT_2_CALIB")
"""Drivers whose names end with the file; in the names of the others it follows the prefix."""
_NETWORK = ("curl", "curl_streaming", "s3", "s3_streaming", "gs", "az", "adls", "oss", "swift", "hdfs", "webhdfs")
_VSI = re.compile(r"/vsi(\w+)(?=[/?])")
_ENDING = re.compile(r"\.(?:zip|kmz|tar|tgz|tar\.gz|gz|7z|rar)(?=/|$)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Place:
    """Meaning of a path."""

    kind: Kind
    text: str
    """The path as it is opened: `~` and `file:` replaced, blanks of an address as `%20`, an archive as `/vsizip/…`."""
    before: str = ""
    """Beginning of `text` before the file that it names: `NETCDF:"`, `/vsizip/`; empty for a file."""
    inner: str = ""
    """File or address that `text` names, with the way inside an archive."""
    after: str = ""

    @property
    def local(self) -> bool:
        """Whether it is a file or folder of this machine, opened by its own name."""
        return self.kind == "file"


def place(text: str) -> Place:
    """Meaning of a path as somebody writes it.

    Raises:
        ValueError: no file can have this path; the message says why, and what to do.
    """
    if "\0" in text:
        raise ValueError("a path with a zero byte names no file; correct it")
    driver = _DRIVERS.match(text)
    if driver and not os.path.lexists(text):
        return _of_driver(text, driver[1].upper())
    if text.startswith("/vsi"):
        return _of_vsi(text)
    if text[:5].lower() == "file:" and not os.path.lexists(text):
        return _file(_from_uri(text))
    if text.startswith("<"):  # XML of GDAL, such as that of a VRT
        return Place("driver", text, text)
    scheme = _SCHEME.match(text)
    if scheme is None:
        _refuse_lost_slash(text)
        return _file(_at_home(text))
    return _of_scheme(text, scheme[1].lower())


def _of_scheme(text: str, scheme: str) -> Place:
    kinds = scheme.split("+")
    if kinds[0] in _ARCHIVES:
        return _of_archive(text, kinds)
    if scheme in ADDRESSES:
        address = scheme + quote_blanks(text[len(scheme) :])
        return Place("address", address, inner=address)
    if scheme == "vrt":
        written, sign, options = text[len("vrt://") :].partition("?")
        inner = place(written).text
        return Place("driver", f"vrt://{inner}{sign}{options}", "vrt://", inner, sign + options)
    return Place("storage" if scheme in _STORAGE else "unknown", text, inner=text)


def _file(path: str) -> Place:
    return Place("file", path, inner=path)


def _of_vsi(text: str) -> Place:
    """A path of GDAL's file systems; the file that it names follows their prefixes, which may be several."""
    before = ""
    rest = text
    while prefix := _VSI.match(rest):
        name = prefix[1]
        if name in _NETWORK or name in ("mem", "stdin"):
            break
        start = prefix.end() + 1
        if name in ("subfile", "crypt"):  # `/vsisubfile/<offset>_<size>,<file>`
            start = rest.find(",") + 1 or start
        if rest[start : start + 1] == "{":
            inside, brace, after = rest[start + 1 :].partition("}")
            return Place("vsi", text, f"{before}{rest[: start + 1]}", inside, brace + after)
        before, rest = before + rest[:start], rest[start:]
        if re.match(r"vsi\w+/", rest):  # GDAL takes `/vsizip/vsicurl/…` like `/vsizip//vsicurl/…`
            rest = f"/{rest}"
    return Place("vsi", text, before, rest)


def _of_archive(text: str, kinds: Sequence[str]) -> Place:
    """`zip://archive.zip!member` and `zip+https://…` as the path of GDAL's file system."""
    archive, _, member = text.partition("://")[2].partition("!")
    inner = place(f"{kinds[1]}://{archive}" if len(kinds) > 1 else archive)
    path = _to_vsi(inner) + (f"/{member.lstrip('/')}" if member else "")
    return _of_vsi(f"/vsi{_ARCHIVES[kinds[0]]}/{path}")


def _to_vsi(at: Place) -> str:
    """A path as GDAL's file systems name it."""
    if at.kind == "address":
        return f"/vsicurl/{at.text}"
    scheme, _, rest = at.text.partition("://")
    return f"/vsi{STORAGE[scheme]}/{rest}" if at.kind == "storage" and scheme in STORAGE else at.text


def _of_driver(text: str, driver: str) -> Place:
    """`NETCDF:"scene.nc":red`, `GTIFF_DIR:2:scene.tif`: the quoted part is the file, or one end of the name is."""
    if driver in _NO_FILE:
        return Place("driver", text, text)
    start = len(driver) + 1
    quoted = re.compile(r'"([^"]*)"').search(text, start)
    if quoted:
        begin, end = quoted.span(1)
    elif driver in _FILE_LAST:
        fields = re.compile(r"(?:off:)?[^:/]*:").match(text, start)
        begin, end = (fields.end() if fields else start), len(text)
    else:
        address = re.compile(r"(?:/vsi\w+/)*(?:https?|s3|gs)://[^/]*").match(text, start)  # may have a port
        begin = start
        colon = text.find(":", address.end() if address else start)
        end = len(text) if colon < 0 else colon
    before, inner, after = text[:begin], place(text[begin:end]).text, text[end:]
    return Place("driver", f"{before}{inner}{after}", before, inner, after)


def _from_uri(text: str) -> str:
    """Path of `file:///data/my%20scene.tif`; of a name that somebody wrote there unencoded, this name."""
    rest = text[len("file:") :]
    if rest.startswith("//"):
        host, slash, path = rest[2:].partition("/")
        if host.lower() not in ("", "localhost"):
            raise ValueError(f"{text} names a file of the machine {host}; give a path of this one, file:///{path}")
        rest = slash + path
    if not rest.startswith("/"):
        raise ValueError(f"{text} has no absolute path; write file:///, or the path alone")
    return decoded(rest)


def decoded(path: str, exists: Callable[[str], bool] = os.path.lexists) -> str:
    """Local path of a part of an address: `%20` is a blank, unless a file is called `%20` and none has the blank."""
    plain = unquote(path)
    return path if plain != path and exists(path) and not exists(plain) else plain


def _at_home(text: str) -> str:
    """A path with the home folder in place of `~`, as shells write it."""
    if not text.startswith("~"):
        return text
    path = os.path.expanduser(text)
    if path.startswith("~") and "/" in path and not os.path.lexists(path.partition("/")[0]):
        user = path.partition("/")[0]
        raise ValueError(f"{text} lies in the home folder of {user[1:]}, whom this machine does not know; correct it")
    return path


def _refuse_lost_slash(text: str) -> None:
    lost = _SLASHED.match(text)
    if lost and not os.path.lexists(text[: text.index(":") + 1]):
        meant = f"{lost[1]}://{text[lost.end() :]}"
        raise ValueError(f"{text} is an address that lost a slash; write {without_secrets(meant)}")


def quote_blanks(address: str) -> str:
    """An address with its blanks and other signs that no address has as `%20`; what is encoded stays."""
    return quote(address, safe="%/:?#[]@!$&'()*+,;=~")


def source(text: str) -> str:
    """Path of something to read, as it is opened.

    Raises:
        ValueError: nothing can be read from there.
    """
    at = place(text)
    if at.kind == "unknown":
        scheme = without_secrets(text).partition("://")[0]
        raise ValueError(f"cannot read {without_secrets(text)}: nothing reads {scheme}://; give a file or an address")
    return at.text


def target(text: str) -> str:
    """Local path at which something is to be written.

    Raises:
        ValueError: it is an address, in an archive, or a driver's name: only files of this machine are written.
    """
    at = place(text)
    if at.kind == "file":
        return at.text
    what = {
        "address": "an address",
        "storage": "object storage",
        "vsi": "a path of GDAL's file systems",
        "driver": "a name of a driver of GDAL",
        "unknown": f"an address of {text.partition('://')[0]}://",
    }[at.kind]
    raise ValueError(
        f"cannot write {without_secrets(text)}: it is {what}, and only files of this machine are written; give a local "
        "path, and copy the result there afterwards"
    )


def anchored(text: str, folder: str) -> str:
    """The path with its file relative to `folder` where it is relative, and `~` replaced.

    Raises:
        ValueError: as `place`.
    """
    at = place(text)
    if at.kind == "file":
        return str(Path(folder, at.text))
    if at.kind == "driver" and at.inner:
        return f"{at.before}{anchored(at.inner, folder)}{at.after}"
    relative = at.kind == "vsi" and not at.inner.startswith("/") and _SCHEME.match(at.inner) is None
    return f"{at.before}{os.path.join(folder, at.inner)}{at.after}" if relative else at.text


def container(text: str) -> str:
    """File or address that holds the pixels of a path: the archive of a file in an archive, the file of a driver."""
    try:
        at = place(text)
    except ValueError:
        return text
    if at.kind == "driver":
        return container(at.inner)
    if at.kind != "vsi":
        return at.text
    network = _VSI.match(at.inner)
    if network is None:
        return _there(at.inner)
    if network[1].startswith("curl"):
        address = _curled(at.inner, network.end())
        ending = _ENDING.search(address, len("https://")) if at.before else None
        return address[: ending.end()] if ending else address
    return at.inner


def _curled(path: str, end: int) -> str:
    """Address in `/vsicurl/https://…` and in `/vsicurl?url=https%3A%2F%2F…`."""
    if path[end] == "/":
        return path[end + 1 :]
    options = dict(option.partition("=")[::2] for option in path[end + 1 :].split("&"))
    return unquote(options.get("url", path))


def _there(path: str) -> str:
    """The part of a path inside an archive that is there: the archive."""
    part = path
    while part not in ("", "/"):
        if os.path.lexists(part):
            return part
        part = os.path.dirname(part)
    return path


def is_address(text: str) -> bool:
    """Whether it is an http or https address."""
    return text[:8].lower().startswith(("http://", "https://"))


def is_remote(text: str) -> bool:
    """Whether it is read over the network: an address or object storage, also by a file system or a driver of GDAL."""
    try:
        at = place(text)
    except ValueError:
        return False
    system = _VSI.match(at.inner)
    behind = system is not None and system[1] in _NETWORK
    return at.kind in ("address", "storage", "unknown") or behind or bool(_SCHEME.match(at.inner))


def folders_of(text: str) -> list[str]:
    """Folders of a path or address from the top, and its last part."""
    whole = urlsplit(text).path if "://" in text else os.path.abspath(text)
    return [part for part in re.split(r"[/\\]", whole) if part] or [text]


def opened_by_gdal(text: str) -> bool:
    """Whether only GDAL can open it: anything but a file of this machine."""
    try:
        return place(text).kind != "file"
    except ValueError:
        return False


def name_of(text: str) -> str:
    """Last part of a path for people and for the names of scenes: no folder, no query, no signature."""
    try:
        at = place(text)
    except ValueError:
        return os.path.basename(text)
    if at.kind in ("address", "storage", "unknown"):
        return unquote(os.path.basename(urlsplit(at.text).path.rstrip("/")))
    if at.kind == "driver":
        fields = f"{at.before.partition(':')[2]}:{at.after.partition('?')[0]}"
        return ":".join([name_of(at.inner), *re.findall(r'[^:/"]+', fields)])
    if at.kind == "vsi" and (network := _VSI.match(at.inner)):
        if network[1].startswith("curl"):
            return name_of(_curled(at.inner, network.end()))
        return os.path.basename(at.inner.partition("?")[0])
    return os.path.basename(os.path.normpath(at.after.strip("}/") or at.inner))


_SIGNING = re.compile(
    r"(?:x-(?:amz|goog|oss|ms)-.*|awsaccesskeyid|googleaccessid|ossaccesskeyid|signature|expires|policy|key-pair-id"
    r"|sv|sr|sig|se|st|sp|spr|sip|ss|srt|sdd|skoid|sktid|skt|ske|sks|skv|saoid|suoid|scid|rscc|rscd|rsce|rscl|rsct"
    r"|hdnt[ls]|hdnea|.*token.*|.*api_?key.*|.*secret.*|password|pwd|auth|credential|response-content-.*)",
    re.IGNORECASE,
)
"""Parameters of an address that say who may read it and until when, not what."""


def unsigned(text: str) -> str:
    """The path without user, password and signature: the same for each address under which one image is signed."""
    text = re.sub(r"(?<=://)[^\s/@?]+@", "", text)
    if "?" not in text or not (text.startswith("/vsi") or "://" in text):
        return text
    return re.sub(r"\?([^#}\"\s]*)", _without_signature, text, count=1)


def absolute(text: str) -> str:
    """The path as it is valid from any working directory.

    Raises:
        ValueError: as `place`.
    """
    at = place(text)
    return os.path.abspath(at.text) if at.kind == "file" else anchored(text, os.getcwd())


def _without_signature(query: re.Match[str]) -> str:
    kept = [part for part in query[1].split("&") if part and not _SIGNING.fullmatch(part.partition("=")[0])]
    return "?" + "&".join(kept) if kept else ""


_SIGNED = re.compile(r"""((?:\w://|/vsi)[^\s?"'<>]*)\?[^\s"'<>]*[^\s"'<>;:,.)]""")
_USER = re.compile(r"(\w://)[^\s/@]+@")


def without_secrets(text: str) -> str:
    """The text without names, passwords, signatures and tokens in its addresses, for everything that people read."""
    return _SIGNED.sub(r"\1?…", _USER.sub(r"\1…@", text)) if "?" in text or "@" in text else text
