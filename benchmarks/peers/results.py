"""The results of `bench.py` as plain rows: medians, agreement, the file `latest.json`, and the table."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import tifffile
import zarr

BAND = 2048
VOID = 254
"""Labels from here on are no classes: nodata, or not processed."""


@dataclass(frozen=True)
class Row:
    """One tool at one piece of work; None where it is not measured, or does not apply."""

    work: str
    tool: str
    engine: str
    precision: str
    mpx: float
    """Of the image; of the bare network, what it predicted."""
    wall_s: float | None = None
    cpu_s: float | None = None
    """Of all processes."""
    peak_gb: float | None = None
    """Of all processes together."""
    mpx_per_s: float | None = None
    work_factor: float | None = None
    """Predicted pixels ÷ pixels of the image."""
    agreement: float | None = None
    """Share of the pixels whose label is that of tilesseg with torch in float32."""
    of_bare: float | None = None
    """Wall time ÷ (predicted pixels ÷ rate of the bare network in the same round)."""
    runs: int = 1
    error: str | None = None

    @property
    def key(self) -> tuple[str, ...]:
        return self.work, self.tool, self.engine, self.precision


MEASURED = ("wall_s", "cpu_s", "peak_gb", "mpx_per_s", "work_factor", "agreement", "of_bare")


def middle(runs: Sequence[Row]) -> Row:
    """The median of each figure over the runs of one row; a run that failed makes the row a failure.

    Raises:
        ValueError: the runs are of different rows, or there are none.
    """
    if len({run.key for run in runs}) != 1:
        raise ValueError(f"a median is of runs of one row, not of {sorted({run.key for run in runs})}")
    failed = next((run for run in runs if run.error), None)
    if failed:
        return replace(failed, runs=len(runs))
    figures = {name: [value for run in runs if (value := getattr(run, name)) is not None] for name in MEASURED}
    return replace(
        runs[0], runs=len(runs), **{name: statistics.median(found) for name, found in figures.items() if found}
    )


def medians(runs: Iterable[Row]) -> list[Row]:
    """One row for all runs with the same names, in the order in which they first came."""
    found: dict[tuple[str, ...], list[Row]] = {}
    for run in runs:
        found.setdefault(run.key, []).append(run)
    return [middle(same) for same in found.values()]


def merged(old: Iterable[Row], new: Sequence[Row]) -> list[Row]:
    """Older rows of works that were not measured again, and the new ones."""
    again = {row.work for row in new}
    return [row for row in old if row.work not in again] + list(new)


def write(path: Path, rows: Sequence[Row]) -> None:
    """As a list of objects; figures with four digits. A file half written is none."""
    data = [{key: _short(value) for key, value in asdict(row).items()} for row in rows]
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    partial.replace(path)


def read(path: Path) -> list[Row]:
    return [Row(**row) for row in json.loads(path.read_text(encoding="utf-8"))] if path.exists() else []


def _short(value: object) -> object:
    """Of a share near 1 what is missing counts."""
    return (round(value, 6) if abs(value) <= 2 else float(f"{value:.4g}")) if isinstance(value, float) else value


def agreement(one: Path, other: Path) -> float:
    """Share of the pixels of two label images (TIFF, full resolution) that are equal; void ones are left out.

    Raises:
        ValueError: they differ in size.
    """
    with _labels(one) as first, _labels(other) as second:
        return _agreement(first, second, f"{one.name} is {first.shape}, {other.name} is {second.shape}")


def _agreement(first: zarr.Array, second: zarr.Array, what: str) -> float:
    if first.shape != second.shape:
        raise ValueError(f"{what}; compare masks of one image")
    same = of = 0
    for y in range(0, first.shape[0], BAND):
        a, b = np.asarray(first[y : y + BAND]), np.asarray(second[y : y + BAND])
        valid = (a < VOID) & (b < VOID)
        same, of = same + int(((a == b) & valid).sum()), of + int(valid.sum())
    return same / of if of else 0.0


@contextmanager
def _labels(path: Path) -> Iterator[zarr.Array]:
    """Read by piece: a mask of a gigapixel is not loaded."""
    with tifffile.imread(path, aszarr=True, level=0) as store:
        opened = zarr.open(store, mode="r")
        yield opened if isinstance(opened, zarr.Array) else opened["0"]


COLUMNS = {
    "tool": "tool", "engine": "engine", "precision": "precision", "wall_s": "s", "cpu_s": "CPU s", "peak_gb": "GB",
    "mpx_per_s": "Mpx/s", "of_bare": "÷ bare", "work_factor": "work", "agreement": "agreement", "ratio": "rate ×",
}  # fmt: skip


def table(rows: Sequence[Row], *, slowest: str = "MONAI as documented") -> str:
    """Markdown: a table for each work; `rate ×` is against the tool named, where it was measured."""
    parts = []
    for work in dict.fromkeys(row.work for row in rows):
        here = [row for row in rows if row.work == work]
        base = next((row.mpx_per_s for row in here if row.tool == slowest), None)
        lines = ["| " + " | ".join(COLUMNS.values()) + " |", "| " + " | ".join("---" for _ in COLUMNS) + " |"]
        lines += ["| " + " | ".join(_cells(row, base)) + " |" for row in here]
        parts.append(f"**{work}**, {here[0].runs} run{'s' * (here[0].runs > 1)} of each\n\n" + "\n".join(lines))
    return "\n\n".join(parts)


def _cells(row: Row, base: float | None) -> list[str]:
    if row.error:
        return [row.tool, row.engine, row.precision, row.error.replace("|", "/"), *[""] * (len(COLUMNS) - 4)]
    ratio = None if base is None or row.mpx_per_s is None or row.tool.startswith("bare") else row.mpx_per_s / base
    figures = (
        (row.wall_s, ".1f"), (row.cpu_s, ".1f"), (row.peak_gb, ".2f"), (row.mpx_per_s, ".2f"), (row.of_bare, ".2f"),
        (row.work_factor, ".3f"), (row.agreement, ".3%"), (ratio, ".2f"),
    )  # fmt: skip
    return [
        row.tool, row.engine, row.precision, *("" if value is None else f"{value:{form}}" for value, form in figures)
    ]  # fmt: skip
