"""Files of a product: what lies at their targets, and how they take their places.

They grow in a hidden folder beside their target, and take their places when all are complete.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tilesseg.atomic_write import hidden_name, scratch_folder
from tilesseg.errors import FormatError, cannot, joined_lines
from tilesseg.formats.writing.geopackage_file import geopackage_tables

SIDECARS = (".aux.xml", ".ovr", ".msk")
"""Suffixes of the files that GDAL keeps beside a TIFF, and reads with whatever TIFF has that name."""
JOURNALS = ("-wal", "-shm", "-journal")
"""Suffixes of the files that a reader leaves beside a GeoPackage that it does not close; SQLite would apply them to the
new one."""
LONGEST_NAME = 255
"""Largest number of bytes in the name of a file or folder."""
_EDGE = 1 << 20
"""Number of bytes at the beginning and the end of a file that are searched: all formats have their metadata there."""
_METADATA = ("zarr.json", ".zattrs")
LAYER = "mask"
"""Name of the layer of polygons in a GeoPackage."""


@contextmanager
def refusing(path: Path) -> Iterator[None]:
    """Errors of GDAL and of the file system become a FormatError, in one line that names the target."""
    from rasterio._err import CPLE_BaseError
    from rasterio.errors import CRSError, RasterioError

    try:
        yield
    except (RasterioError, CPLE_BaseError) as error:
        free = shutil.disk_usage(path.parent).free / 2**20  # GDAL's words for a full disk seldom say so
        reason = f"{joined_lines(error)} ({free:.0f} MB are free there)"
        raise FormatError(cannot(f"write {path}", reason, "make room or choose another path")) from error
    except (CRSError, OSError) as error:
        raise FormatError(cannot(f"write {path}", error, "make room or choose another path")) from error


def check_target(path: Path, *, folder: bool = False) -> None:
    """Refuse, before the first tile, a target that could not be written after the last one.

    Args:
        path: the target; folders on the way to it may be missing, and are made later.
        folder: whether the product is a folder, which may take the place of another.

    Raises:
        FormatError: its name is too long, a folder lies there, a part of the path is a file, or the folder cannot be
            written.
    """
    size = max(len(os.fsencode(part)) for part in (*path.parts, hidden_name(path).name))  # the last is the longest
    if size > LONGEST_NAME:
        cause = f"with what is needed while it is written its name has {size} bytes, and file systems take 255"
        raise FormatError(cannot(f"write {path.name[:40]}…", cause, "choose a shorter name"))
    if not folder:
        _refuse_folder(path)
    parent = next(parent for parent in path.absolute().parents if os.path.lexists(parent))
    if not parent.is_dir():
        cause = f"{parent} is a file, a folder needed"
    elif os.access(parent, os.W_OK | os.X_OK):
        return
    elif os.statvfs(parent).f_flag & os.ST_RDONLY:
        cause = f"{parent} lies on a read-only file system"
    else:
        cause = f"no write permission in {parent}"
    raise FormatError(cannot(f"write {path}", cause, "choose another path"))


def _refuse_folder(target: Path) -> None:
    if target.is_dir():
        raise FormatError(cannot(f"write {target}", "a folder lies there", "choose another path"))


def replaced_at(path: Path, fingerprint: str, *, overwrite: bool = False) -> str | None:
    """Sentence on the file at the target of a product, its end alone: `in place of …`; None where there is none.

    Files of the same run are replaced, others only on request. Each product, and each file beside it, has the
    fingerprint of its scene's plan in its metadata: a hash of image, network and options, which no file has by chance.
    A file that somebody has drawn or styled does not have it.

    Args:
        path: target of the product, or of a file beside it.
        fingerprint: fingerprint of the scene's plan, `plan_fingerprint` in the provenance of its products.
        overwrite: whether the user wants files of others to be replaced.

    Raises:
        FormatError: something lies there that is not of this run, and it is not to be replaced.
    """
    if not os.path.lexists(path):
        return None
    tables = geopackage_tables(path) if path.suffix.lower() == ".gpkg" and path.is_file() else None
    if tables is not None:
        if LAYER not in tables:
            return f"as a layer beside {', '.join(tables)}" if tables else None
        what, own = f"a layer {LAYER}", fingerprint in tables[LAYER]
    else:
        what, own = ("a folder" if path.is_dir() else "a file"), _holds(path, fingerprint)
    if own:
        return "in place of an earlier product of this run"
    if overwrite:
        return f"in place of {what} that this run did not write"
    because, do = f"{what} that this run did not write lies there", "choose another path, or replace it by --overwrite"
    raise FormatError(cannot(f"write {path}", because, f"{do} (in a job, output.overwrite: true)"))


def _holds(path: Path, fingerprint: str) -> bool:
    """Whether a file, or the metadata of a Zarr, hold a fingerprint."""
    if path.is_dir():
        return any(_holds(path / name, fingerprint) for name in _METADATA if (path / name).is_file())
    if not path.is_file() or not fingerprint:
        return False
    with path.open("rb") as file:
        edges = file.read(_EDGE)
        file.seek(max(len(edges), path.stat().st_size - _EDGE))
        return fingerprint.encode() in edges + file.read(_EDGE)


@contextmanager
def growing(path: Path, *beside: Path) -> Iterator[Path]:
    """Hidden folder for the files of a product under their own names, and for what is needed on the way to them.

    Removed whatever happens; `publish` moves the finished files out of it.

    Args:
        path: target of the product; its folder must exist.
        beside: targets of further files in the same folder.

    Raises:
        FormatError: a target is a folder, or nothing can be written there.
    """
    with ExitStack() as stack:
        with refusing(path):
            for target in (path, *beside):
                _refuse_folder(target)
            folder = stack.enter_context(scratch_folder(path))
        yield folder


def publish(folder: Path, path: Path, *beside: Path) -> tuple[Path, ...]:
    """Move the finished files to their targets, the product last, and remove sidecars of a file that it replaces.

    Returns:
        All files written, the product first.
    """
    sidecars = [path.with_name(path.name + suffix) for suffix in SIDECARS]
    written = [path, *beside, *(file for file in sidecars if (folder / file.name).exists())]
    for suffix in JOURNALS if path.suffix == ".gpkg" else ():
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    for target in reversed(written):
        os.replace(folder / target.name, target)
    for stale in set(sidecars) - set(written):
        stale.unlink(missing_ok=True)
    return tuple(written)
