"""Files that are written whole or not at all: they grow in a hidden folder beside their target."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rasterio._err import CPLE_BaseError
from rasterio.errors import CRSError, RasterioError

from tilesseg.errors import FormatError

SIDECARS = (".aux.xml", ".ovr", ".msk")
"""What GDAL keeps beside a TIFF, and reads with whatever TIFF has that name."""


@contextmanager
def refusing(path: Path) -> Iterator[None]:
    """What GDAL and the file system complain about, as one line that names the target."""
    try:
        yield
    except (RasterioError, CPLE_BaseError) as error:
        free = shutil.disk_usage(path.parent).free / 2**20  # GDAL's words for a full disk seldom say so
        reason = f"{' '.join(str(error).split())}; {free:.0f} MB are free there"
        raise FormatError(f"cannot write {path}: {reason}") from error
    except (CRSError, OSError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise FormatError(f"cannot write {path}: {' '.join(reason.split())}") from error


@contextmanager
def scratch(path: Path, *beside: Path) -> Iterator[Path]:
    """A hidden folder beside the target, so that the last step is a rename; removed whatever happens.

    Args:
        path: the target; its folder must exist.
        beside: what else will be written.

    Raises:
        FormatError: a target is a folder, or nothing can be written there.
    """
    with refusing(path):
        for target in (path, *beside):
            if target.is_dir():
                raise FormatError(f"cannot write {target}: it is a folder; give another file name")
        folder = Path(tempfile.mkdtemp(prefix=".tilesseg-", dir=path.parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
