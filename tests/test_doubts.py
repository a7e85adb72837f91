"""Notes that state a doubt end with its code, in every text that repeats them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tilesseg.doubts import DOUBTS, code_of, codes_of, doubt

PAGE = Path(__file__).resolve().parents[1] / "docs" / "reference" / "doubts.md"


def test_a_doubt_ends_with_its_code() -> None:
    note = doubt("bands-by-order", "bands are taken in the file's order (1, 2) for the model's red, nir")
    assert note == "bands are taken in the file's order (1, 2) for the model's red, nir [bands-by-order]"
    assert code_of(note) == "bands-by-order"


@pytest.mark.parametrize("note", ["", "one strip", "a list [a, b]", "of a file [unknown-code]", "[pixel-size] first"])
def test_a_note_that_only_informs_has_no_code(note: str) -> None:
    assert code_of(note) is None


def test_a_doubt_without_a_row_in_the_table_is_a_mistake_of_ours() -> None:
    with pytest.raises(KeyError):
        doubt("no-such-code", "text")


def test_codes_are_listed_once_and_in_order() -> None:
    notes = [doubt("pixel-size", "a"), "b", doubt("bands-by-order", "c"), doubt("pixel-size", "d")]
    assert codes_of(notes) == ("bands-by-order", "pixel-size")


def test_the_page_lists_every_code_as_the_table_does() -> None:
    """A new row of `DOUBTS` goes into docs/reference/doubts.md as well, in alphabetical order."""
    rows = re.findall(r"^\| `([a-z0-9-]+)` \| (.+) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert rows == sorted(DOUBTS.items())
