"""Every refusal says what failed, why, and what to do: `cannot write m.tif: no permission; choose another path`."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "tilesseg"
MODULES = sorted(PACKAGE.rglob("*.py"))
REFUSALS = {"TilessegError", "JobError", "ModelError", "SourceError", "FormatError", "StoreError"}
NO_VERB = {
    "a",
    "an",
    "and",
    "as",
    "is",
    "it",
    "its",
    "not",
    "one",
    "or",
    "that",
    "the",
    "they",
    "this",
    "tilesseg",
    "what",
}
"""First words of a remedy that is none: it says what to do, in the imperative."""


def messages(path: Path) -> Iterator[tuple[int, ast.expr]]:
    """Line and first argument of each refusal that a file makes."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.Call(func=ast.Name(name), args=[message, *_]) if name in REFUSALS:
                yield node.lineno, message


def text_of(message: ast.expr) -> str | None:
    """Static text of a message, with … for each value; None for a message that was built elsewhere."""
    match message:
        case ast.Constant(str(text)):
            return text
        case ast.JoinedStr(parts):
            return "".join(text_of(part) or "…" for part in parts)
        case ast.IfExp(body=first):
            return text_of(first)
        case ast.Call(func=ast.Name("cannot"), args=[what, cause, remedy]):
            return f"cannot {text_of(what)}: {text_of(cause)}; {text_of(remedy)}"
    return None


def has_form(message: ast.expr) -> bool:
    """Whether a message ends with what to do, behind a semicolon: `; choose another path`."""
    text = text_of(message)
    if text is None:
        return True
    _, sign, remedy = text.rpartition(";")
    return bool(sign) and remedy.split()[0] not in NO_VERB


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_refusal_says_what_to_do(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    found = [ast.get_source_segment(text, message) for _, message in messages(path) if not has_form(message)]
    assert not found, "\n".join(str(one) for one in found)
