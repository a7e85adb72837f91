"""Ground control points and RPCs: read in pixel coordinates, carried to the mask; rasterio judges."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from fakes import job_data, write_bundle
from rasterio.control import GroundControlPoint
from rasterio.errors import NotGeoreferencedWarning
from rasterio.rpc import RPC
from rio_cogeo import cog_validate

from tilesseg.cluster.executors import SerialExecutor
from tilesseg.errors import SourceError
from tilesseg.formats.open import open_source
from tilesseg.planning.job import parse_job
from tilesseg.raster.grid import ControlPoint, Grid, Placement
from tilesseg.run.run_job import run_job

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

POINTS = [
    GroundControlPoint(0.0, 0.0, 13.0, 52.0, 35.5),
    GroundControlPoint(0.5, 59.25, 13.1, 52.0, 36.0),
    GroundControlPoint(40.0, 0.0, 13.0, 51.9, 0.0),
    GroundControlPoint(40.0, 60.0, 13.1, 51.9, 1.25),
]


def rpcs() -> RPC:
    numbers = [float(k) / 7 for k in range(1, 21)]
    return RPC(
        height_off=100.0, height_scale=500.0, lat_off=52.0, lat_scale=0.25, line_off=20.25, line_scale=40.0,
        long_off=13.0, long_scale=0.5, samp_off=29.5, samp_scale=60.0, err_bias=1.5, err_rand=0.5,
        line_num_coeff=numbers, line_den_coeff=numbers[::-1], samp_num_coeff=numbers, samp_den_coeff=numbers[::-1],
    )  # fmt: skip


def write(path: Path, *, gcps: bool = False, rpc: bool = False, **profile: Any) -> Path:
    values = np.random.default_rng(0).integers(0, 3, (1, 40, 60)).astype(np.uint8)
    shape = {"count": 1, "height": 40, "width": 60, "dtype": "uint8"}
    with rasterio.open(path, "w", driver="GTiff", **shape, **profile) as file:
        file.write(values)
        if gcps:
            file.gcps = (POINTS, rasterio.CRS.from_epsg(4326))
        if rpc:
            file.rpcs = rpcs()
    return path


def placed(path: Path) -> tuple[list[tuple[float, ...]], Any, RPC | None]:
    """What rasterio says of a file's points, their CRS and its RPCs."""
    with rasterio.open(path) as file:
        points, crs = file.gcps
        return [(p.row, p.col, p.x, p.y, p.z) for p in points], crs, file.rpcs


def segmented(image: Path, folder: Path, **asked: Any) -> Path:
    bundle = write_bundle(folder / "model", input_range=[0, 2])
    job = job_data(image, bundle, folder / "run", input={"check_range": False, **asked})
    report = run_job(parse_job(job, where="test"), executor=SerialExecutor())
    assert report.exit_code == 0, report
    return Path(report.products[0])


