"""Rules of the prose that a test can hold: a docstring names its noun."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "tilesseg"
MODULES = sorted(PACKAGE.rglob("*.py"))
NO_NOUN = {"As", "How", "It", "Of", "That", "Them", "These", "They", "Those", "What", "Where", "Which", "Who"}
"""First words that leave the noun out: `Of each convolution.` says less than `Padding of each convolution.`"""


def docstrings(path: Path) -> Iterator[tuple[int, str]]:
    """Line and text of each docstring of a file, those behind attributes and constants included."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        for statement in getattr(node, "body", ()) if not isinstance(node, ast.Lambda | ast.IfExp) else ():
            match statement:
                case ast.Expr(ast.Constant(str(text))):
                    yield statement.lineno, text


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_docstring_names_its_noun(path: Path) -> None:
    found = [
        f"{path.name}:{line}: {text.split(chr(10))[0]}" for line, text in docstrings(path) if text.split()[0] in NO_NOUN
    ]
    assert not found, "\n".join(found)
