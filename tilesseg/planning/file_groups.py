"""Files that a command names: one image, several images, or what nobody can tell.

Files on one grid whose bands together are the model's, each once, are one image; files of which each has all bands of
the model are images of their own. Single-band files of several dates are an image for each date.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from tilesseg.errors import JobError, SourceError, TilessegError
from tilesseg.formats.detect import format_of
from tilesseg.formats.geotiff import plain_files
from tilesseg.formats.geotiff.band_names import without_band
from tilesseg.formats.open import open_source
from tilesseg.planning.band_choice import choose_bands

if TYPE_CHECKING:
    from tilesseg.formats.reading.open_options import Opening

How = Literal["auto", "stack", "each"]
Group = tuple[str, ...]
"""Paths of one image."""


def group_images(
    paths: Sequence[str],
    wanted: Sequence[str],
    *,
    opening: Opening,
    bands: Sequence[str | int] | None = None,
    how: How = "auto",
) -> list[Group]:
    """Images that paths make, in their order.

    Args:
        paths: files, folders and addresses, as they are typed.
        wanted: names of the model's channels.
        opening: options of opening the images.
        bands: bands that the command selects.
        how: `stack` makes one image of all, `each` one of every file, `auto` looks at their bands.

    Raises:
        JobError: what they make cannot be decided.
    """
    whole = tuple(paths)
    if how == "stack":
        return [whole]
    files = [file for path in paths for file in _files(path)]
    if len(files) == 1 or (len(paths) > 1 and all(file.lower().endswith(".dcm") for file in files)):
        return [whole]
    each: list[Group] = [(file,) for file in files]
    if how == "each":
        return each
    problems = [_problem(group, wanted, opening, bands) for group in each]
    if not any(problems):
        return each
    together = _problem(tuple(files), wanted, opening, bands)
    if together is None:
        return [whole]
    dates = _by_name(files)
    if 1 < len(dates) < len(files) and not any(_problem(group, wanted, opening, bands) for group in dates):
        return dates
    alone = problems.count(None)
    raise JobError(
        f"cannot tell whether {len(files)} files of {os.path.dirname(files[0]) or '.'} are one image or several: "
        f"together they are none ({together}), and {alone} of them alone; say --stack (one image) or --each"
    )


def _files(path: str) -> list[str]:
    """Files of a plain folder; the path itself where it is an image, also one that is a folder."""
    if not os.path.isdir(path) or format_of(path) != "geotiff":
        return [path]
    try:
        return plain_files(path)
    except SourceError:
        return [path]  # the refusal comes when it is opened as an image


def _problem(group: Group, wanted: Sequence[str], opening: Opening, bands: Sequence[str | int] | None) -> str | None:
    """Reason why files are not an image for the model, or None where they are."""
    try:
        choose_bands(open_source(group, opening), wanted, bands, image=group[0])
    except TilessegError as error:
        return str(error)
    return None


def _by_name(files: Sequence[str]) -> list[Group]:
    """Files whose names differ in nothing but their bands, together."""
    groups: dict[str, list[str]] = {}
    for file in files:
        groups.setdefault(os.path.join(os.path.dirname(file), without_band(file)), []).append(file)
    return [tuple(group) for group in groups.values()]
