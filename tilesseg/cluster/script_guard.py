"""A script that starts processes from its top level is refused: each of them would run the script again."""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tilesseg.errors import JobError

if TYPE_CHECKING:
    from types import FrameType


def refuse_unguarded_script() -> None:
    """Refuse to start processes from the top level of a script: each of them would run the script again.

    Raises:
        JobError: with the line to guard.
    """
    main = sys.modules.get("__main__")
    path = getattr(main, "__file__", None)
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        at_top = frame.f_code.co_name == "<module>" and frame.f_globals is getattr(main, "__dict__", None)
        if at_top and path and Path(path).suffix == ".py" and not _guarded(Path(path), frame.f_lineno):
            raise JobError(
                f'{path}, line {frame.f_lineno}, starts worker processes outside `if __name__ == "__main__":`, and '
                "each of them would run the script again; move the call below that line"
            )
        frame = frame.f_back


def _guarded(path: Path, line: int) -> bool:
    """Whether the top-level statement at `line` is under a test of `__name__`."""
    for statement in ast.parse(path.read_text(encoding="utf-8")).body:
        if statement.lineno <= line <= (statement.end_lineno or statement.lineno):
            return isinstance(statement, ast.If) and "__name__" in ast.dump(statement.test)
    return False
