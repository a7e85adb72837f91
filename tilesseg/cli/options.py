"""Options that several commands share, and the listener that draws progress on stderr."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

Image = Annotated[list[str], typer.Argument(metavar="IMAGE", help="A file, a folder of bands, or several files.")]
JobFile = Annotated[Path, typer.Argument(metavar="JOB", help="A job file (YAML); see tilesseg schema job.")]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]

Engine = Annotated[str, typer.Option(help="What computes the network: auto, torch, openvino or onnxruntime.")]
Precision = Annotated[str, typer.Option(help="Numbers it computes with: auto, fp32 (exact), bf16 or fp16.")]


def names(text: str | None) -> list[str] | None:
    """List of the names in `4,3,2` or `red,nir`."""
    return [name.strip() for name in text.split(",")] if text else None


def or_auto(value: int | None) -> int | str:
    """Value of a job key: `auto` where the option is absent."""
    return "auto" if value is None else value


def given(**options: Any) -> dict[str, Any]:
    """Options that are not None."""
    return {key: value for key, value in options.items() if value is not None}


@contextmanager
def progress() -> Iterator[Any]:
    """Listener that shows the progress of a run on stderr; closed at the end of the context."""
    from tilesseg.monitoring.terminal import progress_for

    listener = progress_for(sys.stderr)
    try:
        yield listener
    finally:
        close = getattr(listener, "close", None)
        if close:
            close()
