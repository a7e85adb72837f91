"""Laws of a training's data: what is trained on is what is served, and whatever does not fit is refused in one line."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from fakes import write_scene, write_unet_bundle
from labelled_files import CLASSES, blocks, data_of, labelled, spec_of

from tilesseg.errors import JobError, SourceError, TilessegError
from tilesseg.formats.open import open_source
from tilesseg.inference.patch_reader import PatchReader
from tilesseg.inference.worker_phases import Stopwatch
from tilesseg.models.bundle import find_bundle
from tilesseg.planning.job import parse_job
from tilesseg.planning.machine import Compute
from tilesseg.planning.plan import Plan
from tilesseg.planning.scene_list import find_scenes
from tilesseg.planning.scene_plan import complete_draft, draft_scene
from tilesseg.raster.tiling import Patch
from tilesseg.raster.window import Window
from tilesseg.training import trained_bundle
from tilesseg.training.patch_loader import PatchLoader
from tilesseg.training.training_data import TrainingData, choose_patch, gather

LISTS = {"by": "lists", "validate": ["b"], "test": []}
STILL = {"turns": False, "scale": 0, "brightness": 0, "gamma": 0, "noise": 0}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Scenes a, b and c of two bands."""
    for number, name in enumerate("abc"):
        labelled(tmp_path, name, blocks(number), offset=40.0 * number)
    return tmp_path


def refused(folder: Path, kind: type[TilessegError] = JobError, **changes: Any) -> str:
    with pytest.raises(kind) as error:
        gather(spec_of(folder, **changes))
    assert "\n" not in str(error.value)
    assert ";" in str(error.value), "a refusal ends with what to do"
    return str(error.value)


def served(data: TrainingData, path: Path) -> dict[Window, np.ndarray[Any, Any]]:
    """Patches as a run's reader gives them to its network, normalised as the run's plan says, by their window."""
    job = parse_job({"scenes": str(path), "model": "none", "output": {"dir": "none"}}, where="test")
    plan = Plan({}, "none", "0" * 64, data.spec, Compute("cpu", 1, 1))
    (scene,) = find_scenes(str(path))
    planned = complete_draft(draft_scene(scene, job=job, plan=plan), plan=plan)
    source, recipe = planned.open(), planned.recipe(plan)
    found = {}
    for tile in planned.tiling:
        for batch in PatchReader(tile, source, data.spec, recipe, Stopwatch()).batches():
            patches = [step for step in batch.steps if isinstance(step, Patch)]
            for patch, values in zip(patches, batch.values if batch.values is not None else (), strict=False):
                found[patch.window] = recipe.normalisation.apply(values)
    return found


@pytest.mark.parametrize(
    "normalise",
    [
        {},
        {"kind": "scene_percentiles", "low": 1, "high": 99, "clip": [0, 1]},
        {"kind": "scene_mean_std"},
        {"kind": "none"},
    ],
    ids=lambda one: one.get("kind", "default"),
)
def test_a_window_for_training_is_what_a_run_gives_to_its_network(folder: Path, normalise: dict[str, Any]) -> None:
    """Nodata, overhang and statistics of the scene included, byte for byte."""
    labelled(folder, "c", blocks(2), nodata=3000)
    data = gather(spec_of(folder, split=LISTS, normalise=normalise))
    for scene in data.scenes:
        windows = served(data, folder / "images" / f"{scene.name}.tif")
        assert any(window.x < 0 for window in windows)
        for window, values in windows.items():
            assert scene.read(window)[0].tobytes() == values.tobytes(), window


def test_labels_are_ignored_where_the_image_has_no_data_and_outside(folder: Path) -> None:
    data = gather(spec_of(folder, split=LISTS))
    scene, window = data.scenes[0], Window(-8, -8, 64, 64)
    _, labels = scene.read(window)
    assert np.all(labels[:14] == 255)
    assert np.all(labels[:, :8] == 255)
    assert np.array_equal(labels[14:, 8:], blocks(0)[6:56, :56])
    known = scene.known(Window(0, 0, 64, 64))
    assert np.all(known[:6] == 255)
    assert np.array_equal(known[6:], blocks(0)[6:])


