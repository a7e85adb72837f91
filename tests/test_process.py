"""Memory that a worker frees is kept for the next batch; threads are reused, and nobody waits for one that hangs."""

from __future__ import annotations

import platform
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tilesseg.cluster.launch_arguments import environment_of
from tilesseg.planning.cluster_options import Cluster
from tilesseg.process import HUGE_PAGES, LARGEST, DaemonThreads

PAGE = 4096

PROGRAM = f"""
import resource, sys
import numpy as np
from tilesseg.process import keep_freed_memory

def faults() -> int:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        np.ones({LARGEST // 16}, np.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
first = faults()
done = keep_freed_memory()
faults()
print(done, first, faults())
"""


def run(environment: dict[str, str]) -> tuple[str, int, int]:
    """Whether it was done, and page faults of 20 arrays before and after."""
    call = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(call, env=environment, capture_output=True, text=True, check=True)
    told, before, after = done.stdout.split()
    return told, int(before), int(after)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another malloc")
def test_where_nothing_is_set_it_is_done_too() -> None:
    assert run({})[0] == "True"


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another malloc")
def test_arrays_of_a_worker_are_not_new_memory_each_time() -> None:
    told, before, after = run({"MALLOC_TRIM_THRESHOLD_": "65536"})
    pages = 20 * (LARGEST // 16) // PAGE
    assert told == "True"
    assert before > 0.5 * pages, "Dask's setting costs nothing here, this file can go"
    assert after < 0.1 * pages


@pytest.mark.parametrize(
    "environment",
    [
        {"MALLOC_TRIM_THRESHOLD_": "1000000"},
        {"MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_MMAP_THRESHOLD_": "1000000"},
    ],
)
def test_what_the_user_sets_stays(environment: dict[str, str]) -> None:
    assert run(environment)[0] == "False"


TOUCHED = """
values = bytearray(64 * 2**20)
with open("/proc/self/smaps_rollup") as maps:
    print(next(int(line.split()[1]) for line in maps if line.startswith("AnonHugePages")))
"""


def test_with_our_environment_arrays_are_in_huge_pages() -> None:
    setting, (library, version) = Path("/sys/kernel/mm/transparent_hugepage/enabled"), platform.libc_ver()
    if library != "glibc" or tuple(map(int, version.split("."))) < (2, 35):
        pytest.skip("another malloc")
    if not setting.exists() or "[madvise]" not in setting.read_text():
        pytest.skip("the kernel gives huge pages to everybody or to nobody")
    kilobytes = []
    for environment in ({}, HUGE_PAGES):
        call = [sys.executable, "-c", TOUCHED]
        done = subprocess.run(call, env=environment, capture_output=True, text=True, check=True)
        kilobytes.append(int(done.stdout))
    assert kilobytes[0] < 0.1 * 64 * 1024 and kilobytes[1] > 0.9 * 64 * 1024


@pytest.mark.parametrize("own", [None, "glibc.malloc.arena_max=2"])
def test_how_the_user_has_tuned_glibc_stays(monkeypatch: pytest.MonkeyPatch, own: str | None) -> None:
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    if own:
        monkeypatch.setenv("GLIBC_TUNABLES", own)
    assert environment_of(Cluster())["GLIBC_TUNABLES"] == (own or HUGE_PAGES["GLIBC_TUNABLES"])
    asked = Cluster(environment={"GLIBC_TUNABLES": "glibc.malloc.check=1"})
    assert environment_of(asked)["GLIBC_TUNABLES"] == "glibc.malloc.check=1"


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
    code = "import time; from tilesseg.process import DaemonThreads; DaemonThreads('x').submit(lambda: time.sleep(600))"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
