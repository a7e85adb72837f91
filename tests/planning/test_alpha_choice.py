"""A band that is tagged alpha is the mask, unless it is asked for; one that looks like a band is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from fakes import job_data, spec_data, write_spec
from numpy.typing import NDArray
from rasterio.enums import ColorInterp

from tilesseg.errors import SourceError
from tilesseg.formats.open import open_source
from tilesseg.planning.job import parse_job
from tilesseg.planning.machine import Machine
from tilesseg.planning.plan import plan_job
from tilesseg.planning.scene_list import find_scenes
from tilesseg.planning.scene_plan import ScenePlan, complete_draft, draft_scene
from tilesseg.run.copy_to_zarr import stage_image

COLOURS = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha]
RGB, RGBN = ["red", "green", "blue"], ["red", "green", "blue", "nir"]


def image(path: Path, fourth: NDArray[np.uint8], *, name: str | None = None, colours: Any = COLOURS) -> Path:
    """Bytes of red, green, blue and a fourth band that is tagged alpha, as GDAL writes four bands by default."""
    values = np.random.default_rng(1).integers(20, 250, (len(colours), *fourth.shape)).astype(np.uint8)
    values[colours.index(ColorInterp.alpha)] = fourth
    profile = {"count": len(colours), "height": fourth.shape[0], "width": fourth.shape[1], "dtype": "uint8"}
    place = {"crs": "EPSG:32633", "transform": rasterio.Affine(10, 0, 500_000, 0, -10, 5_600_000)}
    with rasterio.open(path, "w", driver="GTiff", **profile, **place) as file:
        file.colorinterp = colours
        file.write(values)
        if name:
            file.set_band_description(4, name)
    return path


def near_infrared() -> NDArray[np.uint8]:
    values = np.random.default_rng(2).integers(1, 200, (64, 64)).astype(np.uint8)
    values[20:40, 10:30] = 0  # water
    return values


def footprint() -> NDArray[np.uint8]:
    values = np.full((64, 64), 255, np.uint8)
    values[:, 40:] = 0
    values[:30, 39] = 128  # a soft edge: 0.7 % of the pixels
    return values


def planned(folder: Path, path: Path, wanted: list[str], **reading: Any) -> ScenePlan:
    data = {**spec_data(bands=len(wanted)), "bands": wanted, "input_range": [0, 255]}
    model = write_spec(folder / "model", data)
    job = parse_job(job_data(path, model, folder / "run", input=reading), where="test")
    plan = plan_job(job, Machine("cpu", 1, 2))
    (scene,) = find_scenes(job.scenes)
    return complete_draft(draft_scene(scene, job=job, plan=plan), plan=plan)


def test_alpha_that_looks_like_a_band_is_refused_and_the_refusal_names_the_option(tmp_path: Path) -> None:
    path = image(tmp_path / "a.tif", near_infrared())
    with pytest.raises(SourceError, match=r"band 4 is tagged alpha, and 8\d\.\d % .* --alpha band \(input.alpha\)"):
        planned(tmp_path, path, RGB)
    with pytest.raises(SourceError, match=r"has 3 bands \(red, green, blue\) and band 4, which is tagged alpha"):
        planned(tmp_path, path, RGBN)


@pytest.mark.parametrize(("bands", "reading"), [
    (RGBN, {"bands": [1, 2, 3, 4]}), (RGBN, {"alpha": "band"}), (RGB, {"alpha": "band"}), (RGB, {"bands": [4, 1, 2]}),
    (RGB, {"bands": ["4", "1", "2"]}), (RGB, {"bands": ["alpha", "red", "green"], "alpha": "auto"}),
])  # fmt: skip
def test_a_band_that_is_asked_for_is_a_band(tmp_path: Path, bands: list[str], reading: dict[str, Any]) -> None:
    scene = planned(tmp_path, image(tmp_path / "a.tif", near_infrared()), bands, **reading)
    assert scene.opening.alpha == "band"
    pixels = scene.open().read(scene.grid.window)
    assert pixels.valid.all()
    if len(scene.bands) == 4 or "bands" in reading:
        place = 3 if len(scene.bands) == 4 else 0
        np.testing.assert_array_equal(pixels.values[place], near_infrared())


@pytest.mark.parametrize("name", ["nir", "NIR"])
def test_a_band_that_the_model_takes_by_its_name_is_a_band(tmp_path: Path, name: str) -> None:
    scene = planned(tmp_path, image(tmp_path / "a.tif", near_infrared(), name=name), RGBN)
    assert (scene.bands, scene.opening.alpha) == ((0, 1, 2, 3), "band")
    np.testing.assert_array_equal(scene.open().read(scene.grid.window).values[3], near_infrared())


@pytest.mark.parametrize("reading", [{}, {"alpha": "mask"}, {"bands": [1, 2, 3]}])
def test_alpha_with_soft_edges_is_the_mask(tmp_path: Path, reading: dict[str, Any]) -> None:
    scene = planned(tmp_path, image(tmp_path / "a.tif", footprint()), RGB, **reading)
    np.testing.assert_array_equal(scene.open().read(scene.grid.window).valid, footprint() != 0)


def test_alpha_that_looks_like_a_band_is_the_mask_where_the_job_says_so(tmp_path: Path) -> None:
    scene = planned(tmp_path, image(tmp_path / "a.tif", near_infrared()), RGB, alpha="mask")
    np.testing.assert_array_equal(scene.open().read(scene.grid.window).valid, near_infrared() != 0)


def test_numbers_count_alpha_as_the_file_does(tmp_path: Path) -> None:
    colours = [ColorInterp.red, ColorInterp.green, ColorInterp.alpha, ColorInterp.undefined, ColorInterp.undefined]
    path = image(tmp_path / "a.tif", footprint(), colours=colours)
    scene = planned(tmp_path, path, RGB, bands=[1, 4, 5])
    with rasterio.open(path) as file:
        expected = file.read([1, 4, 5])
    pixels = scene.open().read(scene.grid.window)
    np.testing.assert_array_equal(pixels.values, expected)
    np.testing.assert_array_equal(pixels.valid, footprint() != 0)


def test_numbers_that_alpha_in_the_middle_makes_ambiguous_are_refused(tmp_path: Path) -> None:
    colours = [ColorInterp.red, ColorInterp.green, ColorInterp.alpha, ColorInterp.undefined, ColorInterp.undefined]
    path = image(tmp_path / "a.tif", footprint(), colours=colours)
    with pytest.raises(SourceError, match=r"band 3 is tagged alpha, and bands 1, 2, 4 are others .* --alpha band"):
        planned(tmp_path, path, RGB, bands=[1, 2, 4])
    with rasterio.open(path) as file:
        values = file.read()
    for alpha, expected in (("mask", values[[0, 1, 4]]), ("band", values[[0, 1, 3]])):
        scene = planned(tmp_path, path, RGB, bands=[1, 2, 4], alpha=alpha)
        np.testing.assert_array_equal(scene.open().read(scene.grid.window).values, expected)


def test_a_copy_of_the_bands_that_are_asked_for_has_them(tmp_path: Path) -> None:
    path = image(tmp_path / "a.tif", near_infrared())
    from tilesseg.cluster.executors import SerialExecutor

    stage_image(str(path), tmp_path / "b.zarr", bands=[1, 4], executor=SerialExecutor())
    source = open_source(str(tmp_path / "b.zarr"))
    np.testing.assert_array_equal(source.read(source.grid.window).values[1], near_infrared())