def test_nothing_is_learnt_outside_the_region_of_interest(tmp_path: Path) -> None:
    """A run does not look there: labels outside are ignored, by draws and by validation alike."""
    region = np.zeros((1, 64, 1200), np.uint8)
    region[:, :, :8] = 1
    write_scene(tmp_path / "region.tif", region)
    for number, name in enumerate("ab"):
        labelled(tmp_path, name, blocks(number, 1200)[:64])
    data = gather(spec_of(tmp_path, split=LISTS, input={"tissue": str(tmp_path / "region.tif")}))
    for scene, part in zip(data.scenes, ("train", "validate"), strict=True):
        cells = scene.cells
        assert cells is not None
        square = np.ones((cells.stride, cells.stride), np.bool_)
        outside = ~np.kron(cells.in_roi, square)[:64, :1200]
        assert 0.2 < outside.mean() < 0.9
        assert np.array_equal(scene.labels.read(Window(0, 0, 64, 1200)) == 255, outside)
        assert data.cells[scene.name][part].pixels.sum() == (~outside[6:]).sum()


def test_mean_and_deviation_are_those_of_the_part_that_trains_alone(folder: Path) -> None:
    labelled(folder, "b", blocks(1), offset=5000.0)
    reading = {"check_range": False}
    data = gather(spec_of(folder, split=LISTS, input=reading))
    values = np.concatenate([_valid(folder, name) for name in "ac"], axis=1)
    assert data.spec.normalise.kind == "mean_std"
    assert data.spec.normalise.mean == pytest.approx(values.mean(axis=1), rel=1e-5)
    assert data.spec.normalise.std == pytest.approx(values.std(axis=1), rel=1e-5)
    assert data.spec.input_range[1] < 2500


def test_numbers_that_are_given_stay_and_the_range_is_learnt(folder: Path) -> None:
    given = gather(spec_of(folder, split=LISTS, normalise={"mean": [1.0, 2.0]})).spec.normalise
    assert given.mean == (1.0, 2.0)
    learnt = gather(spec_of(folder, split=LISTS, normalise={"kind": "range", "high": 4000.0})).spec.normalise
    values = np.concatenate([_valid(folder, name) for name in "ac"], axis=1)
    assert learnt.low == pytest.approx(values.min(axis=1))
    assert learnt.high == 4000.0


def _valid(folder: Path, name: str) -> np.ndarray[Any, Any]:
    values = open_source(str(folder / "images" / f"{name}.tif")).read(Window(0, 0, 64, 64)).values
    return values[:, 6:].reshape(2, -1).astype(float)


def test_the_contract_says_what_was_trained_on(folder: Path) -> None:
    spec = gather(spec_of(folder, split=LISTS, bands=["green", "nir"], decision="threshold")).spec
    assert (spec.bands, spec.dtype, spec.resolution, spec.mpp) == (("green", "nir"), "uint16", 10.0, None)
    assert (spec.decision.kind, spec.activation, spec.score_channels) == ("threshold", "sigmoid", 1)
    assert spec.unet is not None and (spec.unet.depth, spec.margin) == (1, 8)
    assert gather(spec_of(folder, split=LISTS)).spec.bands == ("band_1", "band_2")


def test_bytes_have_the_range_of_their_type(tmp_path: Path) -> None:
    for number, name in enumerate("ab"):
        labelled(tmp_path, name, blocks(number), offset=-950, dtype="uint8")
    assert gather(spec_of(tmp_path, split=LISTS)).spec.input_range == (0, 255)


def test_the_names_and_the_numbers_of_bands_are_those_of_a_job(tmp_path: Path) -> None:
    for number, name in enumerate("ab"):
        labelled(tmp_path, name, blocks(number), bands=3)
    names = [open_source(str(tmp_path / "images" / f"{name}.tif")) for name in "ab"]
    assert names[0].bands == (None,) * 3
    data = gather(spec_of(tmp_path, split=LISTS, input={"bands": [3, 1]}, normalise={"kind": "none"}))
    scene = data.scenes[0]
    expected = names[0].select([2, 0]).read(Window(8, 8, 4, 4)).values
    assert np.array_equal(scene.read(Window(8, 8, 4, 4))[0], expected)
    assert data.spec.bands == ("band_3", "band_1")


def test_scale_and_resolution_are_read_as_a_run_reads_them(tmp_path: Path) -> None:
    for number, name in enumerate("ab"):
        labelled(tmp_path, name, blocks(number, 128))
    data = gather(spec_of(tmp_path, split=LISTS, input={"scale": 0.001, "resolution": 20.0}))
    assert data.scenes[0].source.grid.shape == (64, 64)
    assert data.spec.resolution == pytest.approx(20, rel=0.001)
    assert data.spec.normalise.mean is not None
    assert 0.5 < data.spec.normalise.mean[0] < 2
    labels = data.scenes[0].read(Window(0, 0, 64, 64))[1]
    assert np.array_equal(labels[4:], blocks(0, 128)[1::2, 1::2][4:])


