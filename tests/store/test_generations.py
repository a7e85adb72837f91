"""Laws of generations: one execution writes at a time, shares of a job array beside each other, dead ones never."""

from __future__ import annotations

from contextlib import ExitStack
from contextvars import copy_context
from pathlib import Path
from threading import Thread

import numpy as np
import pytest

from tilesseg.atomic_write import fenced, published
from tilesseg.errors import StoreError, Superseded
from tilesseg.events import TileDone, TileFailed
from tilesseg.raster.window import Window
from tilesseg.run.worker_state import Assignment
from tilesseg.store.generations import FILE, next_generation, share_lock
from tilesseg.store.locks import held
from tilesseg.store.run_directory import RunDirectory
from tilesseg.store.scene_store import Store


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory.create(tmp_path / "run")


@pytest.fixture
def store(run: RunDirectory) -> Store:
    store = run.scene("scene")
    store.create(shape=(32, 32), shard=16, chunk=8, fingerprint="f")
    return store


def test_numbers_grow_and_only_the_last_execution_is_current(run: RunDirectory) -> None:
    first, second = next_generation(run.path), next_generation(run.path)
    assert (first.number, second.number) == (1, 2)
    second.check()
    with pytest.raises(Superseded, match=r"execution 1 of .* has been replaced by a later one"):
        first.check()


def test_shares_work_beside_each_other_while_their_locks_are_held(run: RunDirectory) -> None:
    whole = next_generation(run.path)
    with ExitStack() as one, ExitStack() as two:
        one.enter_context(held(share_lock(run.path, "1/3")))
        first = next_generation(run.path, share="1/3")
        two.enter_context(held(share_lock(run.path, "2/3")))
        second = next_generation(run.path, share="2/3")
        first.check(), second.check()
        with pytest.raises(Superseded):
            whole.check()
        one.close()  # its process died, and another takes the same share
        one.enter_context(held(share_lock(run.path, "1/3")))
        again = next_generation(run.path, share="1/3")
        again.check(), second.check()
        with pytest.raises(Superseded):
            first.check()
        two.close()
        next_generation(run.path, share="3/3")
        with pytest.raises(Superseded):
            second.check()  # dead, and nobody has taken its share yet
    next_generation(run.path)
    with pytest.raises(Superseded):
        again.check()


def test_a_run_of_an_earlier_version_has_no_numbers_and_begins_with_1(run: RunDirectory) -> None:
    assert not (run.path / FILE).exists() and next_generation(run.path).number == 1


def test_a_superseded_attempt_publishes_nothing(run: RunDirectory, store: Store) -> None:
    old, quiet = next_generation(run.path), np.full((16, 16), 3, np.uint8)
    store.mask_rows(Window(0, 0, 16, 16)).write(quiet)
    next_generation(run.path)
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    record = TileDone("scene", "r000-c000", 256, patches=1, skipped=0, counts={}, areas={})
    attempts = [
        lambda: store.mask_rows(Window(0, 0, 16, 16)).write(np.full((16, 16), 5, np.uint8)),
        lambda: store.mask_rows(Window(0, 0, 16, 16)).write(np.full((16, 16), 254, np.uint8)),
        lambda: store.mark_done(record),
        lambda: store.mark_failed(TileFailed("scene", "r000-c000", 256, "late")),
        lambda: store.write_json("finished.json", {}),
    ]
    for attempt in attempts:
        with fenced(old.check), pytest.raises(Superseded):
            attempt()
    assert {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()} == before


def test_a_removed_run_directory_is_not_made_again_by_an_attempt(run: RunDirectory) -> None:
    generation = next_generation(run.path)
    (run.path / FILE).unlink()
    with pytest.raises(StoreError, match=r"generation\.json is gone"):
        generation.check()


def test_a_thread_in_a_copy_of_the_context_is_fenced_and_no_other(run: RunDirectory, tmp_path: Path) -> None:
    old, outcomes = next_generation(run.path), list[str]()
    next_generation(run.path)

    def publish(name: str) -> None:
        try:
            with published(tmp_path / name) as temporary:
                temporary.touch()
            outcomes.append(name)
        except Superseded:
            outcomes.append("superseded")

    with fenced(old.check):
        context = copy_context()
        for thread in (Thread(target=context.run, args=(publish, "a")), Thread(target=publish, args=("b",))):
            thread.start()
            thread.join()
    publish("c")
    assert outcomes == ["superseded", "b", "c"] and sorted(p.name for p in tmp_path.iterdir()) == ["b", "c", "run"]


def test_names_of_tasks_tell_the_run_and_the_execution(run: RunDirectory, tmp_path: Path) -> None:
    first, second = (Assignment.of(run, first="scene", generation=number) for number in (1, 2))
    other = Assignment.of(RunDirectory(tmp_path / "other"), first="scene")
    key = first.token.split("-")[0]
    assert second.token.startswith(key) and second.token != first.token and not other.token.startswith(key)
