"""YAML of job files and cluster files, read so that no file can end the process.

The loader in C calls itself for each level of nesting, and beyond some ten thousand levels the stack of the process is
full: no exception, but a signal. So the levels of a suspicious file are counted first, by its events.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from tilesseg.errors import JobError, cannot

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""YAML loader in C where there is one: the loader in Python takes half a minute for a list of 100,000 scenes."""
DEEPEST = 64
"""Largest number of levels: a job file has six."""
_FLAT = re.compile(r"""[\[{](?:[^\[\]{}'"#\n]|"[^"\\\[\]{}\n]*"|'[^'\[\]{}\n]*')*[\]}]""")
"""A list or mapping in brackets on one line, with no other in it: both its brackets are such, or both are text."""
_INDENT = re.compile(r"^[\s?:-]*", re.MULTILINE)


def read_yaml(path: Path, what: str) -> Any:
    """Content of a YAML file, as plain data.

    Args:
        path: path of the file.
        what: its kind, for the refusal.

    Raises:
        JobError: the file cannot be read, is not YAML, or is nested too deeply.
    """
    try:
        text = path.read_text(encoding="utf-8")
        if _deepest_possible(text) > DEEPEST:
            _refuse_deep(path, text)
        return yaml.load(text, _LOADER)
    except OSError as error:
        raise JobError(cannot(f"read the {what} {path}", error, "give its path")) from None
    except (yaml.YAMLError, ValueError, TypeError, AttributeError) as error:  # of values that only look like dates
        raise JobError(cannot(f"read {path} as YAML", error, "correct the file")) from None


def _deepest_possible(text: str) -> int:
    """Number of levels that a text has at most: each takes a bracket, or a column of indentation."""
    nested = _FLAT.sub("", _FLAT.sub("", text))
    indent = max(len(indent) for indent in _INDENT.findall(text))
    return 2 + nested.count("[") + nested.count("{") + indent


def _refuse_deep(path: Path, text: str) -> None:
    depth = 0
    for event in yaml.parse(text, _LOADER):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > DEEPEST:
            where = f"line {event.start_mark.line + 1}" if event.start_mark else "it"
            cause = f"{where} has more than {DEEPEST} levels"
            raise JobError(cannot(f"read {path} as YAML", cause, "correct the file"))