def test_a_scene_smaller_than_a_patch_is_mirrored_and_trains(tmp_path: Path) -> None:
    for number, name in enumerate("ab"):
        labelled(tmp_path, name, blocks(number, 20))
    spec = spec_of(tmp_path, split=LISTS, augment=STILL)
    data = gather(spec)
    (batch,) = PatchLoader(data.scenes, data.sampler(spec)).batches(1, 1)
    known = batch.labels.numpy() != 255
    assert np.all(known.sum(axis=(1, 2)) == 14 * 20)
    assert np.isfinite(batch.values.numpy()).all()


@pytest.mark.parametrize(
    ("shapes", "expected"), [([(600, 600)], 128), ([(90, 90), (40, 300)], 88), ([(5, 5)], 128)], ids=str
)
def test_the_patch_is_the_smallest_that_is_legal_and_that_a_scene_holds(
    shapes: list[tuple[int, int]], expected: int, folder: Path
) -> None:
    sizes = gather(spec_of(folder, split=LISTS, network={"depth": 3, "width": 2})).spec.patch
    assert choose_patch("auto", sizes, 48, shapes) == expected


def test_an_illegal_patch_is_refused_with_a_legal_one(folder: Path) -> None:
    assert "sampling.patch is 33 and the network takes 0 + k·2; write 34" in refused(folder, sampling={"patch": 33})


def test_an_onnx_copy_that_nothing_here_writes_is_refused_before_the_first_step(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trained_bundle, "find_spec", lambda name: None)
    output = {"dir": str(folder / "run"), "onnx": True}
    assert "output.onnx needs onnx, onnxscript, onnxruntime" in refused(folder, split=LISTS, output=output)


def test_a_fine_tuned_network_keeps_its_contract_and_its_normalisation_unless_another_is_stated(
    folder: Path, tmp_path: Path
) -> None:
    bundle = write_unet_bundle(tmp_path / "bundle", bands=2, classes=2)
    spec = find_bundle(str(bundle)).spec
    start = {
        "network": {"start": str(bundle)},
        "classes": [one.model_dump() for one in spec.classes],
        "input": {"check_range": False},
        "data": data_of(folder, values={0: spec.classes[0].name, 1: spec.classes[1].name}),
    }
    found = gather(spec_of(folder, split=LISTS, **start)).spec
    assert found.normalise == spec.normalise
    assert found.bands == spec.bands
    assert found.name == "roofs"
    stated = gather(spec_of(folder, split=LISTS, **start, normalise={"kind": "mean_std", "std": [7, 8]})).spec
    assert stated.normalise.std == (7.0, 8.0)
    assert stated.normalise.mean != spec.normalise.mean  # learnt of these scenes
    assert (stated.unet, stated.classes, stated.margin) == (spec.unet, spec.classes, spec.margin)
    assert "has classes" in refused(folder, split=LISTS, **{**start, "classes": CLASSES, "data": data_of(folder)})


# Refusals


def test_labels_of_another_size_place_or_crs_are_refused(folder: Path) -> None:
    moved = rasterio.Affine(10, 0, 500_040, 0, -10, 5_600_000)
    cases: list[tuple[int, dict[str, Any], str]] = [
        (32, {}, "its size is 32 × 32 px and the image's 64 × 64 px"),
        (64, {"crs": "EPSG:32634"}, "its CRS is not the image's"),
        (64, {"transform": moved}, "4 px away"),
    ]
    for side, profile, why in cases:
        write_scene(folder / "labels" / "b.tif", blocks(1, side)[None], **profile)
        assert why in refused(folder, SourceError, split=LISTS)


@pytest.mark.parametrize("value", [2, 255])
def test_values_outside_the_classes_and_255_untold_are_refused(folder: Path, value: int) -> None:
    truth = blocks(1)
    truth[20:24, 40:44] = value
    labelled(folder, "b", truth)
    told = refused(folder, SourceError, split=LISTS)
    assert "b.tif" in told and str(value) in told
    mapped = data_of(folder, values={0: "background", 1: "roof", value: "ignore"})
    known = gather(spec_of(folder, split=LISTS, data=mapped)).scenes[1].known(Window(0, 0, 64, 64))
    assert np.all(known[20:24, 40:44] == 255)


