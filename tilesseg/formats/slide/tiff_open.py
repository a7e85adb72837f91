"""Opening a TIFF by tifffile: a file with its companion, and one line for whatever a damaged one provokes."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from xml.etree import ElementTree

import tifffile

from tilesseg.errors import SourceError

COMPRESSIONS = (1, 5, 7, 8, 32946, 32773, 33005, 34712, 34925, 50000, 50001)
"""None, LZW, JPEG, deflate, PackBits, JPEG 2000 in RGB, LZMA, zstd, WebP. Not Aperio's JPEG 2000 in YCbCr (33003): its
colours have to be converted, which OpenSlide does."""
_SUFFIXES = (".svs", ".tif", ".tiff", ".btf", ".tf8", ".qptiff")


def read_by_tifffile(path: str) -> bool:
    """Whether a slide is read by tifffile; a file that it cannot make sense of is left to OpenSlide."""
    if not path.lower().endswith(_SUFFIXES):
        return False
    try:
        with tifffile.TiffFile(path) as file:
            first = file.pages.first
            if file.is_ndpi or file.is_scn or file.is_philips or file.is_bif:
                return False
            return int(first.compression) in COMPRESSIONS
    except Exception:  # tifffile raises whatever a damaged file provokes
        return False


COMPANION = ".companion.ome"

# tifffile logs what it makes of odd files, and without a handler Python prints that; what matters of it is refused or
# noted here.
logging.getLogger("tifffile").addHandler(logging.NullHandler())


@contextmanager
def open_tiff(path: str) -> Iterator[tifffile.TiffFile]:
    """A file that tifffile opens; of a companion file, the first of its images, with the companion's metadata."""
    companion, told = companion_of(path), None
    image = path
    if companion is not None:
        image = _first_image(companion) if companion == path else path
        with open(companion, encoding="utf-8") as text:
            told = text.read()
    with tifffile.TiffFile(image, omexml=told) as file:
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
    found = re.search(r'BinaryOnly[^>]*MetadataFile="([^"]+)"', text) if text else None
    if found is None:
        return None
    companion = os.path.join(os.path.dirname(path), found[1])
    if not os.path.isfile(companion):
        raise SourceError(f"{path}: its metadata are in {found[1]}, which is not beside it")
    return companion


def missing_files(path: str, text: str | None) -> list[str]:
    """The files that OME-XML names and that are not beside this one."""
    folder = os.path.dirname(path)
    names = dict.fromkeys(re.findall(r'<(?:\w+:)?UUID[^>]*FileName="([^"]+)"', text or ""))
    return [name for name in names if not os.path.isfile(os.path.join(folder, name))]


@contextmanager
def one_line(beginning: str) -> Iterator[None]:
    """Whatever is raised becomes one line; tifffile and its codecs raise what a damaged file provokes."""
    try:
        yield
    except SourceError:
        raise
    except Exception as error:
        message = " ".join(str(error).split()) or type(error).__name__
        raise SourceError(f"{beginning}: {message[:300]}") from error


def _first_image(companion: str) -> str:
    """The first image file that a companion file names.

    Raises:
        SourceError: it is no OME-XML, or names none that is there.
    """
    try:
        root = ElementTree.parse(companion).getroot()
    except (OSError, ElementTree.ParseError) as error:
        raise SourceError(f"{companion}: not readable as OME-XML: {error}") from error
    names = [str(one.get("FileName")) for one in root.iter() if one.tag.endswith("}UUID") and one.get("FileName")]
    folder = os.path.dirname(companion)
    for name in names:
        if os.path.isfile(os.path.join(folder, name)):
            return os.path.join(folder, name)
    raise SourceError(f"{companion}: names {names[0] if names else 'no image file'}, which is not there")
