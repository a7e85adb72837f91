"""DICOM slides: the files of a slide belong together by the UID of their series, whatever their names.

A slide in DICOM is one file for each level of its pyramid, with a label and an overview beside them. OpenSlide opens
all of them by any file of a level. Only the beginning of a file is read here (DICOM PS3.5, section 7: data elements).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

_MAGIC = b"DICM"
_IMAGE_TYPE, _SERIES = (0x0008, 0x0008), (0x0020, 0x000E)
_TRANSFER = (0x0002, 0x0010)
_IMPLICIT = "1.2.840.10008.1.2"
_UNDEFINED = 0xFFFFFFFF
_LONG = (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")
"""Value representations with a length of 4 bytes."""
_ITEM_ENDS = ((0xFFFE, 0xE00D), (0xFFFE, 0xE0DD))


@dataclass(frozen=True, slots=True)
class DicomSlide:
    """The files of one series, sorted."""

    files: tuple[str, ...]
    image: str
    """First file of a level: no label, no overview."""
    alone: bool
    """Whether its folder has no other slide."""


def is_dicom(path: str) -> bool:
    """Whether a file is DICOM: by its suffix, or without a suffix by its first bytes."""
    suffix = os.path.splitext(path)[1].lower()
    if suffix in (".dcm", ".dicom"):
        return os.path.isfile(path)
    if suffix.strip(".0123456789") or not os.path.isfile(path):
        return False
    try:
        with open(path, "rb") as file:
            return file.read(132)[128:] == _MAGIC
    except OSError:
        return False  # the refusal comes with opening it


def is_dicom_folder(folder: str) -> bool:
    """Whether a folder has a DICOM file in it."""
    return os.path.isdir(folder) and any(is_dicom(file) for file in _files(folder))


def slides_of(paths: Iterable[str]) -> list[DicomSlide]:
    """The slides of DICOM files, in the order of their first files; files without a series are slides of their own.

    Series of labels and overviews alone are left out where another series of their folder has levels.
    """
    groups: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for path in sorted(paths):
        series, kind = _described(path)
        groups.setdefault((os.path.dirname(path), series or path), []).append((path, kind))
    with_levels = {key for key, files in groups.items() if any(_is_level(kind) for _, kind in files)}
    kept = [key for key in groups if key in with_levels or not any(one[0] == key[0] for one in with_levels)]
    folders = [folder for folder, _ in kept]
    slides = []
    for key in kept:
        files = groups[key]
        image = next((path for path, kind in files if _is_level(kind)), files[0][0])
        slides.append(DicomSlide(tuple(path for path, _ in files), image, folders.count(key[0]) == 1))
    return slides


def slides_in(folder: str) -> list[DicomSlide]:
    """The slides in a folder."""
    return slides_of(file for file in _files(folder) if is_dicom(file))


def series_files(path: str) -> tuple[str, ...]:
    """The files of the slide that a file belongs to."""
    series, _ = _described(path)
    files = _files(os.path.dirname(path) or ".")
    mine = [file for file in files if is_dicom(file) and series and _described(file)[0] == series]
    return tuple(dict.fromkeys([path, *(mine if os.path.dirname(path) else map(os.path.basename, mine))]))


def _files(folder: str) -> list[str]:
    return sorted(str(entry) for entry in Path(folder).iterdir() if entry.is_file())


def _is_level(kind: str) -> bool:
    """Whether an image type is that of a level, or is not stated."""
    return not any(word in kind.upper().split("\\") for word in ("LABEL", "OVERVIEW", "THUMBNAIL"))


def _described(path: str) -> tuple[str | None, str]:
    """UID of the series and image type of a file; None and nothing where they cannot be read."""
    found: dict[tuple[int, int], str] = {}
    try:
        with open(path, "rb") as file:
            if file.read(132)[128:] != _MAGIC:
                return None, ""
            implicit = False
            for tag, value in _elements(file):
                found[tag] = value
                if tag == _TRANSFER:
                    implicit = value == _IMPLICIT
                if tag[0] > _TRANSFER[0] or implicit:
                    break
            file.seek(132)
            for tag, value in _elements(file, implicit=implicit):
                found[tag] = value
                if tag >= _SERIES:
                    break
    except (OSError, struct.error):
        pass  # a damaged file: it is a slide of its own, and refused when it is opened
    return found.get(_SERIES) or None, found.get(_IMAGE_TYPE, "")


def _elements(file: BinaryIO, *, implicit: bool = False) -> Iterator[tuple[tuple[int, int], str]]:
    """Tags at the top of a file with their values as text, up to the series; sequences are passed over.

    Raises:
        struct.error: the file ends.
    """
    while True:
        tag, length = _head(file, implicit=implicit)
        if length == _UNDEFINED:
            _pass_items(file, implicit=implicit)
            yield tag, ""
        elif tag in (_IMAGE_TYPE, _SERIES, _TRANSFER):
            yield tag, file.read(length).decode("ascii", "replace").strip(" \0")
        else:
            file.seek(length, os.SEEK_CUR)
            yield tag, ""


def _head(file: BinaryIO, *, implicit: bool) -> tuple[tuple[int, int], int]:
    """Tag and length of the next element; group 2 is explicit in every file."""
    group, element = struct.unpack("<HH", file.read(4))
    if group == 0xFFFE or (implicit and group != 2):
        (length,) = struct.unpack("<I", file.read(4))
        return (group, element), length
    kind = file.read(2)
    if kind in _LONG:
        (length,) = struct.unpack("<2xI", file.read(6))
    else:
        (length,) = struct.unpack("<H", file.read(2))
    return (group, element), length


def _pass_items(file: BinaryIO, *, implicit: bool) -> None:
    """Pass over a sequence or an item of undefined length, to behind its end."""
    while True:
        tag, length = _head(file, implicit=implicit)
        if tag in _ITEM_ENDS:
            return
        if length == _UNDEFINED:
            _pass_items(file, implicit=implicit)
        else:
            file.seek(length, os.SEEK_CUR)
