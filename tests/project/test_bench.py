"""What `benchmarks/bench.py` does with its figures; its runs themselves are no test."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from benchmarks import harness
from benchmarks.peers import results
from benchmarks.peers import scene as slides

SHAPE = {"work", "tool", "engine", "precision", "mpx", "wall_s", "cpu_s", "peak_gb", "mpx_per_s", "work_factor"}


def run(wall: float, **more: Any) -> Any:
    names = {"work": "slide", "tool": "tilesseg", "engine": "torch", "precision": "fp32"}
    return results.Row(**{**names, "mpx": 64.0, "wall_s": wall, "mpx_per_s": 64.0 / wall, **more})


def test_of_three_runs_the_middle_counts_figure_by_figure() -> None:
    found = results.medians([run(9.0, peak_gb=1.0), run(8.0, peak_gb=3.0), run(30.0, peak_gb=2.0)])
    assert [(row.wall_s, row.peak_gb, row.runs) for row in found] == [(9.0, 2.0, 3)]


def test_rows_keep_the_order_in_which_they_first_came() -> None:
    found = results.medians([run(1.0, tool="b"), run(1.0, tool="a"), run(3.0, tool="b")])
    assert [(row.tool, row.wall_s) for row in found] == [("b", 2.0), ("a", 1.0)]


def test_a_run_that_failed_makes_its_row_a_failure() -> None:
    (found,) = results.medians([run(9.0), run(600.0, error="limit", mpx_per_s=None)])
    assert (found.error, found.mpx_per_s, found.runs) == ("limit", None, 2)


def test_a_median_of_runs_of_two_tools_is_refused() -> None:
    with pytest.raises(ValueError, match="one row"):
        results.middle([run(1.0), run(1.0, tool="other")])


def test_only_works_that_are_measured_again_are_replaced() -> None:
    old = [run(1.0, work="slide"), run(2.0, work="curve")]
    assert [(row.work, row.wall_s) for row in results.merged(old, [run(5.0, work="slide")])] == [
        ("curve", 2.0),
        ("slide", 5.0),
    ]


def test_the_results_are_a_list_of_objects_with_the_promised_keys_and_can_be_read_back(tmp_path: Path) -> None:
    path, one = tmp_path / "latest.json", run(8.0, agreement=0.9999876, error=None)
    results.write(path, [one])
    (data,) = json.loads(path.read_text())
    assert SHAPE | {"agreement"} <= data.keys()
    assert data["agreement"] == 0.999988
    assert results.read(path)[0].key == one.key
    assert results.read(tmp_path / "none.json") == []


def test_agreement_counts_equal_labels_where_both_have_a_class(tmp_path: Path) -> None:
    first = np.zeros((40, 50), np.uint8)
    second = first.copy()
    first[:10], second[10] = 255, 1
    for name, labels in (("a", first), ("b", second)):
        tifffile.imwrite(tmp_path / f"{name}.tif", labels)
    assert results.agreement(tmp_path / "a.tif", tmp_path / "b.tif") == pytest.approx(29 / 30)


def test_agreement_looks_at_the_finest_level_of_a_pyramid(tmp_path: Path) -> None:
    labels = np.arange(64 * 64, dtype=np.uint8).reshape(64, 64) % 3
    with tifffile.TiffWriter(tmp_path / "pyramid.tif") as file:
        file.write(labels, tile=(16, 16), subifds=1)
        file.write(labels[::2, ::2], tile=(16, 16), subfiletype=1)
    tifffile.imwrite(tmp_path / "plain.tif", labels)
    assert results.agreement(tmp_path / "pyramid.tif", tmp_path / "plain.tif") == 1.0


def test_masks_of_two_sizes_have_no_agreement(tmp_path: Path) -> None:
    for name, side in (("a", 8), ("b", 9)):
        tifffile.imwrite(tmp_path / f"{name}.tif", np.zeros((side, side), np.uint8))
    with pytest.raises(ValueError, match="compare masks of one image"):
        results.agreement(tmp_path / "a.tif", tmp_path / "b.tif")


def test_the_table_says_how_many_times_as_fast_and_what_failed() -> None:
    slow = run(64.0, tool="MONAI as documented")
    text = results.table([run(8.0), slow, run(600.0, tool="other", error="limit", mpx_per_s=None)])
    fast, base, failed = text.splitlines()[4:]
    assert fast.endswith("| 8.00 |")
    assert base.endswith("| 1.00 |")
    assert "| other | torch | fp32 | limit |" in failed
    assert len({line.count("|") for line in text.splitlines()[2:]}) == 1


def test_a_process_is_measured_with_its_children(tmp_path: Path) -> None:
    child = "import time; held = bytearray(200_000_000); time.sleep(1.5)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    found = harness.measure([sys.executable, "-c", parent], log=tmp_path / "log", limit=60, memory_gb=8)
    assert found.error is None
    assert 0.2 < found.peak_gb < 0.6


@pytest.mark.parametrize(("limits", "why"), [((0.5, 8.0), "limit"), ((60.0, 0.001), "out of memory")])
def test_a_run_beyond_its_limit_is_stopped_and_says_so(tmp_path: Path, limits: tuple[float, float], why: str) -> None:
    call = [sys.executable, "-c", "import time; time.sleep(30)"]
    found = harness.measure(call, log=tmp_path / "log", limit=limits[0], memory_gb=limits[1])
    assert found.error == why
    assert found.wall_s < 20


def test_a_run_that_fails_says_its_last_line(tmp_path: Path) -> None:
    call = [sys.executable, "-c", "print('first'); raise SystemExit('no such slide')"]
    found = harness.measure(call, log=tmp_path / "log", limit=60, memory_gb=8)
    assert found.error == "error 1: no such slide"


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(slides, "PERIOD", 512)
    return slides


def test_a_slide_repeats_its_picture_and_has_no_pixel_of_zero(scene: Any, tmp_path: Path) -> None:
    picture = scene.tissue(512)
    path = scene.write_slide(tmp_path / "slide.svs", 1024, picture)
    pixels = tifffile.imread(path, key=0)
    assert pixels.shape == (1024, 1024, 3)
    assert (pixels[:512, :512] == pixels[512:, 512:]).all()
    assert np.abs(pixels[:512, :512].astype(int) - picture.pixels).mean() < 12
    assert pixels.min() > 0
    assert scene.truth_of(1024, picture).shape == (1024, 1024)
    assert len(np.unique(picture.truth)) > 1


def test_a_slide_of_another_side_is_refused(scene: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="give a multiple"):
        scene.write_slide(tmp_path / "slide.svs", 700, scene.tissue(512))
