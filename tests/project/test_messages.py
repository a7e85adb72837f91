"""Every refusal says what failed, why, and what to do: `cannot write m.tif: no permission; choose another path`."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "tilesseg"
MODULES = sorted(PACKAGE.rglob("*.py"))
REFUSALS = {"TilessegError", "JobError", "ModelError", "SourceError", "FormatError", "StoreError"}
BUILDERS = {"cannot"}
"""Functions whose result has the form already."""
ROOMS_TO_DO = {"run", "planning", "formats"}
"""Rooms whose messages have not been brought into the form yet."""


def messages(path: Path) -> Iterator[tuple[int, ast.expr]]:
    """Line and first argument of each refusal that a file makes."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.Call(func=ast.Name(name), args=[message, *_]) if name in REFUSALS:
                yield node.lineno, message


def has_form(message: ast.expr) -> bool:
    """Whether a message ends with what to do, behind a semicolon; one that is handed on was built elsewhere."""
    match message:
        case ast.Call(func=ast.Name(name)) if name in BUILDERS:
            return True
        case ast.Name() | ast.Attribute() | ast.Call():
            return True
    parts = [part.value for part in ast.walk(message) if isinstance(part, ast.Constant) and isinstance(part.value, str)]
    return any(";" in part for part in parts)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_refusal_says_what_to_do(path: Path) -> None:
    if any(path.is_relative_to(PACKAGE / room) for room in ROOMS_TO_DO):
        return
    text = path.read_text(encoding="utf-8")
    found = [ast.get_source_segment(text, message) for _, message in messages(path) if not has_form(message)]
    assert not found, "\n".join(str(one) for one in found)
