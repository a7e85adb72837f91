"""`segment` with several files, or a folder: one image, an image of each, or a refusal that names the switch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from fakes import spec_data, write_scene, write_spec

from tilesseg.cli.main import run
from tilesseg.cluster import forkserver
from tilesseg.cluster.executors import SerialExecutor
from tilesseg.errors import JobError
from tilesseg.formats.reading.open_options import Opening
from tilesseg.planning.file_groups import group_images
from tilesseg.run import run_job

RGBN = ("red", "green", "blue", "nir")


def scene(path: Path, bands: int = 1, *, names: tuple[str, ...] | None = None, size: int = 16) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(len(path.name)).integers(0, 250, (bands, size, size)).astype(np.uint8)
    return str(write_scene(path, values, names=names, photometric="minisblack"))


def grouped(*paths: str, wanted: tuple[str, ...] = RGBN, how: str = "auto") -> list[list[str]]:
    groups = group_images(paths, wanted, opening=Opening(), how=how)  # type: ignore[arg-type]
    return [[Path(path).name for path in group] for group in groups]


def test_files_whose_bands_are_disjoint_are_one_image(tmp_path: Path) -> None:
    rgb, nir = scene(tmp_path / "rgb.tif", 3, names=RGBN[:3]), scene(tmp_path / "nir.tif")
    assert grouped(rgb, nir) == [["rgb.tif", "nir.tif"]]
    bands = [scene(tmp_path / "b" / f"S2A_x_B{number}.tif") for number in ("02", "03", "04", "08")]
    assert grouped(*bands) == [[Path(path).name for path in bands]] and grouped(str(tmp_path / "b")) == [["b"]]
    halves = scene(tmp_path / "1.tif", 2), scene(tmp_path / "2.tif", 2)
    assert grouped(*halves) == [["1.tif", "2.tif"]]
    assert grouped(rgb, nir, wanted=("blue", "red")) == [["rgb.tif", "nir.tif"]]  # nir is not used


def test_files_of_which_each_has_all_bands_are_images_of_their_own(tmp_path: Path) -> None:
    files = [scene(tmp_path / f"{date}.tif", 4, names=RGBN) for date in ("2024-05", "2024-06")]
    assert grouped(*files) == [["2024-05.tif"], ["2024-06.tif"]] == grouped(str(tmp_path))
    elsewhere = scene(tmp_path / "x" / "large.tif", 4, size=20)
    assert grouped(files[0], elsewhere) == [["2024-05.tif"], ["large.tif"]]
    assert grouped(*(scene(tmp_path / "v" / f"{k}.tif") for k in "ab"), wanted=("v",)) == [["a.tif"], ["b.tif"]]


def test_single_band_files_of_two_dates_are_an_image_of_each_date(tmp_path: Path) -> None:
    for date in ("20240511", "20240611"):
        for number in ("02", "03", "04", "08"):
            scene(tmp_path / f"T33UVU_{date}T101031_B{number}_10m.tif")
    first, second = grouped(str(tmp_path))
    assert all("20240511" in name for name in first) and all("20240611" in name for name in second)


def test_what_cannot_be_decided_names_the_switch(tmp_path: Path) -> None:
    two = [scene(tmp_path / "a.tif", 3, names=RGBN[:3]), scene(tmp_path / "b.tif", 4, names=RGBN)]
    with pytest.raises(JobError, match=r"cannot tell whether 2 files .*1 of them alone; say --stack .* or --each"):
        grouped(*two)
    assert grouped(*two, how="stack") == [["a.tif", "b.tif"]] and grouped(*two, how="each") == [["a.tif"], ["b.tif"]]
    with pytest.raises(JobError, match=r"different extents.*--each"):
        grouped(scene(tmp_path / "c.tif", 3), scene(tmp_path / "d.tif", size=20))


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A model of four bands; the command computes in this process."""
    real = run_job.run_job
    monkeypatch.setattr(forkserver, "warm_up", lambda cluster: None)
    monkeypatch.setattr(run_job, "run_job", lambda job, **how: real(job, executor=SerialExecutor(), **how))
    return str(write_spec(tmp_path / "model", {**spec_data("Largest", classes=4), "bands": list(RGBN)}))


def test_two_dates_need_a_folder_or_a_name_for_each(
    tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [scene(tmp_path / "in" / f"{date}.tif", 4, names=RGBN) for date in ("2024.05", "2024.06")]
    assert run(["segment", *files, "--model", model, "--out", str(tmp_path / "mask.tif")]) == 1
    line = capsys.readouterr().err
    assert "cannot write 2 images to --out" in line and "{scene}" in line and not (tmp_path / "mask.tif").exists()
    common = ["--model", model, "--no-check-range", "--out"]
    assert run(["segment", str(tmp_path / "in"), *common, str(tmp_path / "m" / "{scene}-mask.tif")]) == 0
    for path in files:
        with rasterio.open(tmp_path / "m" / f"{Path(path).stem}-mask.tif") as mask, rasterio.open(path) as image:
            assert np.array_equal(mask.read(1), image.read().argmax(axis=0))
    assert not list((tmp_path / "m").glob(".*"))


def test_a_folder_takes_the_mask_of_each_image(tmp_path: Path, model: str) -> None:
    files = [scene(tmp_path / date / "scene.tif", 4, names=RGBN) for date in ("may", "june")]
    (tmp_path / "masks").mkdir()
    common = ["--model", model, "--no-check-range", "--out", str(tmp_path / "masks")]
    assert run(["segment", *files, *common]) == 0
    assert sorted(path.name for path in (tmp_path / "masks").glob("*.tif")) == ["june-scene.tif", "may-scene.tif"]
