"""CSV of scenes: a row for each scene, with its name and its own options."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tilesseg.errors import JobError, cannot, first_problem
from tilesseg.paths import anchored
from tilesseg.planning.job import Input, SceneEntry

_OWN = ("image", "name", "mpp", "priority")
_READ = tuple(key for key in Input.model_fields if key not in _OWN)
COLUMNS = (*_OWN, *_READ)
"""Names that a column may have."""


def read_scene_table(path: Path, *, besides: Sequence[str] = ()) -> tuple[SceneEntry, ...]:
    """Rows of a CSV with the column `image` and any others of `COLUMNS`, in the order of the file.

    An empty field means the default. Several files that make one image, and several bands, are separated by `;`, bands
    also by spaces. Relative paths are relative to the folder of the table.

    Args:
        path: the table.
        besides: names of columns that say something else about a scene, and are left out.

    Raises:
        JobError: the file cannot be read, a column is unknown, or a row has an impossible value.
    """
    columns, lines = _lines(path)
    _check_columns(path, [name for name in columns if name not in besides])
    entries = [_entry(path, number, columns, line, besides) for number, line in lines]
    if not entries:
        raise JobError(
            f"{path} has no scenes; write a line of column names, image among them, and a line for each scene"
        )
    return tuple(entries)


def read_columns(path: Path) -> list[dict[str, str]]:
    """Fields of each row of `read_scene_table`, by the names of their columns, as they are written.

    Raises:
        JobError: the file cannot be read.
    """
    columns, lines = _lines(path)
    return [{key: value.strip() for key, value in zip(columns, line, strict=False)} for _, line in lines]


def _lines(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Names of the columns, and the fields of each line that is not empty, after the line's number."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = csv.reader(file)
            columns = [name.strip() for name in next(lines, [])]
            return columns, [(lines.line_num, line) for line in lines if any(line)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise JobError(cannot(f"read {path} as a table of scenes", error, "give a CSV in UTF-8")) from None


def _check_columns(path: Path, columns: list[str]) -> None:
    unknown = [name for name in columns if name not in COLUMNS]
    if unknown:
        raise JobError(f"{path}, line 1: unknown column {unknown[0]!r}; use some of {', '.join(COLUMNS)}")
    repeated = [name for name in columns if columns.count(name) > 1]
    if repeated:
        raise JobError(f"{path}, line 1: two columns are called {repeated[0]}; leave one out")


def _entry(path: Path, number: int, columns: list[str], line: list[str], besides: Sequence[str]) -> SceneEntry:
    if len(line) > len(columns):
        raise JobError(
            f"{path}, line {number}: {len(line)} fields for {len(columns)} columns; quote a field with commas"
        )
    named = zip(columns, line, strict=False)
    fields = {key: value.strip() for key, value in named if value.strip() and key not in besides}
    folder = str(path.parent)
    own: dict[str, Any] = {key: value for key, value in fields.items() if key in _OWN}
    if "image" in own:
        files = [_placed(folder, file.strip()) for file in own["image"].split(";") if file.strip()]
        own["image"] = files[0] if len(files) == 1 else tuple(files)
    try:
        if len(own) < len(fields):
            read = Input.model_validate(
                _read_keys(fields, folder)
            )  # apart from the entry, so that the refusal names the key
            own["input"] = read.model_dump(mode="json", exclude_unset=True)
        return SceneEntry.model_validate(own)
    except ValidationError as error:
        raise JobError(f"{path}, line {number}: {first_problem(error)}; see tilesseg schema job") from None


def _read_keys(fields: Mapping[str, str], folder: str) -> dict[str, Any]:
    """Keys of the section `input`, with values of the types that YAML would give."""
    keys: dict[str, Any] = {key: value for key, value in fields.items() if key not in _OWN}
    if "bands" in keys:
        bands = keys["bands"].split(";" if ";" in keys["bands"] else None)
        keys["bands"] = [_number_or_name(band.strip()) for band in bands if band.strip()]
    if "series" in keys:
        keys["series"] = _number_or_name(keys["series"])
    if keys.get("tissue", "auto") not in ("auto", "none"):
        keys["tissue"] = _placed(folder, keys["tissue"])
    return keys


def _number_or_name(text: str) -> int | str:
    return int(text) if text.isdecimal() else text


def _placed(folder: str, path: str) -> str:
    try:
        return anchored(path, folder)
    except ValueError:  # the check of the row refuses it, and names its line
        return path