def assert_is_a_cog(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        valid, errors, complaints = cog_validate(path, strict=True, quiet=True)
    assert valid and not errors and not complaints, (errors, complaints)


@pytest.mark.parametrize("how", [{"gcps": True}, {"rpc": True}, {"gcps": True, "rpc": True}], ids=str)
@pytest.mark.parametrize("stage", ["never", "always"])
def test_the_mask_has_the_points_and_rpcs_of_the_image(tmp_path: Path, how: dict[str, bool], stage: str) -> None:
    image = write(tmp_path / "scene.tif", **how)
    product = segmented(image, tmp_path, stage=stage)
    assert placed(product) == placed(image)
    assert bool(placed(image)[0]) == how.get("gcps", False) and (placed(image)[2] is not None) == how.get("rpc", False)
    assert_is_a_cog(product)
    with rasterio.open(product) as mask:
        assert mask.crs is None and mask.transform == rasterio.Affine.identity()


def test_an_image_with_transform_and_rpcs_keeps_both(tmp_path: Path) -> None:
    place = {"crs": "EPSG:32633", "transform": rasterio.Affine(10, 0, 500_000, 0, -10, 5_600_000)}
    image = write(tmp_path / "scene.tif", rpc=True, **place)
    product = segmented(image, tmp_path)
    assert placed(product) == placed(image) and placed(product)[2] is not None
    with rasterio.open(product) as mask:
        assert mask.crs == "EPSG:32633" and mask.transform == place["transform"]


@pytest.mark.parametrize("name", ["hostile/georef/byte_gcp.tif", "hostile/georef/cog_gcps.tif"])
def test_real_points_reach_the_mask(shared_data: Path, tmp_path: Path, name: str) -> None:
    product = segmented(shared_data / name, tmp_path)
    assert placed(product) == placed(shared_data / name) and placed(product)[0]
    assert_is_a_cog(product)


def test_points_and_rpcs_follow_another_pixel_size(tmp_path: Path) -> None:
    product = segmented(write(tmp_path / "scene.tif", gcps=True, rpc=True), tmp_path, resolution=2.5)
    points, _, found = placed(product)
    assert points == [(p.row / 2.5, p.col / 2.5, p.x, p.y, p.z) for p in POINTS]
    assert found is not None
    assert (found.line_off, found.samp_off) == pytest.approx((20.75 / 2.5 - 0.5, 30 / 2.5 - 0.5))
    assert (found.line_scale, found.samp_scale) == pytest.approx((16, 24))


def test_rpcs_name_the_same_ground_after_scaling() -> None:
    """The normalised line of a pixel's corner is the same in both grids."""
    told = {"LINE_OFF": "20.25 pixels", "SAMP_OFF": "29.5", "LINE_SCALE": "40", "SAMP_SCALE": "60", "ERR_BIAS": "1"}
    scaled = Placement(rpcs=told).scaled(4, 3).rpcs
    for axis, corner, factor in (("LINE", 8.0, 4), ("SAMP", 12.0, 3)):
        before = (corner - 0.5 - float(told[f"{axis}_OFF"].split()[0])) / float(told[f"{axis}_SCALE"])
        after = (corner / factor - 0.5 - float(scaled[f"{axis}_OFF"])) / float(scaled[f"{axis}_SCALE"])
        assert after == pytest.approx(before)
    assert scaled["ERR_BIAS"] == "1"


def test_a_coarser_grid_has_its_points_at_the_same_place() -> None:
    grid = Grid(40, 60, placement=Placement((ControlPoint(20, 30, (1.0, 2.0, 3.0)),)))
    placement = grid.coarsen(4).placement
    assert placement is not None and placement.points == (ControlPoint(5, 7.5, (1.0, 2.0, 3.0)),)


def test_what_is_carried_is_said(tmp_path: Path) -> None:
    notes = open_source(str(write(tmp_path / "scene.tif", gcps=True, rpc=True))).describe()["notes"]
    assert any("4 ground control points" in note and "carries" in note for note in notes)
    assert any("RPC" in note for note in notes)


def text_of(told: RPC) -> str:
    """As `_RPC.TXT` has it: a line for every number."""
    lines = []
    for key, value in told.to_gdal().items():
        numbers = value.split()
        names = [key] if len(numbers) == 1 else [f"{key}_{k}" for k in range(1, 21)]
        lines += [f"{name}: {number}" for name, number in zip(names, numbers, strict=True)]
    return "\n".join([*lines, ""])


def group_of(told: RPC) -> str:
    """As `.RPB` has it: a group of assignments, in camel case."""
    lines = ['satId = "X";', 'bandId = "P";', 'SpecId = "RPC00B";', "BEGIN_GROUP = IMAGE"]
    for key, value in told.to_gdal().items():
        first, second, *_ = key.lower().replace("_off", "_offset").split("_")
        if key.endswith("COEFF"):
            name = f"{first}{second.capitalize()}Coef"
            lines.append(f"{name} = ({', '.join(value.split())});")
        else:
            lines.append(f"{first}{second.capitalize()} = {value};")
    return "\n".join([*lines, "END_GROUP = IMAGE", "END;", ""])


@pytest.mark.parametrize(("name", "write_rpcs"), [("scene_RPC.TXT", text_of), ("scene.RPB", group_of)])
def test_rpcs_in_a_file_beside_the_image_are_carried(tmp_path: Path, name: str, write_rpcs: Any) -> None:
    image, beside = write(tmp_path / "scene.tif"), tmp_path / name
    beside.write_text(write_rpcs(rpcs()))
    assert str(beside) in open_source(str(image)).identity()
    told, carried = placed(image)[2], placed(segmented(image, tmp_path))[2]
    assert told is not None and carried is not None
    for key, value in told.to_dict().items():  # a TIFF's numbers come back with 15 digits
        assert getattr(carried, key) == pytest.approx(value, rel=1e-14), key


@pytest.mark.parametrize("place", [0, 2, 4, 5])
@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_transform_that_is_no_numbers_is_refused_with_one_line(tmp_path: Path, place: int, number: float) -> None:
    numbers = [10.0, 0.0, 500_000.0, 0.0, -10.0, 5_600_000.0]
    numbers[place] = number
    text = ", ".join(str(numbers[k]) for k in (2, 0, 1, 5, 3, 4))  # in GDAL's order
    member = write(tmp_path / "a.tif")
    path = tmp_path / "a.vrt"
    path.write_text(
        f'<VRTDataset rasterXSize="60" rasterYSize="40"><GeoTransform>{text}</GeoTransform>'
        f'<VRTRasterBand dataType="Byte" band="1"><SimpleSource><SourceFilename>{member}</SourceFilename>'
        "<SourceBand>1</SourceBand></SimpleSource></VRTRasterBand></VRTDataset>"
    )
    with pytest.raises(SourceError, match="no finite numbers; correct it") as refusal:
        open_source(str(path))
    assert "\n" not in str(refusal.value)
