"""Opening a TIFF by tifffile: a file with its companion, and errors of damaged files as one line."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from xml.etree import ElementTree

import tifffile

from tilesseg.errors import SourceError, cannot, joined_lines
from tilesseg.formats.source import unreadable

COMPRESSIONS = (1, 5, 7, 8, 32946, 32773, 33005, 34712, 34925, 50000, 50001)
"""Compressions that are read by tifffile: none, LZW, JPEG, deflate, PackBits, JPEG 2000 in RGB, LZMA, zstd, WebP. Not
Aperio's JPEG 2000 in YCbCr (33003): its colours have to be converted, which OpenSlide does."""
PAGES = 16
"""Number of pages of a TIFF that are examined before it is opened."""
_SUFFIXES = (".svs", ".tif", ".tiff", ".btf", ".tf8", ".qptiff", ".lsm", ".stk")


def read_by_tifffile(path: str) -> bool:
    """Whether a slide is read by tifffile; a file that tifffile cannot open is left to OpenSlide."""
    if not path.lower().endswith(_SUFFIXES):
        return False
    try:
        with tifffile.TiffFile(path) as file:
            if file.is_ndpi or file.is_scn or file.is_philips or file.is_bif:
                return False
            return known_compressions(file)
    except Exception:  # tifffile raises errors of all kinds on a damaged file
        return False


def known_compressions(file: tifffile.TiffFile) -> bool:
    """Whether tifffile decodes all of the first pages of a file: the slide may come after its label."""
    return all(int(page.compression) in COMPRESSIONS for page in (file.pages.first, *following(file)))


def following(file: tifffile.TiffFile) -> Iterator[Any]:
    """The first pages after the first one: a file may have thousands."""
    for number in range(1, PAGES):
        try:
            yield file.pages.get(number)
        except IndexError:
            return


COMPANION = ".companion.ome"

# tifffile logs its complaints about odd files, and without a handler Python prints them; the important ones are refused
# or noted here.
logging.getLogger("tifffile").addHandler(logging.NullHandler())


@contextmanager
def open_tiff(path: str) -> Iterator[tifffile.TiffFile]:
    """A file that tifffile opens; of a companion file, the first of its images, with the companion's metadata."""
    companion, metadata = companion_of(path), None
    image = path
    if companion is not None:
        image = _first_image(companion) if companion == path else path
        with open(companion, encoding="utf-8") as text:
            metadata = text.read()
    with tifffile.TiffFile(image, omexml=metadata) as file:
        yield file


def companion_of(path: str) -> str | None:
    """The companion file that holds the metadata of an OME-TIFF; itself where it is one.

    Raises:
        SourceError: the file names a companion that is not beside it.
    """
    if path.lower().endswith(COMPANION):
        return path
    with tifffile.TiffFile(path) as file:
        text = file.ome_metadata
    match = re.search(r'BinaryOnly[^>]*MetadataFile="([^"]+)"', text) if text else None
    if match is None:
        return None
    companion = os.path.join(os.path.dirname(path), match[1])
    if not os.path.isfile(companion):
        because = f"its metadata are in {match[1]}, which is not beside it"
        raise SourceError(cannot(f"open {path}", because, "put that file beside it"))
    return companion


def missing_files(path: str, text: str | None) -> list[str]:
    """Files that OME-XML names and that are not beside the file."""
    folder = os.path.dirname(path)
    names = dict.fromkeys(re.findall(r'<(?:\w+:)?UUID[^>]*FileName="([^"]+)"', text or ""))
    return [name for name in names if not os.path.isfile(os.path.join(folder, name))]


@contextmanager
def one_line(beginning: str) -> Iterator[None]:
    """Make one line of any error: tifffile and its codecs raise errors of all kinds on a damaged file."""
    try:
        yield
    except SourceError:
        raise
    except Exception as error:
        raise SourceError(unreadable(beginning, joined_lines(error)[:300])) from error


def _first_image(companion: str) -> str:
    """The first image file that a companion file names.

    Raises:
        SourceError: it is no OME-XML, or names no existing file.
    """
    try:
        root = ElementTree.parse(companion).getroot()
    except (OSError, ElementTree.ParseError) as error:
        raise SourceError(cannot(f"read {companion} as OME-XML", error, "export it again")) from error
    elements = [element for element in root.iter() if element.tag.endswith("}UUID") and element.get("FileName")]
    names = [str(element.get("FileName")) for element in elements]
    folder = os.path.dirname(companion)
    for name in names:
        if os.path.isfile(os.path.join(folder, name)):
            return os.path.join(folder, name)
    because = f"{names[0]} is not beside it" if names else "it names no image file"
    raise SourceError(cannot(f"open the image of {companion}", because, "put the files of the set together"))
