"""Threads that are reused, and that nobody waits for at the end of the process."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import pytest

from tilesseg.threads import DaemonThreads


def test_threads_are_reused_and_as_many_as_there_is_work() -> None:
    pool = DaemonThreads("test")
    assert len({pool.submit(threading.get_ident).result() for _ in range(20)}) == 1
    barrier = threading.Barrier(3, timeout=20)
    futures = [pool.submit(barrier.wait) for _ in range(3)]
    assert sorted(future.result() for future in futures) == [0, 1, 2]
    pool.end()


def test_an_exception_of_any_kind_is_the_result_and_the_thread_goes_on() -> None:
    pool, kept = DaemonThreads("test"), threading.get_ident
    first = pool.submit(kept).result()
    with pytest.raises(SystemExit):
        pool.submit(sys.exit).result()
    assert pool.submit(kept).result() == first
    pool.end()


def test_idle_threads_end_and_leave_nothing_behind() -> None:
    before = threading.active_count()
    pool = DaemonThreads("test")
    for future in [pool.submit(lambda: time.sleep(0.01)) for _ in range(5)]:
        future.result()
    pool.end()
    assert threading.active_count() == before


def test_a_thread_that_hangs_does_not_hold_up_the_end_of_the_process() -> None:
    code = "import time; from tilesseg.threads import DaemonThreads; DaemonThreads('x').submit(lambda: time.sleep(600))"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
