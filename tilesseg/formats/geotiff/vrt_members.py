"""Members of a VRT that cannot be opened, detected before GDAL reads them.

GDAL keeps in a pool of the whole process that it could not open a member, under a key that holds an address in memory.
A later handle with the same address takes that entry and gives zeros, without an error. So GDAL never reads pixels that
need such a member.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from xml.etree import ElementTree as ET

from tilesseg.errors import SourceError
from tilesseg.formats.geotiff.raster_file import one_line_errors, open_dataset
from tilesseg.raster.window import Window

Broken = tuple[tuple[Window, str], ...]
"""Windows of the VRT that cannot be read, each with the reason."""


def broken_members(path: str, shape: tuple[int, int], known: dict[str, str | None] | None = None) -> Broken:
    """Windows of a local VRT that need a local file that is missing or that GDAL cannot open.

    Args:
        path: path of the VRT.
        shape: its height and width.
        known: problems of files by their names, as far as known; None where a file has none.
    """
    problems = {} if known is None else known
    problems.setdefault(path, None)  # a VRT that names itself is not opened again
    try:
        root = ET.parse(path).getroot()
    except (OSError, ET.ParseError):
        return ()  # XML in the name of the dataset, or no XML: there are no names of files
    broken: dict[tuple[Window, str], None] = {}
    for name, window in _members(root, os.path.dirname(path), Window(0, 0, *shape)):
        if name not in problems:
            problems[name] = _problem(name, problems)
        if problems[name] is not None:
            broken[window, str(problems[name])] = None
    return tuple(broken)


def _members(root: ET.Element, folder: str, whole: Window) -> Iterator[tuple[str, Window]]:
    """Local files that the VRT names, with the window of each."""
    for source in root.iter():
        named = source.find("SourceFilename")
        if named is None or not named.text or "://" in named.text or named.text.startswith(("/vsi", "<")):
            continue
        beside = named.get("relativeToVRT") == "1"
        name = os.path.join(folder, named.text) if beside else named.text
        if ":" in named.text and not os.path.exists(name):
            continue  # a driver's own name, `NETCDF:file:variable`
        yield os.path.abspath(name), _place(source.find("DstRect"), whole)


def _place(rectangle: ET.Element | None, whole: Window) -> Window:
    """Window of a member; the whole VRT where it has none."""
    try:
        x, y, width, height = (float(rectangle.get(key, "")) for key in ("xOff", "yOff", "xSize", "ySize"))  # type: ignore[union-attr]
    except (AttributeError, ValueError):
        return whole
    return Window.from_bounds(int(y), int(x), int(-(-(y + height) // 1)), int(-(-(x + width) // 1)))


def _problem(name: str, known: dict[str, str | None]) -> str | None:
    """Reason why a file cannot be opened, or None."""
    if not os.path.exists(name):
        return f"{name}: No such file or directory; restore the file"
    try:
        with one_line_errors(name), open_dataset(name) as member:
            driver, shape = member.driver, (int(member.height), int(member.width))
    except SourceError as error:
        return str(error)
    within = broken_members(name, shape, known) if driver == "VRT" else ()
    return within[0][1] if within else None
