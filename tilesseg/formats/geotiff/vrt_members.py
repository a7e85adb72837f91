"""Members of a VRT that cannot be opened, found before GDAL meets them.

GDAL remembers in a pool of the whole process that it could not open a member, under a key that holds an address in
memory. A later handle that gets the same address finds the entry, reads nothing, and says nothing: zeros, and no error.
So GDAL is never asked for pixels that need such a member.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from xml.etree import ElementTree as ET

from tilesseg.errors import SourceError
from tilesseg.formats.geotiff.raster_file import one_line_errors, open_dataset
from tilesseg.raster.window import Window

Broken = tuple[tuple[Window, str], ...]
"""Windows of the VRT, and why they cannot be read."""


def broken_members(path: str, shape: tuple[int, int], known: dict[str, str | None] | None = None) -> Broken:
    """Where a local VRT needs a local file that is not there or that GDAL cannot open.

    Args:
        path: of the VRT.
        shape: its height and width.
        known: what is already known of files, by name; None where they are fine.
    """
    problems = {} if known is None else known
    problems.setdefault(path, None)  # a VRT that names itself does not send us round in circles
    try:
        root = ET.parse(path).getroot()
    except (OSError, ET.ParseError):
        return ()  # XML in the name of the dataset, or no XML: nothing that can be looked up
    broken: dict[tuple[Window, str], None] = {}
    for name, window in _members(root, os.path.dirname(path), Window(0, 0, *shape)):
        if name not in problems:
            problems[name] = _problem(name, problems)
        if problems[name] is not None:
            broken[window, str(problems[name])] = None
    return tuple(broken)


def _members(root: ET.Element, folder: str, whole: Window) -> Iterator[tuple[str, Window]]:
    """Local files that the VRT names, and where each lies in it."""
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
    """Where a member lies; everywhere, where that is not said."""
    try:
        x, y, width, height = (float(rectangle.get(key, "")) for key in ("xOff", "yOff", "xSize", "ySize"))  # type: ignore[union-attr]
    except (AttributeError, ValueError):
        return whole
    return Window.from_bounds(int(y), int(x), int(-(-(y + height) // 1)), int(-(-(x + width) // 1)))


def _problem(name: str, known: dict[str, str | None]) -> str | None:
    """Why a file cannot be opened, or None."""
    if not os.path.exists(name):
        return f"{name}: No such file or directory"
    try:
        with one_line_errors(name), open_dataset(name) as member:
            driver, shape = member.driver, (int(member.height), int(member.width))
    except SourceError as error:
        return str(error)
    within = broken_members(name, shape, known) if driver == "VRT" else ()
    return within[0][1] if within else None
