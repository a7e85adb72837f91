"""Status and results of a run as text for people: some lines for each scene, lines for the job, a table, failures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from tilesseg.doubts import code_of
from tilesseg.events import account
from tilesseg.monitoring.humanize import counted, duration

if TYPE_CHECKING:
    from tilesseg.reporting.results import Report, SceneReport
    from tilesseg.reporting.status import Progress, SceneProgress, Status


MANY = 20
"""Number of scenes above which the summary only counts the complete scenes."""
ROWS = 40
REASONS = 12
"""Number of failures that are printed in full below the table."""
HEAD = ("scene", "state", "done", "failed", "skipped", "tiles", "Mpx/s", "time left")
_ORDER = ("unfinished", "failed tiles", "failed products", "damaged", "refused", "waiting", "complete")


def summary(report: Report) -> str:
    """Some lines for each scene: state, area per class, failures; of many scenes, only for the incomplete ones."""
    scenes = report.scenes
    if len(scenes) > MANY:
        scenes = tuple(scene for scene in scenes if scene.state != "complete")
    shown = scenes[: 2 * MANY]
    lines = [line for scene in shown for line in _scene_lines(scene)]
    if len(scenes) > len(shown):
        lines.append(f"and {len(scenes) - len(shown)} more scenes that are not complete")
    if len(report.scenes) > MANY:
        complete = len(report.scenes) - len(scenes)
        lines.append(f"{complete} of {len(report.scenes)} scenes complete; each has its line in summary.csv")
    return "\n".join(lines)


def _scene_lines(scene: SceneReport) -> Iterator[str]:
    yield f"{scene.scene}: {scene.state}, {scene.done} of {scene.tiles} tiles done"
    if scene.refused:
        yield f"  {scene.refused}"
    total = sum(scene.pixels.values())
    for name, pixels in scene.pixels.items():
        area = f", {scene.hectares[name]:,.2f} ha" if name in scene.hectares else ""
        size = f", {scene.square_mm[name]:,.3g} mm²" if name in scene.square_mm else ""
        yield f"  {name}: {pixels:,} px ({pixels / total:.1%}){area}{size}"
    if scene.outside:
        yield f"  outside the region of interest: {scene.outside:,} px ({scene.outside / total:.1%})"
    for note in scene.notes:
        if code_of(note):
            yield f"  doubt: {note}"
    if scene.problem:
        yield f"  products: {scene.problem}"
    for tile, reason in scene.failed.items():
        yield f"  {tile} failed: {reason}"
    for tile, what in scene.damaged.items():
        yield f"  {tile} is done with damage: {what}"


def status_text(status: Status) -> str:
    """Whole status as plain lines: for logs, pipes and files."""
    if len(status.report.scenes) == 1:
        return "\n".join([summary(status.report), *job_lines(status.progress)])
    rows, rest = table_rows(status.progress)
    table = [HEAD, *rows]
    widths = [max(len(row[column]) for row in table) for column in range(len(HEAD))]
    lines = [*job_lines(status.progress), ""]
    lines += ["  ".join(_aligned(row, widths)).rstrip() for row in table]
    return "\n".join([*lines, *([rest] if rest else []), *reasons(status)])


def job_lines(progress: Progress) -> Iterator[str]:
    """Lines for the job: its state, tiles done, rate and time left, and where the time went."""
    states = ", ".join(f"{progress.states[state]} {state}" for state in _ORDER if progress.states.get(state))
    yield f"{_activity(progress)}; scenes: {states or 'none'}"
    failed = f", {progress.failed:,} failed" if progress.failed else ""
    skipped = f", {progress.skipped:,} of them skipped" if progress.skipped else ""
    about = "about " if progress.about else ""
    known = "known tiles" if progress.about else "tiles"
    yield f"{progress.done:,} of {progress.tiles:,} {known} done{skipped}{failed}; " + _pace(progress, about)
    if progress.reduced:
        yield f"{counted(progress.reduced, 'tile')} with smaller batches than planned, for want of device memory"
    network, beside = account(progress.seconds)
    total = sum(network.values())
    if total:
        together, others = (
            ", ".join(f"{name} {spent / total:.0%}" for name, spent in parts.items()) for parts in (network, beside)
        )
        yield f"where the time went: {together}" + (f"; at the same time: {others}" if others else "")


def table_rows(progress: Progress, most: int = ROWS) -> tuple[list[tuple[str, ...]], str | None]:
    """Rows of the table, unfinished and failed scenes first; and a line that counts the scenes without a row."""
    ordered = sorted(progress.scenes, key=lambda scene: _ORDER.index(scene.state))  # stable: in the job's order
    shown, rest = ordered[:most], ordered[most:]
    counts = ", ".join(f"{n} {state}" for state in _ORDER if (n := sum(scene.state == state for scene in rest)))
    return [_row(scene) for scene in shown], f"and more: {counts}" if rest else None


def reasons(status: Status, most: int = REASONS) -> list[str]:
    """Reasons why scenes were refused, tiles failed, or products could not be written."""
    lines = []
    for scene in status.report.scenes:
        if scene.refused:
            lines.append(f"{scene.scene}: refused: {scene.refused}")
        lines += [f"{scene.scene} {tile} failed: {why}" for tile, why in scene.failed.items()]
        lines += [f"{scene.scene} {tile} is done with damage: {what}" for tile, what in scene.damaged.items()]
        if scene.problem:
            lines.append(f"{scene.scene}: {scene.problem}")
    more = [f"and {len(lines) - most:,} more failures; see --json"] if len(lines) > most else []
    return [*([""] if lines else []), *lines[:most], *more]


def drawn(status: Status) -> Any:
    """Status as a Rich table, for a terminal that is redrawn again and again."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for number, name in enumerate(HEAD):
        table.add_column(name, justify="left" if number < 2 else "right", no_wrap=number != 0, overflow="fold")
    rows, rest = table_rows(status.progress, most=24)
    for row in rows:
        table.add_row(*map(Text, row), style=_COLOURS.get(row[1], ""))
    head = [Text(line) for line in job_lines(status.progress)]
    return Group(*head, Text(""), table, *map(Text, [*([rest] if rest else []), *reasons(status, most=6)]))


