"""Laws of the test run itself: what has to be alone is alone, and nothing is skipped where the data is there."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.slow  # each starts three processes of pytest

TOGETHER = """
import time
from pathlib import Path

import pytest

LOG = Path(__file__).with_name("log")


def note(text):
    with LOG.open("a") as log:
        log.write(text + " ")


@pytest.mark.parametrize("number", range(10))
def test_beside_others(number):
    note("(")
    time.sleep(0.05)
    note(")")


@pytest.mark.kill
@pytest.mark.parametrize("number", range(4))
def test_alone(number):
    note("[")
    time.sleep(0.05)
    note("]")


@pytest.mark.parametrize("number", range(10))
def test_beside_others_again(number):
    test_beside_others(number)
"""


def pytest_in(folder: Path, text: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a test file with our conftest in two processes."""
    shutil.copy(CHECKOUT / "tests" / "conftest.py", folder)
    (folder / "test_file.py").write_text(text, encoding="utf-8")
    (folder / "pytest.ini").write_text("[pytest]\nmarkers = kill\n", encoding="utf-8")
    own = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "TILESSEG_"))}
    command = [sys.executable, "-m", "pytest", "-n", "2", "--dist", "worksteal", "-p", "no:cacheprovider"]
    command += ["--basetemp", str(folder / "temp")]
    return subprocess.run(command, cwd=folder, env=own | environment, capture_output=True, text=True, check=False)


def test_a_test_that_has_to_be_alone_runs_beside_no_other(tmp_path: Path) -> None:
    done = pytest_in(tmp_path, TOGETHER)
    assert "24 passed" in done.stdout, done.stdout + done.stderr
    log = (tmp_path / "log").read_text(encoding="utf-8").split()
    assert "(" in [log[at + 1] for at, sign in enumerate(log[:-1]) if sign == "("]  # two ran beside each other
    running = 0
    for at, sign in enumerate(log):
        running += {"(": 1, ")": -1}.get(sign, 0)
        assert sign != "[" or (running == 0 and log[at + 1] == "]"), log


def test_a_skip_is_a_failure_where_the_data_is_required(tmp_path: Path) -> None:
    text = "import pytest\n\n\ndef test_skipped():\n    pytest.skip('no shellcheck')\n"
    assert "1 skipped" in pytest_in(tmp_path, text).stdout
    done = pytest_in(tmp_path, text, TILESSEG_REQUIRE_DATA="1")
    assert "1 failed" in done.stdout and "TILESSEG_REQUIRE_DATA=1: Skipped: no shellcheck" in done.stdout
