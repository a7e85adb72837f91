"""Whatever all tests share: real data, processes beside each other, Hypothesis profiles, no skips where the data is."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import tempfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from tilesseg.process import available_cores

_CACHE = tempfile.TemporaryDirectory(prefix="tilesseg-cache-")
os.environ["XDG_CACHE_HOME"] = _CACHE.name  # nothing is left in the user's cache folder; processes inherit it

CHECKOUT = Path(__file__).resolve().parent.parent
REQUIRE_DATA = os.environ.get("TILESSEG_REQUIRE_DATA") == "1"
"""Set by `.ci/run` where ../shared/data exists: then nothing may be skipped, and a skip is a failure."""

# On two cores, threads that waited for each other, spinning, made 46 s of a training of 1 s. A test that needs several
# threads passes their number; torch is not imported yet, and processes inherit the environment.
for pool in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(pool, "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

untimed: dict[str, Any] = {"deadline": None, "suppress_health_check": [hypothesis.HealthCheck.too_slow]}
hypothesis.settings.register_profile("dev", **untimed)
hypothesis.settings.register_profile("ci", **untimed, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "dev")


def pytest_xdist_auto_num_workers() -> int:
    """Number of processes of `-n auto`: the cores that this process may use, at most eight for the sake of memory."""
    return min(8, available_cores())


def pytest_runtest_setup() -> None:
    """Give each test one thread of torch, whatever number the test before it has left in the process."""
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)


ALONE = ("large", "kill", "cluster")
"""Marks of tests that measure memory, wait for a time-out or start processes of their own: nothing runs beside them."""


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    with _turn(item):
        return (yield)


@contextmanager
def _turn(item: pytest.Item) -> Iterator[None]:
    """Hold the lock that the processes of `-n` share: exclusively for a test that has to be alone.

    The lock is taken behind a gate, or a test that has to be alone would wait until the others have run out of tests.
    """
    if "PYTEST_XDIST_WORKER" not in os.environ:
        yield
        return
    shared = Path(item.config.option.basetemp).parent
    alone = any(item.get_closest_marker(mark) for mark in ALONE)
    with (shared / "gate.lock").open("a") as gate, (shared / "turn.lock").open("a") as turn:
        fcntl.flock(gate, fcntl.LOCK_EX)
        fcntl.flock(turn, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        fcntl.flock(gate, fcntl.LOCK_UN)
        try:
            yield
        finally:  # here, because a process that the test has forked may still have both files open
            fcntl.flock(turn, fcntl.LOCK_UN)


def _beside_checkout(name: str, lack: str) -> Path:
    """A folder of `../shared`; a test that needs it is skipped where the folder does not exist."""
    path = CHECKOUT.parent / "shared" / name
    if not path.is_dir():
        pytest.skip(f"{lack}: ../shared/{name} does not exist beside the checkout")
    return path


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real images, masks and weights, laid beside the checkout; they are never part of it."""
    return _beside_checkout("data", "no real data")


@pytest.fixture(scope="session")
def shared_cases() -> Path:
    """Small inputs of public bug reports with their right values, laid beside the checkout; each has its own test."""
    return _beside_checkout("cases", "no cases")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    return _refuse_skip(report)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    return _refuse_skip(report)


def _refuse_skip(report: Any) -> Any:
    if REQUIRE_DATA and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"skipped although TILESSEG_REQUIRE_DATA=1: {reason}"
    return report


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    """A server of the test's folder that answers ranges; its address."""
    command = [sys.executable, str(Path(__file__).parent / "support" / "range_server.py"), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        yield f"http://127.0.0.1:{server.stdout.readline().strip()}"
        server.terminate()
