"""Laws of docs/reliability.md, for some seeds of `make chaos`; the page has the table of many more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.chaos import trial as chaos
from benchmarks.chaos.__main__ import BEGIN, END, PAGE, table_of
from benchmarks.chaos.draw import DISK, EXECUTORS, Draw, draw, faults_of

ALL = [draw(seed, disks=False) for seed in range(200)]


@pytest.mark.kill
@pytest.mark.cluster
@pytest.mark.parametrize(
    ("executor", "fault"),
    [
        ("threads", "transient error"),
        ("threads", "SIGKILL to the client"),
        ("local", "segfault"),
        ("local", "a shard is an older one"),
        ("address", "hang with the interpreter"),
        ("array", "SIGTERM to the client"),
    ],
)
def test_every_law_holds_for_a_seed(tmp_path: Path, executor: str, fault: str) -> None:
    one = next(one for one in ALL if (one.executor, one.fault) == (executor, fault))
    outcome = chaos.trial(one, tmp_path)
    assert outcome.fine, outcome.broken


@pytest.mark.kill
@pytest.mark.cluster
def test_a_law_that_is_broken_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bit of a finished run flips, and nobody looks for it."""

    def damage_alone(draw: Draw, folder: Path, run: Path, *others: Any) -> None:
        chaos.damage(draw, run)

    monkeypatch.setattr(chaos, "lift", damage_alone)
    outcome = chaos.trial(Draw(1, "threads", 1, 1, "a shard is altered", 1), tmp_path)
    assert "verify ends with 3 at the end" in outcome.broken


def test_seeds_draw_every_pair_of_executor_and_fault_and_the_same_again() -> None:
    pairs = {(executor, fault) for executor in EXECUTORS for fault in faults_of(executor) if fault != DISK}
    assert {(one.executor, one.fault) for one in ALL} == pairs
    assert [draw(seed, disks=False) for seed in range(200)] == ALL


def test_the_page_has_the_table_of_what_was_run() -> None:
    text = PAGE.read_text(encoding="utf-8")
    table = [line for line in text.partition(BEGIN)[2].partition(END)[0].splitlines() if line.startswith("|")]
    assert table[:2] == table_of([])
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table[2:]]
    assert {(row[1], row[0]) for row in rows} >= {
        (executor, fault) for executor in EXECUTORS for fault in faults_of(executor)
    }
    assert all(row[2] == row[3] for row in rows), "a seed of the page broke a law"
    assert f"Seeds: {sum(int(row[2]) for row in rows)}; every law held in {sum(int(row[3]) for row in rows)}." in text
