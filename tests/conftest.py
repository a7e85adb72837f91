"""What all tests share: real data, Hypothesis profiles, and no silent skips where the data is there."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

_CACHE = tempfile.TemporaryDirectory(prefix="tilesseg-cache-")
os.environ["XDG_CACHE_HOME"] = _CACHE.name  # nothing is left in the user's cache folder; processes inherit it

CHECKOUT = Path(__file__).resolve().parent.parent
REQUIRE_DATA = os.environ.get("TILESSEG_REQUIRE_DATA") == "1"
"""Set by `.ci/run` where ../shared/data exists: then nothing may be skipped, and a skip is a failure."""

hypothesis.settings.register_profile("dev", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "dev")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real images, masks and weights, laid beside the checkout; they are never part of it."""
    path = CHECKOUT.parent / "shared" / "data"
    if not path.is_dir():
        pytest.skip("no real data: ../shared/data does not exist beside the checkout")
    return path


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