_COLOURS = {
    "complete": "green",
    "failed tiles": "magenta",
    "failed products": "magenta",
    "damaged": "magenta",
    "refused": "red",
    "waiting": "dim",
}


def _activity(progress: Progress) -> str:
    if progress.running:
        return f"running, {counted(progress.workers, 'worker')} of late"
    return "not running" if progress.age is None else f"not running, last sign {duration(progress.age)} ago"


def _pace(progress: Progress, about: str) -> str:
    if not progress.left and not progress.about:
        return f"{progress.pixels / 1e6:,.1f} Mpx, nothing left to try"
    left = f"{about}{progress.left / 1e6:,.1f} Mpx left" if progress.left else "work left of unknown size"
    if not progress.rate:
        return f"{left}, " + ("no tile has ended lately" if progress.done else "no rate yet")
    return f"{left}, {progress.rate:,.2f} Mpx/s, {about}{duration(progress.eta)} at that rate"


def _row(scene: SceneProgress) -> tuple[str, ...]:
    if scene.pixels is None:
        return (scene.scene, scene.state, *("–" for _ in HEAD[2:]))
    numbers = (scene.done, scene.failed, scene.skipped, scene.tiles)
    busy = scene.state == "unfinished" and scene.rate
    return (
        scene.scene,
        scene.state,
        *(f"{number:,}" for number in numbers),
        f"{scene.rate:.2f}" if busy else "",
        duration(scene.eta) if busy else "",
    )


def _aligned(row: Sequence[str], widths: Sequence[int]) -> Iterator[str]:
    for column, (cell, width) in enumerate(zip(row, widths, strict=True)):
        yield cell.ljust(width) if column < 2 else cell.rjust(width)
