"""GeoPackages that are there already: their layers, and a copy of them to which a layer is added.

A GeoPackage is a SQLite database, often with layers of other people. SQLite itself reads it, so that changes which
another program has not yet moved from its journal into the file are not lost.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

from tilesseg.errors import FormatError, cannot

_OWN = ("gpkg_", "rtree_", "sqlite_")
"""Beginnings of the names of tables that every GeoPackage has."""
_NOTES = """
    select lower(places.table_name), notes.metadata from gpkg_metadata_reference as places
    join gpkg_metadata as notes on notes.id = places.md_file_id where places.table_name is not null
"""


def geopackage_tables(path: Path) -> dict[str, str] | None:
    """Metadata of each table of a GeoPackage that is a layer, a style or else somebody's, by its name in small letters.

    None where the file is no SQLite database.

    Raises:
        FormatError: it cannot be read, or another program has it open.
    """
    with _refusing(path), closing(sqlite3.connect(f"file:{quote(str(path))}?mode=rw", uri=True)) as file:
        try:
            rows = file.execute("select lower(name) from sqlite_master where type = 'table'").fetchall()
        except sqlite3.DatabaseError as error:
            if "not a database" in str(error):
                return None
            raise
        names = [str(name) for (name,) in rows]
        notes = dict(file.execute(_NOTES)) if "gpkg_metadata_reference" in names else {}
    _refuse_open(path)
    return {name: str(notes.get(name, "")) for name in names if not name.startswith(_OWN)}


@contextmanager
def with_other_layers(path: Path, copy: Path, layer: str) -> Iterator[None]:
    """Copy a GeoPackage with other layers, for a layer to be added or replaced in the copy; else copy nothing.

    Args:
        path: the GeoPackage, which may be missing.
        copy: path of the copy.
        layer: name of the layer that is going to be written.

    Raises:
        FormatError: it cannot be read, another program has it open, or it has changed by the end of the context.
    """
    tables = geopackage_tables(path) if path.is_file() else None
    if not tables or set(tables) == {layer}:
        yield
        return
    before = _state(path)
    with _refusing(path), closing(sqlite3.connect(path)) as file, closing(sqlite3.connect(copy)) as result:
        file.backup(result)
        result.execute("pragma journal_mode = delete")  # one file, not two
    yield
    geopackage_tables(path)
    if _state(path) != before:
        cause = "another program has changed it meanwhile"
        raise FormatError(cannot(f"add a layer to {path}", cause, "run the job again when it is at rest"))


def _state(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _refuse_open(path: Path) -> None:
    """Refuse a GeoPackage whose journal is there when nothing of ours is open: a program with it open keeps it so."""
    journal = path.with_name(path.name + "-wal")
    if os.path.lexists(journal):
        raise FormatError(cannot(f"write {path}", "another program has it open", "close it there first"))


@contextmanager
def _refusing(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise FormatError(cannot(f"add a layer to {path}", error, "choose another path")) from None
