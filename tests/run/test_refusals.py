"""What a user can get wrong is refused before the first tile: one line with both values, exit code 1, nothing written.

What is wrong with a part costs that part: a damaged tile, a scene of three. Then the exit code is 3.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import yaml
from fakes import job_data, spec_data, write_bundle, write_scene, write_spec, write_unet_bundle
from numpy.typing import NDArray

from tilesseg.cli.main import run
from tilesseg.cluster.executors import SerialExecutor
from tilesseg.planning.job import parse_job
from tilesseg.planning.machine import Machine
from tilesseg.planning.stored_plan import plan_scene
from tilesseg.run.prepare_run import prepare
from tilesseg.run.run_job import run_job

CHECKOUT = Path(__file__).resolve().parents[2]


def labels(shape: tuple[int, int] = (60, 80), *, bands: int = 1, top: int = 3) -> NDArray[np.uint8]:
    return np.random.default_rng(7).integers(0, top, (bands, *shape)).astype(np.uint8)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """Takes one band of labels, and gives them back."""
    return write_bundle(tmp_path / "model", input_range=[0, 2])


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    return write_scene(tmp_path / "scene.tif", labels())


def write_job(folder: Path, *args: Any, **changes: Any) -> Path:
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(job_data(*args, **changes)), encoding="utf-8")
    return path


class Refusal:
    """Runs a command that must be refused, and gives the line it was refused with."""

    def __init__(self, capsys: pytest.CaptureFixture[str], folder: Path) -> None:
        self.capsys, self.folder = capsys, folder

    def __call__(self, *arguments: object) -> str:
        before = self.written()
        code = run([str(argument) for argument in arguments])
        out, err = self.capsys.readouterr()
        assert code == 1, (out, err)
        assert err.startswith("error: ") and err.count("\n") == 1 and err.endswith("\n"), err
        assert out == ""
        assert self.written() == before
        return err.removeprefix("error: ").rstrip("\n")

    def written(self) -> list[Path]:
        """Products, and tiles in a ledger."""
        return [
            path for path in self.folder.rglob("*") if path.suffix == ".png" or path.parent.name in ("done", "failed")
        ]

    def of_scene(self, image: object, model: object, *more: object) -> str:
        line = self("segment", image, "--model", model, "--out", self.folder / "out" / "mask.tif", *more)
        assert not (self.folder / "out").exists()
        return line

    def of_job(self, scenes: Any, model: object, **changes: Any) -> str:
        path = write_job(self.folder, scenes, str(model), self.folder / "run", **changes)
        for command in ("plan", "run"):
            line = self(command, path)
            assert not (self.folder / "run").exists()
        return line


@pytest.fixture
def refusal(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Refusal:
    """Commands without the server that imports for workers meanwhile: no worker is started, and it takes a second."""
    monkeypatch.setattr("tilesseg.cluster.forkserver.warm_up", lambda section: None)
    return Refusal(capsys, tmp_path)


def test_a_missing_image_is_refused(refusal: Refusal, tmp_path: Path, bundle: Path) -> None:
    assert str(tmp_path / "none.tif") in refusal.of_scene(tmp_path / "none.tif", bundle)


def test_a_glob_that_matches_nothing_is_refused(refusal: Refusal, tmp_path: Path, bundle: Path) -> None:
    line = refusal.of_job(str(tmp_path / "*.jp2"), bundle)
    assert "no image matches" in line and "*.jp2" in line


def test_text_that_calls_itself_an_image_is_refused(refusal: Refusal, tmp_path: Path, bundle: Path) -> None:
    path = tmp_path / "text.tif"
    path.write_text("Dear reader,\nthis is no image.\n")
    assert str(path) in refusal.of_scene(path, bundle)


def test_too_few_bands_are_refused(refusal: Refusal, tmp_path: Path) -> None:
    model = write_bundle(tmp_path / "model", bands=4)
    image = write_scene(tmp_path / "rgb.tif", labels(bands=3))
    line = refusal.of_scene(image, model)
    assert "3 bands" in line and "takes 4 (b1, b2, b3, b4)" in line


def test_surplus_bands_without_names_are_refused_and_the_selection_offered_works(
    refusal: Refusal, tmp_path: Path
) -> None:
    model = write_bundle(tmp_path / "model", bands=2)
    image = write_scene(tmp_path / "rgbn.tif", labels(bands=4, top=250), photometric="minisblack")
    line = refusal.of_scene(image, model)
    assert "4 bands" in line and "takes 2 (b1, b2)" in line and "with --bands" in line and "1,2" not in line
    job = job_data(image, model, tmp_path / "run", input={"bands": ["1", "2"]})
    assert run_job(parse_job(job, where="test"), executor=SerialExecutor()).exit_code == 0


def test_an_unknown_band_name_is_refused(refusal: Refusal, tmp_path: Path, bundle: Path) -> None:
    image = write_scene(tmp_path / "rgb.tif", labels(bands=2), names=("red", "green"))
    line = refusal.of_scene(image, bundle, "--bands", "nir")
    assert "nir" in line and "red, green" in line
    line = refusal.of_scene(image, bundle, "--bands", "3")
    assert "no band 3" in line and "from 1 to 2" in line
    line = refusal.of_scene(image, bundle, "--bands", "1,2")
    assert "2 bands are selected" in line and "takes 1 (b1)" in line


@pytest.mark.parametrize(
    ("values", "dtype", "expected", "tags", "offered"),
    [
        ((0, 10_000), "uint16", (0, 1), {}, [(1e-4, 0), (1 / 65535, 0)]),
        ((0, 255), "uint8", (0, 1), {}, [(1 / 255, 0)]),
        ((0, 1), "float32", (0, 255), {}, [(255, 0)]),
        ((0, 2941), "uint16", (0, 1), {}, [(1e-4, 0), (1 / 4095, 0)]),
        ((-25, -3), "float32", (0, 1), {}, []),
        ((0, 0.3), "float32", (0, 10_000), {}, [(10_000, 0), (65_535, 0)]),
        ((7300, 12_000), "uint16", (0, 1), {"scale": 0.1, "offset": -100.0},
         [(1e-4, 0), (2.75e-5, -0.2), (1 / 65535, 0)]),
    ],
)  # fmt: skip
def test_another_unit_is_refused_and_each_scale_that_is_offered_works(
    refusal: Refusal,
    tmp_path: Path,
    values: tuple[float, float],
    dtype: str,
    expected: tuple[float, float],
    tags: dict[str, float],
    offered: list[tuple[float, float]],
) -> None:
    model = write_bundle(tmp_path / "model", input_range=expected)
    pixels = np.random.default_rng(1).uniform(*values, (1, 40, 50)).astype(dtype)
    image = write_scene(tmp_path / "scene.tif", pixels, crs="EPSG:32632")
    with rasterio.open(image, "r+") as file:
        file.scales, file.offsets = (tags.get("scale", 1.0),), (tags.get("offset", 0.0),)
    line = refusal.of_job(str(image), model)
    assert f"expects {expected[0]} to {expected[1]}" in line
    low, high = (float(text) for text in re.findall(r"values from (\S+) to (\S+)", line)[0])
    scale, offset = tags.get("scale", 1.0), tags.get("offset", 0.0)
    assert (low, high) == pytest.approx(np.percentile(pixels * scale + offset, (2, 98)), rel=1e-4)
    offers = [(float(one), float(two)) for one, two in re.findall(r"scale: ([^,\s]+), input\.offset: (\S+)", line)]
    assert offers == [pytest.approx(pair, rel=1e-6) for pair in offered]
    for number, remedy in enumerate([*({"scale": s, "offset": o} for s, o in offers), {"check_range": False}]):
        job = job_data(image, model, tmp_path / "run" / str(number), input=remedy)
        assert run_job(parse_job(job, where="test"), executor=SerialExecutor()).exit_code == 0


def test_segment_takes_a_switch_for_values_of_another_unit(tmp_path: Path) -> None:
    model = write_bundle(tmp_path / "model", "Constant", input_range=[0, 1])
    image = write_scene(tmp_path / "scene.tif", np.full((1, 40, 50), 200, np.uint8))
    command = ["segment", str(image), "--model", str(model), "--out", str(tmp_path / "mask.tif"), "--workers", "1"]
    assert run(command) == 1 and run([*command, "--no-check-range"]) == 0


def test_an_empty_field_is_a_result(tmp_path: Path, bundle: Path) -> None:
    image = write_scene(tmp_path / "dark.tif", np.zeros((1, 40, 50), np.uint8))
    job = parse_job(job_data(image, bundle, tmp_path / "run"), where="test")
    assert run_job(job, executor=SerialExecutor()).exit_code == 0


def test_a_scene_without_a_valid_pixel_is_refused_where_its_statistics_are_needed(
    refusal: Refusal, tmp_path: Path
) -> None:
    image = write_scene(tmp_path / "scene.tif", np.zeros((1, 40, 50), np.uint8), nodata=0)
    model = write_bundle(tmp_path / "model", normalise={"kind": "scene_mean_std"})
    line = refusal.of_scene(image, model)
    assert "the scene has no valid pixel" in line
    fixed = write_bundle(tmp_path / "fixed")
    job = parse_job(job_data(image, fixed, tmp_path / "run"), where="test")
    assert run_job(job, executor=SerialExecutor()).exit_code == 0, "all nodata is what the mask says"


def test_a_model_without_normalisation_is_refused(refusal: Refusal, tmp_path: Path, scene: Path) -> None:
    data = spec_data()
    del data["normalise"]
    line = refusal.of_scene(scene, write_spec(tmp_path / "model", data))
    assert "model.yaml" in line and "normalise is required" in line


def test_weights_that_are_not_those_of_the_spec_are_refused(refusal: Refusal, tmp_path: Path, scene: Path) -> None:
    model = write_unet_bundle(tmp_path / "model", bands=1, input_range=[0, 2])
    named = yaml.safe_load((model / "model.yaml").read_text())["weights"]["sha256"]
    with (model / "weights.safetensors").open("ab") as file:
        file.write(b"\0")
    line = refusal.of_scene(scene, model)
    first, second = re.findall(r"\b[0-9a-f]{12}\b", line)
    assert first != second == named[:12]


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"colour": "red"}, "colour"),
        ({"tiling": {"tile": 512}}, "tiling.tile"),
        ({"input": {"band": [1]}}, "input.band"),
        ({"cluster": {"kind": "serial", "gpu": 2}}, "cluster.gpu"),
    ],
)
def test_an_unknown_key_of_a_job_is_refused(
    refusal: Refusal, scene: Path, bundle: Path, changes: dict[str, Any], key: str
) -> None:
    assert f"unknown key {key}" in refusal.of_job(str(scene), bundle, **changes)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tiling": {"blend": "mean"}}, "not 'mean'"),
        ({"tiling": {"batch": 0}}, "to 1 or 'auto', not 0"),
        ({"tiling": {"overlap": -4}}, "to 0 or 'auto', not -4"),
        ({"tiling": {"patch": 0}}, "to 1 or 'auto', not 0"),
        ({"tiling": {"margin": -1}}, "to 0 or 'auto', not -1"),
        ({"tiling": {"core": 0}}, "to 1 or 'auto', not 0"),
        ({"scenes": []}, "scenes"),
        ({"cluster": {"kind": "address"}}, "address"),
        ({"input": {"resolution": 0}}, "resolution"),
    ],
)
def test_an_impossible_value_of_a_job_is_refused(
    refusal: Refusal, scene: Path, bundle: Path, changes: dict[str, Any], said: str
) -> None:
    assert said in refusal.of_job(changes.pop("scenes", str(scene)), bundle, **changes)


def test_an_output_directory_that_cannot_be_written_is_refused(
    refusal: Refusal, tmp_path: Path, scene: Path, bundle: Path
) -> None:
    (tmp_path / "file").write_text("not a folder")
    blocked = tmp_path / "file" / "run"
    job = write_job(tmp_path, str(scene), bundle, blocked)
    for command in ("plan", "run"):
        assert str(blocked) in refusal(command, job)
    line = refusal("segment", scene, "--model", bundle, "--out", blocked / "mask.tif")
    assert str(blocked) in line and "cannot write" in line


def test_a_product_that_cannot_be_written_is_refused_before_the_first_tile(
    refusal: Refusal, tmp_path: Path, scene: Path, bundle: Path
) -> None:
    (tmp_path / "file").write_text("not a folder")
    products = [{"path": str(tmp_path / "file" / "{scene}.tif")}]
    job = write_job(
        tmp_path, str(scene), bundle, tmp_path / "run", output={"dir": str(tmp_path / "run"), "products": products}
    )
    for command in ("plan", "run"):
        line = refusal(command, job)
        assert f"{tmp_path / 'file'} is a file, a folder needed; choose another path" in line


def test_a_product_in_the_place_of_an_image_is_refused(
    refusal: Refusal, tmp_path: Path, scene: Path, bundle: Path
) -> None:
    before = scene.read_bytes()
    line = refusal("segment", scene, "--model", bundle, "--out", tmp_path / "." / scene.name)
    assert str(scene) in line and "over the image" in line
    assert scene.read_bytes() == before


@pytest.mark.parametrize("path", ["{scene}.png", "{scene}"])
def test_a_product_of_another_suffix_is_refused(
    refusal: Refusal, tmp_path: Path, scene: Path, bundle: Path, path: str
) -> None:
    output = {"dir": str(tmp_path / "run"), "products": [{"path": str(tmp_path / path)}]}
    line = refusal.of_job(str(scene), bundle, output=output)
    assert path.replace("{scene}", "scene") in line and ".tif" in line
    run_job(parse_job(job_data(scene, bundle, tmp_path / "run"), where="test"), executor=SerialExecutor())
    for wrong in (tmp_path / path, scene, scene / "mask.tif"):
        before = scene.read_bytes()
        refusal("export", tmp_path / "run", "--out", wrong)
        assert scene.read_bytes() == before


def test_two_products_at_one_place_are_refused(refusal: Refusal, tmp_path: Path, bundle: Path) -> None:
    images = [str(write_scene(tmp_path / f"{name}.tif", labels())) for name in "ab"]
    output = {"dir": str(tmp_path / "run"), "products": [{"path": str(tmp_path / "mask.tif")}]}
    line = refusal("run", write_job(tmp_path, images, bundle, tmp_path / "run", output=output))
    assert str(tmp_path / "mask.tif") in line and "{scene}" in line


def test_an_unknown_class_colour_is_refused(refusal: Refusal, tmp_path: Path, scene: Path) -> None:
    data = spec_data()
    data["classes"][1]["colour"] = "mauvelous"
    line = refusal.of_scene(scene, write_spec(tmp_path / "model", data))
    assert "mauvelous" in line and "#rrggbb" in line and "classes.1.colour" in line


def test_an_illegal_patch_size_is_refused(refusal: Refusal, tmp_path: Path, scene: Path) -> None:
    model = write_bundle(tmp_path / "model", input_range=[0, 2], patch={"multiple": 16, "offset": 12})
    line = refusal.of_scene(scene, model, "--patch", "100")
    assert "patch 100" in line and "12 + k·16" in line and "92 or 108" in line


@pytest.mark.parametrize("option", ["--patch", "--workers"])
def test_zero_is_not_taken_for_automatic(refusal: Refusal, scene: Path, bundle: Path, option: str) -> None:
    assert "to 1 or 'auto', not 0" in refusal.of_scene(scene, bundle, option, "0")


def test_crop_is_refused_for_a_model_without_a_margin(refusal: Refusal, scene: Path, bundle: Path) -> None:
    line = refusal.of_scene(scene, bundle, "--blend", "crop")
    assert "crop" in line and "no margin" in line and "gaussian" in line


def test_an_overlap_that_does_not_fit_is_refused_and_the_one_offered_fits(
    refusal: Refusal, tmp_path: Path, scene: Path
) -> None:
    model = write_bundle(tmp_path / "model", input_range=[0, 2], patch={"multiple": 16, "stride_multiple": 16})
    line = refusal.of_scene(scene, model, "--patch", "64", "--overlap", "20", "--blend", "gaussian")
    assert "overlap 20" in line and "multiples of 16" in line
    offered = int(re.findall(r"take overlap (\d+)", line)[0])
    job = job_data(scene, model, tmp_path / "run", tiling={"patch": 64, "overlap": offered, "blend": "gaussian"})
    assert run_job(parse_job(job, where="test"), executor=SerialExecutor()).exit_code == 0
    line = refusal.of_scene(scene, model, "--patch", "64", "--overlap", "64", "--blend", "gaussian")
    assert "overlap 64" in line and "patch 64" in line


def test_a_core_of_no_whole_shards_is_refused(refusal: Refusal, scene: Path, bundle: Path) -> None:
    line = refusal.of_job(str(scene), bundle, tiling={"core": 1000})
    assert "core 1000" in line and "multiple of 64" in line


def test_an_unknown_model_name_is_refused(refusal: Refusal, scene: Path) -> None:
    line = refusal.of_scene(scene, "no-such-model")
    assert "no-such-model" in line and "landscape" in line


def test_a_job_file_that_is_missing_or_no_yaml_is_refused(refusal: Refusal, tmp_path: Path) -> None:
    assert str(tmp_path / "none.yaml") in refusal("run", tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("scenes: [a, b\nmodel: {")
    assert " as YAML: " in refusal("run", tmp_path / "bad.yaml")
    (tmp_path / "bad.yaml").write_text("just a sentence")
    assert str(tmp_path / "bad.yaml") in refusal("plan", tmp_path / "bad.yaml")
    (tmp_path / "bad.yaml").write_bytes(b"\x93NUMPY\x01\x00")
    assert str(tmp_path / "bad.yaml") in refusal("plan", tmp_path / "bad.yaml")
    assert str(tmp_path) in refusal("run", tmp_path)


def test_two_scenes_that_are_given_one_name_are_refused(refusal: Refusal, tmp_path: Path, bundle: Path) -> None:
    images = [write_scene(tmp_path / f"{name}.tif", labels()) for name in ("a", "b")]
    line = refusal.of_job([{"image": str(image), "name": "scene"} for image in images], bundle)
    assert "called scene" in line and all(str(image) in line for image in images)


@pytest.mark.parametrize("name", ["mask.png", "mask", "mask.ome.xml"])
def test_an_output_of_another_suffix_is_refused(
    refusal: Refusal, tmp_path: Path, scene: Path, bundle: Path, name: str
) -> None:
    line = refusal("segment", scene, "--model", bundle, "--out", tmp_path / name)
    assert name in line and ".tif" in line and not (tmp_path / name).exists()


def test_a_schema_of_something_else_is_refused(refusal: Refusal) -> None:
    line = refusal("schema", "cluster")
    assert "cluster" in line and "job" in line and "model" in line


@pytest.mark.parametrize("command", ["status", "export"])
def test_a_folder_that_is_no_run_is_refused(refusal: Refusal, tmp_path: Path, command: str) -> None:
    for folder in (tmp_path, tmp_path / "nowhere", Path(__file__)):
        line = refusal(command, folder)
        assert str(folder) in line


def test_a_damaged_plan_is_refused(refusal: Refusal, tmp_path: Path) -> None:
    for text in ("{", "[]", '{"format": 99}', '{"format": 1}'):
        (tmp_path / "plan.json").write_text(text)
        assert str(tmp_path) in refusal("status", tmp_path)


def test_a_damaged_record_is_refused_and_deleting_it_heals_the_run(
    refusal: Refusal, tmp_path: Path, scene: Path, bundle: Path
) -> None:
    job = write_job(tmp_path, str(scene), bundle, tmp_path / "run")
    assert run(["run", str(job)]) == 0
    refusal.capsys.readouterr()
    (tmp_path / "run" / "scenes" / "scene" / "finished.json").unlink()  # of a finished scene no record is read again
    record = tmp_path / "run" / "scenes" / "scene" / "done" / "r000-c000.json"
    for text in ("", "[]", '{"tile": '):
        record.write_text(text)
        for command in (("status", tmp_path / "run"), ("run", job)):
            assert str(record) in refusal(*command)
    record.unlink()
    assert run(["run", str(job)]) == 0


def test_records_without_a_mask_are_refused_for_they_would_hide_holes(
    refusal: Refusal, tmp_path: Path, scene: Path, bundle: Path
) -> None:
    job = write_job(tmp_path, str(scene), bundle, tmp_path / "run")
    assert run(["run", str(job)]) == 0
    refusal.capsys.readouterr()
    folder = tmp_path / "run" / "scenes" / "scene"
    shutil.rmtree(folder / "mask.zarr")
    line = refusal("run", job)
    assert "1 tiles" in line and "no mask.zarr" in line and str(folder / "done") in line
    shutil.rmtree(folder / "done")
    assert run(["run", str(job)]) == 0


def test_a_run_that_is_not_finished_is_not_exported(
    refusal: Refusal, tmp_path: Path, scene: Path, bundle: Path
) -> None:
    job = parse_job(job_data(scene, bundle, tmp_path / "run"), where="test")
    with prepare(job, Machine("cpu", 1, 1)) as ready:
        plan_scene(ready.scenes[0], run=ready.run, plan=ready.plan, job=job)
    line = refusal("export", tmp_path / "run", "--out", tmp_path / "{scene}-again.tif")
    assert "1 of 1 tiles" in line and not (tmp_path / "scene-again.tif").exists()


def test_an_export_in_an_unknown_format_is_refused(refusal: Refusal, tmp_path: Path, scene: Path, bundle: Path) -> None:
    run_job(parse_job(job_data(scene, bundle, tmp_path / "run"), where="test"), executor=SerialExecutor())
    line = refusal("export", tmp_path / "run", "--format", "bmp")
    assert "format" in line and "'bmp'" in line and "'cog'" in line


def test_a_script_without_a_guard_is_refused_in_one_line(tmp_path: Path, scene: Path, bundle: Path) -> None:
    job = write_job(tmp_path, str(scene), bundle, tmp_path / "run", cluster={"kind": "local", "workers": 1})
    script = tmp_path / "script.py"
    script.write_text(
        "from pathlib import Path\nfrom tilesseg.planning.job import read_job\n"
        "from tilesseg.run.run_job import run_job\n"
        f"run_job(read_job(Path({str(job)!r})))\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(CHECKOUT), str(CHECKOUT / "tests")])}
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, env=environment, timeout=60)
    *trace, last = done.stderr.splitlines()
    assert done.returncode == 1 and done.stdout == ""
    assert last.startswith("tilesseg.errors.JobError: ") and "line 4" in last and '`if __name__ == "__main__":`' in last
    assert trace[0].startswith("Traceback") and done.stderr.count("Traceback") == 1
    assert not (tmp_path / "run").exists()


def damaged(path: Path, *, keep: float) -> Path:
    """A striped TIFF whose file ends in the middle of its pixels."""
    write_scene(path, labels((4096, 1024)), blockysize=64, compress=None)
    with path.open("r+b") as file:
        file.truncate(int(path.stat().st_size * keep))
    return path


def test_a_truncated_image_costs_the_patches_that_cannot_be_read(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, bundle: Path
) -> None:
    image = damaged(tmp_path / "cut.tif", keep=0.6)
    tiling = {"core": 1024, "blend": "gaussian", "patch": 256, "overlap": 64}
    code = run(["run", str(write_job(tmp_path, str(image), bundle, tmp_path / "run", tiling=tiling))])
    out, err = capsys.readouterr()
    assert code == 3 and "error:" not in err
    (scene,) = json.loads((tmp_path / "run" / "summary.json").read_text())["scenes"]
    assert set(scene["damaged"]) == {"r002-c000", "r003-c000"} and scene["done"] == 4 and not scene["failed"]
    assert all(str(image) in reason and "\n" not in reason for reason in scene["damaged"].values())
    assert all(f"{tile} is done with damage: {reason}" in out for tile, reason in scene["damaged"].items())
    assert scene["state"] == "damaged" and scene["pixels"]["failed"] == scene["damaged_pixels"]
    with rasterio.open(tmp_path / "run" / "scenes" / "cut" / "cut.tif") as mask:
        found = mask.read(1)
        assert mask.colormap(1)[254][:3] == (255, 0, 255)
    rows = int(image.stat().st_size / 1024)  # about so many rows are left
    lost = (found == 254).all(axis=1)
    assert (lost == (found == 254).any(axis=1)).all() and lost[rows:].all() and not lost[: rows - 256].any()
    assert scene["damaged_pixels"] == lost.sum() * 1024
    assert np.array_equal(found[:2048], labels((4096, 1024))[0, :2048])


def test_an_image_cut_off_after_its_header_is_refused(refusal: Refusal, tmp_path: Path, bundle: Path) -> None:
    assert "cut.tif" in refusal.of_scene(damaged(tmp_path / "cut.tif", keep=0.001), bundle)


@pytest.mark.parametrize("kind", ["corrupt", "vrt"])
def test_damaged_real_files_are_refused_or_cost_their_tiles_and_never_end_in_a_traceback(
    capsys: pytest.CaptureFixture[str], shared_data: Path, tmp_path: Path, bundle: Path, kind: str
) -> None:
    codes = {}
    for image in sorted((shared_data / "hostile" / kind).iterdir()):
        folder = tmp_path / image.name
        job = write_job(tmp_path, str(image), bundle, folder, input={"bands": [1], "check_range": False})
        code = codes[image.name] = run(["run", str(job)])
        out, err = capsys.readouterr()
        assert code in (0, 1, 3), (image, out, err)
        if code == 1:
            assert err.startswith("error: ") and err.count("\n") == 1 and not folder.exists(), err
        if code == 3:
            (scene,) = json.loads((folder / "summary.json").read_text())["scenes"]
            assert (" failed: " in out and scene["failed"]) or ("done with damage" in out and scene["damaged"])
    assert 1 in codes.values(), codes


def test_one_bad_scene_of_three_costs_one_scene(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, bundle: Path
) -> None:
    images = [str(write_scene(tmp_path / f"{name}.tif", labels())) for name in ("first", "third")]
    (tmp_path / "second.tif").write_text("no image")
    images.insert(1, str(tmp_path / "second.tif"))
    code = run(["run", str(write_job(tmp_path, images, bundle, tmp_path / "run"))])
    out, _ = capsys.readouterr()
    assert code == 3
    scenes = json.loads((tmp_path / "run" / "summary.json").read_text())["scenes"]
    assert {scene["scene"]: scene["state"] for scene in scenes} == {
        "first": "complete", "second": "refused", "third": "complete"
    }  # fmt: skip
    (refused,) = (scene["refused"] for scene in scenes if scene["refused"])
    assert str(tmp_path / "second.tif") in refused and refused in out
    products = sorted(path.name for path in (tmp_path / "run").rglob("*.tif"))
    assert products == ["first.tif", "third.tif"]
    assert run(["status", str(tmp_path / "run")]) == 0
    assert refused in capsys.readouterr().out


def test_all_scenes_refused_is_a_refusal(refusal: Refusal, tmp_path: Path, bundle: Path) -> None:
    for name in "ab":
        (tmp_path / f"{name}.tif").write_text("no image")
    line = refusal.of_job(str(tmp_path / "*.tif"), bundle)
    assert "all 2 scenes" in line and str(tmp_path / "a.tif") in line


def all_nodata(shared_data: Path, tmp_path: Path, kind: str) -> Path:
    if kind == "real":
        return Path(shutil.copy(shared_data / "hostile" / "mask_nodata" / "all-nodata.tif", tmp_path / "empty.tif"))
    if kind == "nan":
        return write_scene(tmp_path / "empty.tif", np.full((4, 70, 90), np.nan, np.float32))
    return write_scene(tmp_path / "empty.tif", np.zeros((4, 70, 90), np.uint8), nodata=0, photometric="minisblack")


@pytest.mark.parametrize("kind", ["real", "nan", "generated"])
def test_a_scene_of_nodata_alone_succeeds_with_an_empty_mask_and_a_warning(
    capsys: pytest.CaptureFixture[str], shared_data: Path, tmp_path: Path, kind: str
) -> None:
    image = all_nodata(shared_data, tmp_path, kind)
    model = write_unet_bundle(tmp_path / "model", bands=4)
    code = run(["run", str(write_job(tmp_path, str(image), model, tmp_path / "run"))])
    out, err = capsys.readouterr()
    assert code == 0 and "warning: every pixel is nodata" in err, (out, err)
    with rasterio.open(tmp_path / "run" / "scenes" / "empty" / "empty.tif") as mask, rasterio.open(image) as source:
        assert mask.shape == source.shape and (mask.read(1) == 255).all() and mask.crs == source.crs
    (scene,) = json.loads((tmp_path / "run" / "summary.json").read_text())["scenes"]
    assert scene["state"] == "complete" and scene["pixels"]["nodata"] == mask.width * mask.height


def test_a_pixel_size_that_is_not_the_scenes_is_refused_before_anything_is_read(
    refusal: Refusal, tmp_path: Path
) -> None:
    """The scene's pixels are 10 m; at 0.01 m it would have gigapixels, at 10 km a single one."""
    large = write_scene(tmp_path / "large.tif", labels((80, 90)))
    bundle = write_bundle(tmp_path / "model", patch={"preferred": 64})
    fine, coarse = (refusal.of_scene(large, bundle, "--resolution", size) for size in (0.01, 1e4))
    assert "pixels of 0.01 m are requested and its own are 10 m, which enlarges it 1000 times" in fine
    assert "which leaves 1 × 1 of its 80 × 90, less than a patch of 64" in coarse


def test_metres_for_a_scene_in_degrees_and_dots_an_inch_are_refused(
    refusal: Refusal, tmp_path: Path, shared_cases: Path
) -> None:
    free = write_bundle(tmp_path / "free", patch={"preferred": 64})
    degrees = refusal.of_scene(shared_cases / "geo/08-degrees.tif", free, "--resolution", 10)
    assert "leaves 1 × 1 of its 400 × 400" in degrees and "10 m are 8.995e-05 degrees from north to south" in degrees
    slides = write_bundle(tmp_path / "slides", mpp=0.5)
    dots = refusal.of_scene(shared_cases / "micro/imagej-72dpi.tif", slides)
    assert "352.8 µm a pixel, which is 72 dots an inch" in dots and "--mpp" in dots