def test_a_class_that_no_pixel_for_training_has_is_refused(folder: Path) -> None:
    truth = blocks(1)
    truth[30:34, 30:34] = 2
    labelled(folder, "b", truth)
    classes = [*CLASSES, {"name": "water", "colour": "blue"}]
    told = refused(folder, split=LISTS, classes=classes)
    assert "class water is one of 3, and no pixel that trains has it: only scenes that do not train, such as b" in told


def test_a_part_without_a_labelled_pixel_is_refused(folder: Path) -> None:
    labelled(folder, "b", np.full((64, 64), 255, np.uint8))
    values = {0: "background", 1: "roof", 255: "ignore"}
    told = refused(folder, split=LISTS, data=data_of(folder, values=values))
    assert "the part validate (b) has no labelled pixel with data, of 3 scenes" in told


def test_an_image_that_is_named_twice_is_refused(folder: Path) -> None:
    one = str(folder / "images" / "a.tif")
    twice = [{"image": one, "name": "a"}, {"image": one, "name": "b"}, str(folder / "images" / "c.tif")]
    assert "is named twice, as a and as b" in refused(folder, split=LISTS, data=data_of(folder, scenes=twice))
    entries = [data_of(folder), data_of(folder, scenes=one)]
    assert "two scenes are called a" in refused(folder, split=LISTS, data=entries)


def test_the_same_pixels_in_two_files_may_not_train_and_validate(folder: Path) -> None:
    shutil.copy(folder / "images" / "a.tif", folder / "images" / "b.tif")
    assert "scenes a (train) and b (validate) have the same pixels" in refused(folder, split=LISTS)
    assert len(gather(spec_of(folder, split={**LISTS, "validate": ["c"]})).scenes) == 3


def test_a_scene_in_another_unit_than_those_that_train_is_refused(folder: Path) -> None:
    labelled(folder, "b", blocks(1), offset=-999, dtype="uint8")
    assert "another unit" in refused(folder, SourceError, split=LISTS)


def test_a_scene_without_data_is_refused(folder: Path) -> None:
    write_scene(folder / "images" / "c.tif", np.zeros((2, 64, 64), np.uint16), nodata=0)
    assert "scene c has no valid pixel" in refused(folder, SourceError, split=LISTS)


def test_percentiles_that_are_not_given_and_stains_of_two_bands_are_refused(folder: Path) -> None:
    assert "percentiles are not learnt" in refused(folder, normalise={"kind": "scene_percentiles", "low": 1})
    assert "the network takes 2 bands (band_1, band_2)" in refused(folder, augment={"stain": 0.2})


def test_a_table_may_say_the_parts(folder: Path) -> None:
    rows = ["image,part,name", *(f"images/{name}.tif,{part},{name}" for name, part in zip("abc", PARTS, strict=True))]
    (folder / "scenes.csv").write_text("\n".join(rows))
    table = data_of(folder, scenes=str(folder / "scenes.csv"))
    data = gather(spec_of(folder, split={"by": "column", "column": "part"}, data=table))
    assert [name for name, parts in data.parts.items() if parts.holds("validate")] == ["b"]
    assert [name for name, parts in data.parts.items() if parts.holds("test")] == ["c"]
    told = refused(folder, split={"by": "column", "column": "part"})
    assert "has no column part" in told


PARTS = ("train", "validate", "test")


def test_blocks_keep_their_gap_and_what_is_learnt_is_of_the_pixels_that_train(tmp_path: Path) -> None:
    stored, whole = labelled(tmp_path, "a", blocks(0, 768)), Window(0, 0, 768, 768)
    spec = spec_of(
        tmp_path,
        split={"by": "block", "block": 64, "validate": 0.015, "test": 0.01},
        sampling={"patch": 100},
        augment={"scale": 0.25},
    )
    data = gather(spec)
    parts = data.parts["a"]
    scored = parts.mask("validate", whole) | parts.mask("test", whole)
    known = data.scenes[0].known(whole) != 255
    assert data.pixels("validate").sum() + data.pixels("test").sum() == (scored & known).sum()
    sampler = data.sampler(spec)
    assert not any(scored[sampler.draw(1, index).window.slices()].any() for index in range(300))
    values = stored[:, parts.mask("train", whole) & known].astype(float)
    assert data.spec.normalise.mean == pytest.approx(values.mean(axis=1), rel=1e-5)
    assert data.spec.normalise.mean != pytest.approx(stored[:, known].mean(axis=1), rel=1e-5)
