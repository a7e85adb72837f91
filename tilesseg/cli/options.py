"""What several commands do with their arguments: lists out of commas, `auto` for what is left out, progress."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

JobFile = Annotated[Path, typer.Argument(metavar="JOB", help="A job file (YAML); see tilesseg schema job.")]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.")]

Engine = Annotated[str, typer.Option(help="What computes the network: auto, torch, openvino or onnxruntime.")]
Precision = Annotated[str, typer.Option(help="Numbers it computes with: auto, fp32 (exact), bf16 or fp16.")]


def names(text: str | None) -> list[str] | None:
    """`4,3,2` or `red,nir` as a list."""
    return [name.strip() for name in text.split(",")] if text else None


def or_auto(value: int | None) -> int | str:
    """`auto` for what is not given."""
    return "auto" if value is None else value


def given(**options: Any) -> dict[str, Any]:
    """The options that are given."""
    return {key: value for key, value in options.items() if value is not None}


@contextmanager
def progress() -> Iterator[Any]:
    """A listener that shows on stderr how far a run is."""
    from tilesseg.monitoring.terminal import progress_for

    listener = progress_for(sys.stderr)
    try:
        yield listener
    finally:
        close = getattr(listener, "close", None)
        if close:
            close()
