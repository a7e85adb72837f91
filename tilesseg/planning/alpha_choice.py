"""Whether a band that a file tags as alpha is the mask of a scene, or one of its bands.

GDAL tags the fourth band of bytes as alpha by default, also a near infrared band (NAIP, drones). So a band that is
asked for is a band, and an alpha that looks like a band is refused until the user says what it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tilesseg.errors import SourceError
from tilesseg.formats.open import open_source

if TYPE_CHECKING:
    from tilesseg.formats.reading.open_options import Opening
    from tilesseg.formats.source import AlphaBand, Source

_BETWEEN = 0.01
"""Share of values between 0 and the maximum above which alpha may be a band; soft edges of a mask have less."""
_REMEDY = "give --alpha band (input.alpha) if it is a band, --alpha mask if it is the mask"


class AlphaChoice(NamedTuple):
    """An image with its alpha as the mask, or as a band."""

    source: Source
    opening: Opening
    """Options that open it so."""
    selected: Sequence[str | int] | None
    """Bands that the job selects, as `source` counts them."""


def resolve_alpha(
    source: Source,
    opening: Opening,
    *,
    paths: Sequence[str],
    wanted: Sequence[str],
    selected: Sequence[str | int] | None,
) -> AlphaChoice:
    """The image with its alpha as the mask, or as a band where the job or the model asks for it.

    Args:
        source: the image as `opening` opens it.
        opening: options of the job; a choice of theirs is kept.
        paths: files of the image.
        wanted: names of the model's channels.
        selected: bands that the job selects: names, or numbers from 1, alpha counted unless `opening` says that it is
            the mask.

    Raises:
        SourceError: alpha may be a band, and nobody says what it is.
    """
    if not source.alpha or opening.alpha is not None:
        return AlphaChoice(source, opening, selected)
    told = ", ".join(str(band.number) for band in source.alpha)
    if selected is not None and _is_ambiguous(source, selected):
        raise SourceError(
            f"{paths[0]}: band {told} is tagged alpha, and bands {', '.join(map(str, selected))} are others where it "
            "is counted than where it is not; give --alpha band (input.alpha) to count it, --alpha mask to leave it out"
        )
    if _is_selected(source, selected) if selected is not None else _is_wanted(source, wanted):
        opening = replace(opening, alpha="band")
        numbers = {(band.name or "alpha").lower(): band.number for band in source.alpha}
        named = selected and [numbers.get(str(band).lower(), band) for band in selected]
        return AlphaChoice(open_source(paths, opening), opening, named)
    short = len(wanted) - len(source.bands)
    if selected is None and 0 < short <= len(source.alpha):
        shown = ", ".join(name or "no name" for name in source.bands)
        raise SourceError(
            f"{paths[0]} has {len(source.bands)} bands ({shown}) and band {told}, which is tagged alpha, and the model "
            f"takes {len(wanted)} ({', '.join(wanted)}); {_REMEDY}, or name all bands with --bands"
        )
    share = _share_between(source, replace(opening, alpha="band"), paths)
    if share > _BETWEEN:
        raise SourceError(
            f"{paths[0]}: band {told} is tagged alpha, and {100 * share:.3g} % of its sampled values are neither 0 nor "
            f"the maximum, as in a band such as near infrared; {_REMEDY}"
        )
    return AlphaChoice(source, opening, _without_alpha(selected, source.alpha))


def _without_alpha(selected: Sequence[str | int] | None, alpha: Sequence[AlphaBand]) -> Sequence[str | int] | None:
    """Selected bands by their numbers among the bands that are not alpha."""
    if selected is None:
        return None
    masks = [band.number for band in alpha]
    numbers = [int(band) if str(band).isdecimal() else None for band in selected]
    return tuple(
        band if number is None else number - sum(mask < number for mask in masks)
        for band, number in zip(selected, numbers, strict=True)
    )


def _is_ambiguous(source: Source, selected: Sequence[str | int]) -> bool:
    """Whether selected numbers mean one band where alpha is counted, and another where it is not."""
    numbers = [int(band) for band in selected if str(band).isdecimal()]
    counts = any(number > len(source.bands) for number in numbers)
    return not counts and any(number >= source.alpha[0].number for number in numbers)


def _is_selected(source: Source, selected: Sequence[str | int]) -> bool:
    """Whether the job selects an alpha band, by its number or its name."""
    asked = {str(band).lower() for band in selected}
    names = {(name or "").lower() for name in source.bands}
    return any(
        str(band.number) in asked or bool(({(band.name or "alpha").lower()} - names) & asked) for band in source.alpha
    )


def _is_wanted(source: Source, wanted: Sequence[str]) -> bool:
    """Whether the model takes an alpha band by its name, and has no band without it."""
    own = {(name or "").lower() for name in source.bands}
    named = {(band.name or "alpha").lower() for band in source.alpha}
    return bool({name.lower() for name in wanted} & (named - own))


def _share_between(source: Source, opening: Opening, paths: Sequence[str]) -> float:
    """Largest share of the sampled values of an alpha band that are neither 0 nor the band's maximum."""
    plain = open_source(paths, replace(opening, resolution=None, scale=1.0, offset=0.0))
    shares = [0.0]
    for band in source.alpha:
        sample = plain.select([band.number - 1]).sample()
        if sample.size:
            shares.append(float(np.mean((sample != 0) & (sample != sample.max()))))
    return max(shares)
