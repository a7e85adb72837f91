"""The cloud bundles: the networks that `ukis-csmask` ships, seen through our spec, give what that package gives."""

from __future__ import annotations

import importlib.util
import json
import runpy
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import rasterio
from fakes import job_data, write_scene

from tilesseg.cluster.executors import SerialExecutor
from tilesseg.errors import SourceError
from tilesseg.formats.open import open_source
from tilesseg.models.bundle import find_bundle
from tilesseg.models.crop_safety.receptive_field import receptive_field
from tilesseg.models.load import load_model
from tilesseg.planning.job import parse_job, read_job
from tilesseg.run.run_job import run_job
from tilesseg.store.run_directory import RunDirectory

pytestmark = pytest.mark.skipif(importlib.util.find_spec("ukis_csmask") is None, reason="needs extra clouds")

WORKFLOW = Path(__file__).resolve().parents[2] / "workflows" / "clouds"
BUNDLES = ["clouds", "clouds-l2a", "clouds-4b", "clouds-4b-l2a"]
SCENES = ["landsat5", "sentinel2"]


@pytest.fixture
def csmask():
    return pytest.importorskip("ukis_csmask.mask").CSmask


def reflectance(shared_data, scene, bands=6):
    """`(channel, y, x)`, as the scene's file has it."""
    with np.load(shared_data / "satellite" / "ukis_cloud" / f"{scene}.npz") as data:
        return np.ascontiguousarray(data["img"].transpose(2, 0, 1)[:bands])


@pytest.mark.parametrize("name", BUNDLES)
def test_the_spec_says_what_the_package_says_beside_its_network(name):
    bundle = find_bundle(name)
    said = json.loads(bundle.weights_path.with_suffix(".json").read_text())
    statistics = said["data"]["dataset_statistics"]
    assert list(bundle.spec.bands) == statistics["band_names"]
    assert [list(bundle.spec.normalise.mean), list(bundle.spec.normalise.std)] == statistics["img"]
    assert [bundle.spec.patch.fixed] * 2 == said["data"]["target_size"]
    assert len(bundle.spec.classes) == said["data"]["classes"]


@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize("name", BUNDLES)
def test_a_patch_scores_as_in_the_session_of_ukis_csmask(shared_data, csmask, name, scene):
    spec = find_bundle(name).spec
    pixels = reflectance(shared_data, scene, bands=len(spec.bands))[:, 128:384, 64:320]
    level = "l2a" if name.endswith("l2a") else "l1c"
    theirs = csmask(
        img=pixels.transpose(1, 2, 0).copy(),
        band_order=list(spec.bands),
        product_level=level,
        providers=["CPUExecutionProvider"],
        intra_op_num_threads=2,
    )
    batch = theirs.img.transpose(2, 0, 1)[None]
    expected = theirs.softmax(theirs.session.run(None, {theirs.input_names: batch})[0])
    scores = load_model(name, threads=2, engine="onnxruntime").predict(spec.normalisation().apply(pixels)[None])
    assert scores.shape == (1, 3, 256, 256)
    np.testing.assert_allclose(scores, expected, atol=1e-5)


@pytest.mark.parametrize("scene", SCENES)
def test_no_other_naming_of_the_classes_agrees_better_with_the_truth(shared_data, scene):
    """In the reference masks 4 is cloud, 0 is shadow, 1 to 3 are clear."""
    model = load_model("clouds", threads=2)
    pixels = model.spec.normalisation().apply(reflectance(shared_data, scene))
    with np.load(shared_data / "satellite" / "ukis_cloud" / f"{scene}.npz") as data:
        truth = np.array(["shadow", "clear", "clear", "clear", "cloud"])[data["msk"][..., 0]]
    cells = [(slice(y, y + 256), slice(x, x + 256)) for y in (0, 256) for x in (0, 256)]
    labels = model.predict(np.stack([pixels[:, rows, columns] for rows, columns in cells])).argmax(axis=1)
    truth = np.stack([truth[cell] for cell in cells])
    namings = permutations(("clear", "cloud", "shadow"))
    agreement = {names: np.mean(np.array(names)[labels] == truth) for names in namings}
    best = max(agreement, key=agreement.__getitem__)
    assert best == tuple(entry.name for entry in model.spec.classes)
    assert agreement[best] > 0.8  # 0.829 and 0.903 by the package itself, which overlaps its patches


def test_the_order_of_the_batch_does_not_matter(shared_data):
    model = load_model("clouds-4b", threads=2, engine="onnxruntime")
    pixels = model.spec.normalisation().apply(reflectance(shared_data, "landsat5", bands=4))
    batch = np.stack([pixels[:, :256, :256], pixels[:, 256:, 256:]])
    np.testing.assert_allclose(model.predict(batch)[::-1], model.predict(batch[::-1].copy()), atol=1e-5)


@pytest.mark.parametrize("name", BUNDLES)
def test_crop_has_no_margin_for_networks_that_pool_globally(name):
    bundle = find_bundle(name)
    field = receptive_field(bundle.spec, bundle.weights_path)
    assert field.hazards == ("GlobalAveragePool",)
    assert field.margin is None and bundle.spec.margin is None


