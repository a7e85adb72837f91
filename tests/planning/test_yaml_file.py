"""YAML of job files: no file ends the process, and a long list of scenes is read at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tilesseg.errors import JobError
from tilesseg.planning import yaml_file
from tilesseg.planning.job import read_job
from tilesseg.planning.yaml_file import read_yaml

DEEP = {
    "brackets": "[" * 40_000 + "]" * 40_000,
    "mappings": "{a: " * 40_000,
    "dashes on a line": "- " * 40_000 + "a",
    "keys on a line": "? " * 40_000 + "a",
    "indentation": "\n".join(" " * level + "a:" for level in range(2_000)),
    "brackets behind a quoted bracket": '{a: "}", b: ' * 40_000,
    "brackets behind an escaped quote": '{a: "\\"}", b: ' * 40_000,
    "brackets behind a comment": "[ # ]\n" * 40_000,
    "of a list in a list": "a: " + "[{b: " * 20_000,
}


@pytest.mark.parametrize("text", DEEP.values(), ids=DEEP)
def test_a_job_that_is_nested_too_deeply_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(text)
    with pytest.raises(JobError, match=r"^cannot read .*job\.yaml as YAML: line \d+ has more than 64 levels; correct"):
        read_job(path)


@pytest.mark.parametrize("text", ["a: 2026-99-99", "a: \x00", "{? [a]: b, ? {c: d}: e}", "a: [", "\ta: b"])
def test_what_is_no_yaml_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(text)
    with pytest.raises(JobError, match=r"as YAML: .*; correct the file$"):
        read_yaml(path, "job file")


def test_levels_of_an_ordinary_job_are_not_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counting takes ten seconds for 100,000 scenes."""
    monkeypatch.setattr(yaml_file, "_refuse_deep", lambda path, text: pytest.fail("counted"))
    path = tmp_path / "job.yaml"
    path.write_text("scenes:\n" + "  - {image: a.tif, name: 'b c', input: [1, 2], mpp: \"1\"}\n" * 100)
    assert len(read_yaml(path, "job file")["scenes"]) == 100


def test_a_strange_job_is_counted_and_read(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text("# [\n" * 100 + "a: [[b]]")
    assert read_yaml(path, "job file") == {"a": [["b"]]}
