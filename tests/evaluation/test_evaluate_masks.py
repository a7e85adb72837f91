"""Evaluation of masks against the truth: exact, whatever the blocks and the workers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from PIL import Image
from rasterio.crs import CRS
from rasterio.warp import transform

from tilesseg.cli.main import run
from tilesseg.cluster.executors import SerialExecutor, ThreadExecutor
from tilesseg.errors import JobError, SourceError, TilessegError
from tilesseg.evaluation import compared_scene
from tilesseg.evaluation.evaluate_masks import Comparison, evaluate_file, scenes_of, tolerance_px
from tilesseg.evaluation.evaluation_files import (
    CONFUSED,
    EMPTY,
    FALSE,
    MISSED,
    RIGHT,
    write_error_map,
    write_evaluation,
)
from tilesseg.evaluation.paired_masks import PairedMasks
from tilesseg.formats.cog.writer import write_cog
from tilesseg.formats.mask_classes import mask_classes
from tilesseg.formats.ome_tiff.writer import write_ome_tiff
from tilesseg.formats.ome_zarr.writer import write_ome_zarr
from tilesseg.formats.writer import Mask, MaskClass
from tilesseg.raster.boundaries import boundary_counts
from tilesseg.raster.grid import Grid
from tilesseg.raster.metrics import confusion, dice
from tilesseg.raster.window import Window

GRID = Grid(150, 210, (0.5, 0, 700000, 0, -0.5, 3700000), CRS.from_epsg(32616).to_wkt(), "metre", 1.0)
CLASSES = ("background", "road", "roof")
RULES = Comparison(classes=CLASSES, tolerance="2px")
Labels = NDArray[np.uint8]


def written(path: Path, labels: NDArray[Any], nodata: float | None = 255) -> str:
    with rasterio.open(
        path, "w", driver="GTiff", height=labels.shape[0], width=labels.shape[1], count=1, dtype=labels.dtype,
        nodata=nodata, transform=rasterio.Affine(*GRID.transform), crs=GRID.crs,
    ) as file:  # fmt: skip
        file.write(labels, 1)
    return str(path)


@pytest.fixture
def truth() -> Labels:
    coarse = np.random.default_rng(0).integers(0, 3, (16, 22)).astype(np.uint8)
    labels = coarse.repeat(10, 0).repeat(10, 1)[:150, :210].copy()
    labels[:7, :50] = 255
    return labels


@pytest.fixture
def mask(truth: Labels) -> Labels:
    labels = np.roll(truth, (2, -1), (0, 1))
    labels[labels == 255] = 0
    labels[100:104, 30:40], labels[50:60, 100:103] = 254, 255
    return labels


def test_counts_are_those_of_the_pixels(tmp_path: Path, truth: Labels, mask: Labels) -> None:
    found = evaluate_file(written(tmp_path / "m.tif", mask), written(tmp_path / "t.tif", truth), RULES).pooled
    assert (found.confusion == confusion(truth, mask, 3)).all()
    whole = Window(0, 0, 150, 210)
    assert (found.boundary == boundary_counts(truth, mask, 3, tolerance=2, inner=whole)).all()
    known = truth != 255
    assert (found.failed, found.nodata) == ((known & (mask == 254)).sum(), (known & (mask == 255)).sum())
    assert found.unknown == 350 and found.pixels == truth.size


@pytest.mark.parametrize("side", [16, 37, 1024])
def test_blocks_and_executors_change_nothing(
    tmp_path: Path, truth: Labels, mask: Labels, side: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = written(tmp_path / "m.tif", mask), written(tmp_path / "t.tif", truth)
    expected = evaluate_file(*paths, RULES, executor=SerialExecutor()).to_json()
    monkeypatch.setattr(compared_scene, "BLOCK", side)
    monkeypatch.setattr(compared_scene, "SMALLEST", side)
    found = evaluate_file(*paths, RULES, executor=ThreadExecutor(3)).to_json()
    for key in ("scenes", "mean"):
        assert found[key] == expected[key]
    assert found["pooled"]["confusion"] == expected["pooled"]["confusion"]


@pytest.mark.cluster
def test_workers_of_dask_count_the_same(tmp_path: Path, truth: Labels, mask: Labels) -> None:
    from distributed import Client, LocalCluster

    from tilesseg.cluster.dask_executor import DaskExecutor

    paths = written(tmp_path / "m.tif", mask), written(tmp_path / "t.tif", truth)
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster) as client:
        found = evaluate_file(*paths, RULES, executor=DaskExecutor(client))
    assert found.to_json() == evaluate_file(*paths, RULES, executor=SerialExecutor()).to_json()


def test_a_truth_of_0_and_255_is_mapped_or_refused_and_never_perfect(tmp_path: Path, mask: Labels) -> None:
    binary = (mask == 1).astype(np.uint8)
    truth = written(tmp_path / "t.tif", binary * np.uint8(255), nodata=None)
    path = written(tmp_path / "m.tif", 1 - binary)
    rules = Comparison(classes=("background", "road"))
    with pytest.raises(SourceError, match=r"the value 255 at row .* 0: background, 255: road, or 255: ignore"):
        evaluate_file(path, truth, rules)
    mapped = Comparison(classes=rules.classes, values={0: "background", 255: "road"})
    assert evaluate_file(path, truth, mapped).value("road", "dice") == 0
    with pytest.raises(SourceError, match="no pixel is known"):
        evaluate_file(path, truth, Comparison(classes=rules.classes, values={0: "ignore", 255: "ignore"}))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda labels: labels[:-1], "its size is 210 × 149 px and the image's 210 × 150 px"),
        (lambda labels: labels + np.uint8(5), "the value [0-9]+ at row .* is none of 0 background, 1 road, 2 roof"),
        (lambda labels: np.full_like(labels, 255), "no pixel is known"),
    ],
)
def test_truth_that_does_not_fit_is_refused(
    tmp_path: Path, truth: Labels, mask: Labels, change: Any, words: str
) -> None:
    with pytest.raises(SourceError, match=words):
        evaluate_file(written(tmp_path / "m.tif", mask), written(tmp_path / "t.tif", change(truth)), RULES)


def test_a_mask_with_more_labels_than_classes_is_refused(tmp_path: Path, truth: Labels, mask: Labels) -> None:
    path = written(tmp_path / "m.tif", np.where(mask == 2, 7, mask).astype(np.uint8))
    with pytest.raises(SourceError, match="holds the label 7, and the classes are 0 … 2"):
        evaluate_file(path, written(tmp_path / "t.tif", truth), RULES)


def test_pixels_without_data_are_wrong_unless_they_are_left_out(tmp_path: Path, truth: Labels, mask: Labels) -> None:
    paths = written(tmp_path / "m.tif", mask), written(tmp_path / "t.tif", truth)
    wrong, left = evaluate_file(*paths, RULES), evaluate_file(*paths, Comparison(classes=CLASSES, only_valid=True))
    gone = int(((mask == 255) & (truth != 255)).sum())
    assert wrong.pooled.nodata == left.pooled.nodata == gone > 0
    assert left.pooled.known == wrong.pooled.known - gone
    assert (left.pooled.confusion == confusion(np.where(mask == 255, 255, truth).astype(np.uint8), mask, 3)).all()


def test_names_of_classes_come_with_our_products(tmp_path: Path, mask: Labels) -> None:
    colours = [MaskClass(name, (n, n, n)) for n, name in enumerate(CLASSES)]
    product = Mask(GRID, lambda window: mask[window.slices()], tuple(colours), {"software": "test"})
    write_cog(product, tmp_path / "m.tif")
    write_ome_tiff(product, tmp_path / "m.ome.tif")
    write_ome_zarr(product, tmp_path / "m.ome.zarr")
    for name in ("m.tif", "m.ome.tif", "m.ome.zarr"):
        assert mask_classes(str(tmp_path / name)) == CLASSES, name
    assert mask_classes(written(tmp_path / "plain.tif", mask)) is None
    with pytest.raises(JobError, match="does not say the names of its classes"):
        scenes_of(written(tmp_path / "plain.tif", mask), "t.tif", Comparison())


def test_a_tolerance_is_rounded_up_to_pixels() -> None:
    assert tolerance_px("2m", GRID) == 4 and tolerance_px("1.1 m", GRID) == 3 and tolerance_px("3px", GRID) == 3
    assert tolerance_px("0px", GRID) == 0
    with pytest.raises(JobError, match="the unit of the mask's pixels is pixel; write pixels"):
        tolerance_px("2m", Grid(2, 2))
    with pytest.raises(JobError, match="'2' is no length"):
        tolerance_px("2", GRID)


def test_files_hold_the_figures_and_the_errors(tmp_path: Path, truth: Labels, mask: Labels) -> None:
    paths = written(tmp_path / "m.tif", mask), written(tmp_path / "t.tif", truth)
    evaluation = evaluate_file(*paths, RULES)
    names = {path.name for path in write_evaluation(tmp_path / "out", evaluation)}
    assert names == {"evaluation.json", "evaluation.csv", "confusion.png"}
    data = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    expected = dice(confusion(truth, mask, 3))
    assert [data["pooled"]["classes"][name]["dice"] for name in CLASSES] == pytest.approx(expected, abs=1e-6)
    low, high = data["pooled"]["classes"]["road"]["dice_interval"]
    assert low < expected[1] < high
    rows = (tmp_path / "out" / "evaluation.csv").read_text().splitlines()
    assert rows[0].startswith("scene,class,true_px,mask_px,dice,iou") and len(rows) == 1 + 2 * 3
    path = write_error_map(scenes_of(*paths, RULES)[0], tmp_path / "out" / "error.tif")
    with rasterio.open(path) as file:
        errors = file.read(1)
        assert file.nodata == 255 and file.colormap(1)[MISSED][:3] == (209, 73, 91)
    whole = np.full(truth.shape, CONFUSED)
    whole[(truth == mask) & (truth != 0)], whole[(truth == mask) & (truth == 0)] = RIGHT, EMPTY
    whole[(truth != 0) & ((mask == 0) | (mask > 2))] = MISSED
    whole[(truth == 0) & (mask > 2)] = MISSED
    whole[(truth == 0) & (mask != 0) & (mask < 3)] = FALSE
    whole[truth == 255] = 255
    assert (errors == whole).all()


def test_two_masks_are_compared_with_the_same_blocks(tmp_path: Path, truth: Labels, mask: Labels) -> None:
    path = written(tmp_path / "t.tif", truth)
    better = np.where(np.random.default_rng(1).random(truth.shape) < 0.5, truth, mask).astype(np.uint8)
    both = [evaluate_file(written(tmp_path / f"{n}.tif", each), path, RULES) for n, each in enumerate((mask, better))]
    pair = PairedMasks.of(*both)
    for (value, interval), name in zip(pair.difference("dice"), CLASSES, strict=True):
        assert value == pytest.approx(both[1].value(name, "dice") - both[0].value(name, "dice"))
        assert interval is not None and 0 < interval.low < value < interval.high
    with pytest.raises(JobError, match="have the classes background, road, roof and a, b, c"):
        other = evaluate_file(str(tmp_path / "0.tif"), path, Comparison(classes=("a", "b", "c")))
        PairedMasks.of(both[0], other)


def test_damaged_truth_is_refused_in_one_line(tmp_path: Path, mask: Labels) -> None:
    (tmp_path / "t.tif").write_bytes(b"II*\0nonsense")
    with pytest.raises(TilessegError) as caught:
        evaluate_file(written(tmp_path / "m.tif", mask), str(tmp_path / "t.tif"), RULES)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        (Comparison(classes=("roof",)), "has 1 classes, and 2 to 254 can be compared"),
        (Comparison(classes=tuple(map(str, range(255)))), "has 255 classes, and 2 to 254 can be compared"),
        (Comparison(classes=("road", "road", "roof")), "where road stands there twice"),
        (Comparison(classes=("road", "ignore", "roof")), "where ignore means that a value is no class"),
        (Comparison(classes=CLASSES, scores=True), "holds labels and no scores"),
        (Comparison(classes=CLASSES, tolerance="600m"), "the tolerance 600m is 1200 px, and the largest is 1024 px"),
        (Comparison(classes=CLASSES, tolerance="9" * 400 + "px"), "is inf px, and the largest is 1024 px"),
    ],
)
def test_rules_that_cannot_be_kept_are_refused(
    tmp_path: Path, truth: Labels, mask: Labels, rules: Comparison, words: str
) -> None:
    with pytest.raises(TilessegError, match=words):
        evaluate_file(written(tmp_path / "m.tif", mask), written(tmp_path / "t.tif", truth), rules)


def test_a_negative_label_is_no_class(tmp_path: Path, truth: Labels, mask: Labels) -> None:
    labels = mask.astype(np.int16)
    labels[20, 30] = -255  # 1 in a byte
    with pytest.raises(SourceError, match="holds the label -255, and the classes are 0 … 2"):
        evaluate_file(written(tmp_path / "m.tif", labels), written(tmp_path / "t.tif", truth), RULES)


def test_254_classes_are_compared(tmp_path: Path) -> None:
    labels = np.arange(150 * 210).reshape(150, 210) // 120 % 254
    path = written(tmp_path / "m.tif", labels.astype(np.uint8), nodata=None)
    found = evaluate_file(path, path, Comparison(classes=tuple(map(str, range(254)))))
    assert found.pooled.known == labels.size and found.value("253", "dice") == 1
    assert found.to_json()["pooled"]["classes"]["0"]["dice_interval"] == [1, 1]
    write_evaluation(tmp_path / "out", found)
    with Image.open(tmp_path / "out" / "confusion.png") as picture:
        assert 3000 < picture.width < 3300 and 3000 < picture.height < 3300


def test_masks_of_other_pixels_are_not_paired(tmp_path: Path) -> None:
    world = [GRID.to_world(y, x) for x, y in ([5, 5], [25, 5], [25, 25], [5, 25], [5, 5])]
    lonlat = transform(CRS.from_wkt(str(GRID.crs)), CRS.from_epsg(4326), *map(list, zip(*world, strict=True)))
    truth = tmp_path / "t.geojson"
    truth.write_text(json.dumps({"type": "Polygon", "coordinates": [list(zip(*lonlat, strict=True))]}))
    rules = Comparison(classes=CLASSES[:2])
    one, smaller, shifted = (
        written(tmp_path / f"{name}.tif", np.zeros(shape, np.uint8))
        for name, shape in (("a", (150, 210)), ("b", (149, 210)), ("c", (150, 210)))
    )
    with rasterio.open(shifted, "r+") as file:
        file.transform @= rasterio.Affine.translation(10, 0)
    first = evaluate_file(one, str(truth), rules)
    with pytest.raises(JobError, match="31,500 and 31,290 px"):
        PairedMasks.of(first, evaluate_file(smaller, str(truth), rules))
    with pytest.raises(JobError, match="give masks that lie on the same grid"):
        PairedMasks.of(first, evaluate_file(shifted, str(truth), rules))


def test_pairs_are_of_the_same_blocks_where_other_blocks_are_known(tmp_path: Path, truth: Labels) -> None:
    first, second = truth.copy(), truth.copy()
    first[:64], second[-64:] = 255, 255
    rules = Comparison(classes=CLASSES, only_valid=True)
    path = written(tmp_path / "t.tif", truth)
    both = [evaluate_file(written(tmp_path / f"{n}.tif", each), path, rules) for n, each in enumerate((first, second))]
    pair = PairedMasks.of(*both)
    assert len(both[0].units) < len(pair.units[0]) == len(pair.units[1])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--values", "²=road,0=background"], "values list the text '²'"),
        (["--values", "0=background,1=road,1=roof"], "--values says that 1 is road and roof; say one"),
        (["--fail-under", "road.dice=0.5", "--truth"], "--fail-under judges one mask, and two are given"),
        (["--out", "{folder}/m.tif", "--truth"], "cannot write the comparison into"),
    ],
)
def test_the_command_refuses_what_it_would_not_do(
    tmp_path: Path, truth: Labels, mask: Labels, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [written(tmp_path / "m.tif", mask), written(tmp_path / "t.tif", truth)]
    options = [text.format(folder=tmp_path) for text in arguments]
    if options[-1] == "--truth":
        options, paths = [*options, paths[1]], [paths[0], paths[0]]
    assert run(["evaluate", *paths, "--classes", ",".join(CLASSES), *options]) == 1
    error = capsys.readouterr().err.strip()
    assert words in error and "\n" not in error


def test_values_may_have_spaces(tmp_path: Path, truth: Labels, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path / "m.tif", truth)
    values = "0 = background, 1 = road, 2 = roof"
    assert run(["evaluate", path, path, "--classes", ",".join(CLASSES), "--values", values]) == 0
    assert "1.000" in capsys.readouterr().out