@pytest.mark.parametrize("scene", SCENES)
def test_the_workflow_makes_a_scene_with_named_bands_out_of_an_archive(shared_data, tmp_path, scene):
    make_scene = runpy.run_path(str(WORKFLOW / "make_scene.py"))["make_scene"]
    path = tmp_path / "scene.tif"
    make_scene(shared_data / "satellite" / "ukis_cloud" / f"{scene}.npz", path)
    with rasterio.open(path) as image:
        assert image.descriptions == find_bundle("clouds").spec.bands
        assert image.dtypes == ("float32",) * 6 and image.crs.to_epsg() == 32632 and image.res == (30.0, 30.0)
        assert np.array_equal(image.read(), reflectance(shared_data, scene))


SENTINEL_2 = [f"B{n}" for n in (1, 2, 3, 4, 5, 6, 7, 8)] + ["B8A", "B9", "B10", "B11", "B12"]


def clouds_of(image, folder, **how):
    """Share of cloud in the mask of a scene."""
    data = job_data({"image": str(image), "name": "a"}, "clouds", folder, input=how)
    data["output"] = {"dir": str(folder), "products": [], "preview": False}
    assert run_job(parse_job(data, where="test"), executor=SerialExecutor()).exit_code == 0
    mask = RunDirectory(folder).scene("a").read(open_source(str(image)).grid.window)
    names = [one.name for one in find_bundle("clouds").spec.classes]
    return float((mask == names.index("cloud")).mean())


@pytest.mark.parametrize("dark", [1.0, 0.4])
def test_thirteen_bands_of_sentinel_2_get_the_scale_that_they_have(shared_data, tmp_path, dark):
    """As in Sen1Floods11: numbers without a scale, a dark scene too; the other scale made 54.6 % cloud of 5.2 %."""
    shares = reflectance(shared_data, "sentinel2")[:, :256, :256] * dark
    numbers = np.zeros((13, *shares.shape[1:]), np.int16)
    numbers[[SENTINEL_2.index(name) for name in ("B2", "B3", "B4", "B8", "B11", "B12")]] = np.rint(shares * 10_000)
    image = write_scene(tmp_path / "scene.tif", numbers, names=SENTINEL_2)
    with pytest.raises(SourceError, match=r"give input\.scale: 0\.0001, input\.offset: 0 \(reflectance") as refusal:
        clouds_of(image, tmp_path / "refused")
    assert str(refusal.value).count("input.scale") == 1
    names = ["blue", "green", "red", "nir", "swir16", "swir22"]
    right = clouds_of(write_scene(tmp_path / "shares.tif", shares, names=names), tmp_path / "right")
    assert clouds_of(image, tmp_path / "scaled", scale=0.0001) == pytest.approx(right, abs=0.005)


@pytest.mark.parametrize("applied", [True, False])
def test_an_item_of_earth_search_has_the_cloud_of_the_right_scaling(shared_data, tmp_path, applied):
    shares = reflectance(shared_data, "sentinel2")[:, :256, :256]
    names = find_bundle("clouds").spec.bands
    assets = {}
    for name, band in zip(names, shares, strict=True):
        numbers = np.rint(band * 10_000 + (0 if applied else 1000)).astype(np.uint16)
        write_scene(tmp_path / f"{name}.tif", numbers[None])
        stated = {"nodata": 0, "data_type": "uint16", "scale": 0.0001, "offset": -0.1}
        bands = {"eo:bands": [{"name": name, "common_name": name}], "raster:bands": [stated]}
        assets[name] = {"href": f"./{name}.tif", "type": "image/tiff", "roles": ["data", "reflectance"], **bands}
    flags = {"s2:processing_baseline": "05.09", "earthsearch:boa_offset_applied": applied}
    item = {"type": "Feature", "stac_version": "1.0.0", "id": "S2B_x_20230611_0_L2A", "geometry": None, "links": []}
    item |= {"properties": {"datetime": "2023-06-11T10:10:31Z", **flags}, "assets": assets}
    (tmp_path / "item.json").write_text(json.dumps(item))
    right = clouds_of(write_scene(tmp_path / "shares.tif", shares, names=names), tmp_path / "right")
    assert clouds_of(tmp_path / "item.json", tmp_path / "run") == pytest.approx(right, abs=0.005)
    assert 0.01 < right < 0.99


def test_the_scene_of_thirteen_bands_among_the_cases_gets_the_scale_of_sentinel_2(shared_cases, tmp_path):
    image = shared_cases / "geo" / "17-s2-13-bands.tif"
    with pytest.raises(SourceError, match=r"give input\.scale: 0\.0001, input\.offset: 0 \(reflectance"):
        clouds_of(image, tmp_path / "run")


def test_the_job_of_the_workflow_names_the_bundle_and_fits_its_patch():
    job = read_job(WORKFLOW / "job.yaml")
    spec = find_bundle(job.model).spec
    assert job.input.bands == spec.bands and spec.patch.legal(job.tiling.patch)
    assert job.tiling.overlap % spec.patch.stride_multiple == 0
