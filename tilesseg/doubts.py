"""Doubts: notes that say with what reservation a mask is true. Each ends with its code: `… [bands-by-order]`.

A doubt is text, so that it reads the same in the terminal, in `plan.json`, `summary.json` and the report; the code at
its end is what `tilesseg run --fail-on` asks for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from tilesseg.errors import JobError, cannot

DOUBTS: dict[str, str] = {
    "absent-chunks": "chunks that a Zarr does not store are taken as its fill value",
    "bands-by-order": "bands without names are taken in the file's order",
    "bands-by-sensor": "numbers of bands are taken for one sensor's, which the file does not name",
    "damaged-pixels": "pixels of the image cannot be decoded; what depends on them is 254, or from a coarser level",
    "empty-mask": "every pixel is nodata, so the mask is empty",
    "image-of-several": "another image of the file is nearly as large as the one that is read",
    "labels-not-scores": "the network gives labels in place of scores",
    "margin-too-small": "the margin that the model states is smaller than its network needs",
    "no-background": "scores exclude each other in no way, and no class is the background",
    "no-valid-pixel": "no valid pixel was found: the mask is all nodata",
    "nodata-beside-alpha": "pixels that alpha calls valid have the nodata value in every band",
    "nodata-in-some-bands": "pixels that are nodata in some of the bands only are segmented",
    "patch-sides": "the network refuses sizes of patches that its spec allows",
    "pixel-size": "pixels are much finer or coarser than those that the model was trained on",
    "pixel-size-contradicted": "two entries of the file state different sizes of a pixel",
    "pixel-size-implausible": "CRS and transform say a size of pixels that no satellite has",
    "scale-contradiction": "metadata of a product disagree on what its numbers mean",
    "scores-not-activated": "scores that are not between 0 and 1 are compared with a threshold",
    "sees-whole-patch": "a layer sees the whole patch, so labels depend on where patches lie",
    "value-range": "values come nowhere near the model's range, or most lie beyond it, and their type does not say why",
}
"""Meaning of each code, one sentence. `docs/reference/doubts.md` repeats the table; a test holds both alike."""

ANY = "any"
"""Word for all codes."""
_CODE = re.compile(r" \[([a-z0-9]+(?:-[a-z0-9]+)*)\]$")


def doubt(code: str, text: str) -> str:
    """The note of a doubt: its text, which states the doubt and its size, and its code.

    Args:
        code: a code of `DOUBTS`.
        text: one sentence, without a full stop.

    Raises:
        KeyError: no doubt has this code.
    """
    if code not in DOUBTS:
        raise KeyError(code)
    return f"{text} [{code}]"


def code_of(note: str) -> str | None:
    """Code of a note that states a doubt, or None of a note that only informs."""
    match = _CODE.search(note)
    return match.group(1) if match and match.group(1) in DOUBTS else None


def check_codes(codes: Iterable[str]) -> None:
    """Refuse codes that no doubt has; `any` stands for all of them.

    Raises:
        JobError: with the codes that exist.
    """
    for code in codes:
        if code != ANY and code not in DOUBTS:
            because = "no doubt has this code"
            raise JobError(cannot(f"fail on {code}", because, f"choose {ANY}, or among {', '.join(sorted(DOUBTS))}"))


def codes_of(notes: Iterable[str]) -> tuple[str, ...]:
    """Codes of the doubts among some notes, sorted, each once."""
    return tuple(sorted({code for note in notes if (code := code_of(note))}))
