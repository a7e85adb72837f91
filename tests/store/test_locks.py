"""A lock has one holder, or several that share it, and is released with its file."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from tilesseg.errors import StoreError
from tilesseg.process import this_process
from tilesseg.store.locks import alone, held, holder


def test_an_exclusive_lock_excludes_all_others_until_it_is_released(tmp_path: Path) -> None:
    path = tmp_path / "locks" / "plan"
    with held(path) as first, held(path) as second, held(path, shared=True) as third:
        assert (first, second, third) == (True, False, False)
    with held(path) as taken:
        assert taken


def test_a_shared_lock_excludes_exclusive_ones_alone(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with held(path, shared=True) as first, held(path, shared=True) as second, held(path) as third:
        assert (first, second, third) == (True, True, False)


def test_a_lock_names_the_process_that_holds_it_and_no_earlier_one(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert holder(path) == ""
    path.write_text("a process of a machine with a long name:4711" * 9)
    with held(path), held(path):
        assert holder(path) == this_process()
    with held(path, shared=True):
        assert holder(path) == ""


def test_to_wait_for_a_lock_is_to_take_it_once_it_is_released(tmp_path: Path) -> None:
    path, taken = tmp_path / "lock", threading.Event()

    def wait() -> None:
        with held(path, wait=True) as mine:
            assert mine
            taken.set()

    waiting = threading.Thread(target=wait)
    with held(path):
        waiting.start()
        assert not taken.wait(0.1)
    waiting.join(10)
    assert taken.is_set()


def test_processes_that_share_a_run_work_alone_on_a_part_of_it_and_others_lock_nothing(tmp_path: Path) -> None:
    with alone(tmp_path, "scene", "plan", shared=False):
        assert list(tmp_path.iterdir()) == []
    with (
        alone(tmp_path, "scene", "plan", shared=True),
        held(tmp_path / "locks" / "scenes" / "scene" / "plan") as same,
        held(tmp_path / "locks" / "scenes" / "other" / "plan") as other,
    ):
        assert (same, other) == (False, True)


def test_a_lock_where_nothing_can_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot write"), held(tmp_path / "file" / "lock"):
        pass
