"""Options that several commands share, and the listener that draws progress on stderr."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import typer

from tilesseg.cli.interruption import interruptible
from tilesseg.errors import JobError
from tilesseg.paths import target

PLANNING = Path(__file__).parents[1] / "planning"


def key_option(section: str, key: str, *declarations: str, more: str = "") -> Any:
    """Option that sets a key of a job; its help is the key's docstring.

    Args:
        section: class of the key's section, as `Input`.
        key: name of the key.
        declarations: names of the option, where it has another name than its parameter.
        more: sentences about the option itself, behind the key's.
    """
    source = PLANNING / ("cluster_options.py" if section == "Cluster" else "job.py")
    return typer.Option(*declarations, help=f"{_docstrings(source)[section, key]} {more}".strip())


@cache
def _docstrings(path: Path) -> dict[tuple[str, str], str]:
    """Docstring of each attribute of each class of a file, by both names. Importing pydantic would take 0.1 s."""
    section, key, docstrings = "", "", {}
    for name, attribute, docstring in _CLASS_ATTRIBUTE_DOCSTRING.findall(path.read_text(encoding="utf-8")):
        if docstring and key:
            docstrings[section, key] = " ".join(docstring.split()).replace("`", "")
        section, key = name or section, attribute
    return docstrings


_CLASS_ATTRIBUTE_DOCSTRING = re.compile(r'^class (\w+)|^    (\w+): |^    """(.*?)"""', re.MULTILINE | re.DOTALL)

Image = Annotated[list[str], typer.Argument(metavar="IMAGE", help="A file, a folder of bands, or several files.")]


def local_path(text: str | Path) -> Path:
    """Path of a file or folder of this machine, as somebody types it.

    Raises:
        JobError: it is an address, or in an archive.
    """
    try:
        return Path(target(str(text)))  # a default is a Path already
    except ValueError as error:
        raise JobError(str(error)) from None


JobFile = Annotated[
    Path, typer.Argument(metavar="JOB", parser=local_path, help="A job file (YAML); see tilesseg schema job.")
]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", parser=local_path, help="A run directory.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]

RetryDamaged = Annotated[
    bool, typer.Option("--retry-damaged", help="Do tiles again that are done with damage, where the file is the same.")
]

FailOn = Annotated[
    list[str] | None,
    typer.Option(
        metavar="CODE",
        help="End with exit code 3 if a scene has a doubt of this code, or any doubt for 'any'; may be given again.",
    ),
]

Engine = Annotated[str, key_option("Job", "engine")]
Precision = Annotated[str, key_option("Job", "precision")]
Workers = Annotated[int | None, key_option("Cluster", "workers")]


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
    """Listener that shows the progress of a run on stderr; closed at the end of the context.

    A signal ends the process within some seconds meanwhile, see `interruptible`.
    """
    from tilesseg.monitoring.terminal import progress_for

    listener = progress_for(sys.stderr)
    try:
        with interruptible():
            yield listener
    finally:
        close = getattr(listener, "close", None)
        if close:
            close()
