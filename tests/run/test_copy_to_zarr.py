"""Laws of `tilesseg stage`: a complete copy gets its name, and its outcome says what is in it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fakes import write_scene

from tilesseg.cluster.executors import SerialExecutor
from tilesseg.events import Event, RegionStaged, RunStarted, ScenePlanned
from tilesseg.formats.damage import NO_DAMAGE, DamageRecord
from tilesseg.run import copy_to_zarr
from tilesseg.run.copy_to_zarr import Staged, stage_image


def test_a_copy_gets_its_name_once_all_its_regions_are_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [str(write_scene(tmp_path / name, np.ones((1, 30, 40), np.uint8))) for name in ("red.tif", "green.tif")]
    out = tmp_path / "copy.zarr"

    def fail(*_: object, **__: object) -> None:
        raise OSError("torn")

    with monkeypatch.context() as patched:
        patched.setattr(copy_to_zarr, "copy_region", fail)
        staged = stage_image(files, out, executor=SerialExecutor())
        assert list(staged.failed) and "torn" in next(iter(staged.failed.values())) and staged.exit_code == 3
        assert not out.exists() and "not made yet" in staged.text
    events = list[Event]()
    staged = stage_image(files, out, executor=SerialExecutor(), listeners=[events.append])
    assert staged.exit_code == 0 and out.is_dir()
    assert events[:2] == [RunStarted(1, slots=1), ScenePlanned(files[0], tiles=0, done=0, pixels=0, regions=1)]
    assert [type(event) for event in events[2:]] == [RegionStaged]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy.zarr", "green.tif", "red.tif"]


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (NO_DAMAGE, "wrote copy.zarr: 2.0 Mpx in 0.5 s"),
        (
            DamageRecord([[0, 0, 2, 3]], [], "bad strip"),
            "wrote copy.zarr: 2.0 Mpx in 0.5 s; 6 px in 1 window of the image cannot be decoded, and are damaged in "
            "the copy too (bad strip) [damaged-pixels]",
        ),
    ],
    ids=["sound", "damaged"],
)
def test_the_outcome_of_a_copy_says_what_of_the_image_is_damaged(damage: DamageRecord, text: str) -> None:
    assert Staged(Path("copy.zarr"), 2_000_000, 1, 0.5, {}, damage).text == text
