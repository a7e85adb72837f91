"""Laws of the log: rows are whole, and a training that goes on leaves no trace of its interruption."""

from __future__ import annotations

from pathlib import Path

import pytest

from tilesseg.errors import StoreError
from tilesseg.training.training_log import TrainingTable


def table(tmp_path: Path) -> TrainingTable:
    found = TrainingTable(tmp_path / "log.csv", ("step", "loss", "note"))
    found.go_on_from(0)
    for step in (1, 2, 3):
        found.append({"step": step, "loss": step / 3, "note": None})
    return found


def test_rows_come_back(tmp_path: Path) -> None:
    assert table(tmp_path).read()[1] == {"step": "2", "loss": "0.666667", "note": ""}
    assert (tmp_path / "log.csv").read_text().splitlines()[0] == "step,loss,note"


def test_rows_after_the_step_are_dropped(tmp_path: Path) -> None:
    found = table(tmp_path)
    found.go_on_from(2)
    found.append({"step": 3, "loss": 0.5, "note": "again"})
    assert [row["note"] for row in found.read()] == ["", "", "again"]
    found.go_on_from(0)
    assert found.read() == []


@pytest.mark.parametrize("cut", range(1, 14))
def test_a_row_that_a_crash_has_cut_is_dropped(tmp_path: Path, cut: int) -> None:
    found = table(tmp_path)
    text = found.path.read_text()
    found.path.write_text(text[:-cut])
    found.go_on_from(3)
    found.append({"step": 4, "loss": 1.0, "note": None})
    steps = [row["step"] for row in found.read()]
    assert steps == (["1", "2", "4"] if cut <= len("3,1,\n") else ["1", "4"])


def test_a_log_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "log.csv").mkdir()
    with pytest.raises(StoreError, match=r"cannot write .*log.csv: .*; make room"):
        TrainingTable(tmp_path / "log.csv", ("step",)).append({"step": 1})
