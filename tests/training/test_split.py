"""Splits: parts of scenes that share nothing, drawn the same way every time."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tilesseg.errors import JobError
from tilesseg.raster.grid import Grid
from tilesseg.raster.window import Window
from tilesseg.training.split import CELL, PARTS, PartMap, SplitScene, split_scenes
from tilesseg.training.train_spec import Split


def scenes(
    count: int, shape: tuple[int, int] = (300, 400), rows: list[dict[str, str]] | None = None
) -> list[SplitScene]:
    grid = Grid(*shape)
    return [SplitScene(f"s{n}", f"s{n}.tif", grid, grid, rows[n] if rows else None) for n in range(count)]


def options(**keys: object) -> Split:
    return Split.model_validate(keys)


def part_of(one: PartMap) -> list[str]:
    return [part for part in PARTS if one.holds(part)]


def test_scenes_are_drawn_by_share_whatever_their_order() -> None:
    found = split_scenes(scenes(20), options(validate=0.2, test=0.1), patch=64)
    held = [part_of(one) for one in found.values()]
    assert held.count(["validate"]) == 4 and held.count(["test"]) == 2 and held.count(["train"]) == 14
    again = split_scenes(scenes(20)[::-1], options(validate=0.2, test=0.1), patch=64)
    assert all(part_of(again[name]) == part_of(one) for name, one in found.items())
    other = split_scenes(scenes(20), options(validate=0.2, test=0.1, seed=1), patch=64)
    assert any(part_of(other[name]) != part_of(one) for name, one in found.items())


def test_a_small_share_is_one_scene_and_one_scene_cannot_be_split() -> None:
    found = split_scenes(scenes(3), options(validate=0.01), patch=64)
    assert [part_of(one) for one in found.values()].count(["validate"]) == 1
    with pytest.raises(JobError, match=r"1 scenes cannot be split into validate 0\.2 and test 0: .*split by block"):
        split_scenes(scenes(1), options(), patch=64)


def test_folds_validate_every_scene_once() -> None:
    validated = [
        name
        for fold in range(3)
        for name, one in split_scenes(scenes(8), options(folds=3, fold=fold), patch=64).items()
        if one.holds("validate")
    ]
    assert sorted(validated) == sorted(one.name for one in scenes(8))


def test_lists_name_scenes() -> None:
    found = split_scenes(scenes(3), options(by="lists", validate=["s1"], test=["s2"]), patch=64)
    assert {name: part_of(one) for name, one in found.items()} == {"s0": ["train"], "s1": ["validate"], "s2": ["test"]}
    with pytest.raises(JobError, match=r"split\.validate names s9, and the scenes are s0, s1, s2"):
        split_scenes(scenes(3), options(by="lists", validate=["s9"]), patch=64)
    with pytest.raises(JobError, match="both name s1"):
        split_scenes(scenes(3), options(by="lists", validate=["s1"], test=["s1"]), patch=64)


def test_a_column_says_the_part() -> None:
    rows = [{"split": "Train"}, {"split": "validation"}, {"split": "test"}]
    found = split_scenes(scenes(3, rows=rows), options(by="column"), patch=64)
    assert [part_of(one) for one in found.values()] == [["train"], ["validate"], ["test"]]
    with pytest.raises(JobError, match="has 'x' in the column split, and the parts are train, validate, test"):
        split_scenes(scenes(1, rows=[{"split": "x"}]), options(by="column"), patch=64)
    with pytest.raises(JobError, match=r"no column part \(it has split\)"):
        split_scenes(scenes(1, rows=[{"split": "x"}]), options(by="column", column="part"), patch=64)


@pytest.mark.parametrize("block", [128, 100, 333])
@pytest.mark.parametrize("patch", [48, 80])
def test_no_patch_round_a_training_pixel_touches_another_part(block: int, patch: int) -> None:
    wanted = options(by="block", block=block, validate=0.15, test=0.1)
    for one in split_scenes(scenes(2, (700, 900)), wanted, patch=patch).values():
        whole = Window(0, 0, 700, 900)
        train = one.mask("train", whole)
        scored = one.mask("validate", whole) | one.mask("test", whole)
        ys, xs = np.nonzero(train)
        for k in np.random.default_rng(0).integers(0, len(ys), 300).tolist():
            y, x = max(0, int(ys[k]) - patch), max(0, int(xs[k]) - patch)
            assert not scored[y : ys[k] + patch + 1, x : xs[k] + patch + 1].any()
        assert scored.any() and train.any()


def test_blocks_are_whole_and_about_the_share() -> None:
    found = split_scenes(scenes(3, (1000, 1000)), options(by="block", block=100, validate=0.2), patch=32)
    whole = Window(0, 0, 1000, 1000)
    validated = [one.mask("validate", whole) for one in found.values()]
    assert sum(mask.sum() for mask in validated) == 0.2 * 3e6
    for mask in validated:
        blocks = mask.reshape(10, 100, 10, 100).mean(axis=(1, 3))
        assert set(np.unique(blocks)) <= {0.0, 1.0}


def test_a_gap_below_a_patch_is_refused() -> None:
    with pytest.raises(JobError, match=r"split\.gap is 8 px and a patch reads 64 px"):
        split_scenes(scenes(1), options(by="block", block=100, gap=8), patch=64)


def square(path: Path, x: float, x_stop: float) -> str:
    ring = [[x, 0], [x_stop, 0], [x_stop, 300], [x, 300], [x, 0]]
    path.write_text(json.dumps({"type": "Polygon", "coordinates": [ring]}))
    return str(path)


def test_polygons_say_the_part_of_the_cells_that_they_touch(tmp_path: Path) -> None:
    right = square(tmp_path / "right.geojson", 300, 400)
    one = split_scenes(scenes(1), options(by="polygons", validate=right), patch=64)["s0"]
    columns = one.mask("validate", Window(0, 0, 300, 400)).all(axis=0)
    assert columns.tolist() == [x >= 300 // CELL * CELL for x in range(400)]
    assert one.mask("train", Window(0, 0, 300, 400)).all(axis=0).nonzero()[0].max() == 256 - 64 - 1
    with pytest.raises(JobError, match=r"split\.validate is .*far\.geojson, which touches none of 1 scenes"):
        split_scenes(scenes(1), options(by="polygons", validate=square(tmp_path / "far.geojson", 500, 600)), patch=64)


def test_windows_cover_a_part_once() -> None:
    codes = np.random.default_rng(3).integers(0, 4, (7, 9)).astype(np.uint8)
    one = PartMap((100, 130), 16, codes)
    for part in PARTS:
        seen = np.zeros((100, 130), int)
        for window in one.windows(part):
            seen[window.slices()] += 1
        assert (seen == one.mask(part, Window(0, 0, 100, 130))).all()
    assert PartMap.whole("train", (100, 130)).windows("train") == [Window(0, 0, 100, 130)]
