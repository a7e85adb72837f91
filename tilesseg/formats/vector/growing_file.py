"""Where a product grows until it is complete: a hidden folder beside it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
from pyogrio.errors import CRSError, DataLayerError, DataSourceError

from tilesseg.errors import FormatError

_JOURNALS = ("-wal", "-shm", "-journal")
"""What a reader that did not close a GeoPackage left beside it: SQLite would carry it over into the new one."""


@contextmanager
def growing(path: Path) -> Iterator[Path]:
    """A folder for the product, under its own name, and what is needed on the way; moved into place at the end.

    Raises:
        FormatError: it cannot be written; nothing is left behind, and a file that was there is still there.
    """
    if path.is_dir():
        raise FormatError(f"cannot write {path}: it is a folder; give another file name")
    try:
        folder = Path(tempfile.mkdtemp(prefix=".tilesseg-", dir=path.parent))
    except OSError as error:
        raise FormatError(f"cannot write {path}: {error.strerror}; choose another path") from None
    try:
        yield folder
        for suffix in _JOURNALS if path.suffix == ".gpkg" else ():
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        os.replace(folder / path.name, path)
    except (OSError, DataSourceError, DataLayerError, CRSError, pa.ArrowException) as error:
        raise FormatError(f"cannot write {path}: {' '.join(str(error).split())}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
