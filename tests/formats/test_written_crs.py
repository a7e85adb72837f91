"""The law "the CRS written is the CRS read", in every product, also where a variable names another installation."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pyogrio
import pyproj
import pytest
import rasterio
import zarr

from tilesseg.errors import FormatError
from tilesseg.formats import FORMATS, open_source, resolve
from tilesseg.formats.cog import cog_layers
from tilesseg.formats.reading import proj_data
from tilesseg.formats.writer import Mask, MaskClass
from tilesseg.formats.writing import written_crs
from tilesseg.formats.writing.written_crs import check_geotiff_crs, refuse_other_crs, refuse_other_crs_of
from tilesseg.raster.grid import Grid

WRITE_ALL = """
import sys
from pathlib import Path
sys.path.insert(0, str(Path(sys.argv[3])))
from test_written_crs import write_all
print(*write_all(Path(sys.argv[1]), Path(sys.argv[2])), sep="\\n")
"""


def write_all(path: Path, folder: Path) -> list[str]:
    """Write every product of a mask of the image, as a run does; notes about the image."""
    source = open_source(str(path))
    labels = np.ones(source.grid.shape, np.uint8)
    classes = (MaskClass("background", (0, 0, 0)), MaskClass("forest", (0, 99, 0)))
    mask = Mask(source.grid, lambda window: labels[window.slices()], classes, {"source": "a"})
    for name in ("cog", "ome-tiff", "ome-zarr", "geojson", "gpkg", "flatgeobuf", "geoparquet"):
        row = FORMATS[name]
        product = folder / ("mask" + row.suffixes[0])
        if row.checks:
            resolve(row.checks)(mask, product)
        resolve(str(row.writes))(mask, product)
    return list(source.describe()["notes"])


def image(path: Path, crs: str, x: float, y: float, side: float) -> Path:
    kind = {"driver": "GTiff", "height": 20, "width": 30, "count": 1, "dtype": "uint8"}
    with rasterio.open(path, "w", crs=crs, transform=rasterio.Affine(side, 0, x, 0, -side, y), **kind) as file:
        file.write(np.ones((1, 20, 30), np.uint8))
    return path


def written(folder: Path) -> dict[str, pyproj.CRS]:
    """CRS of the products, by other readers than ours."""
    with rasterio.open(folder / "mask.tif") as file:
        found = {"cog": file.crs.to_wkt()}
    for name in ("mask.gpkg", "mask.fgb"):
        found[name] = pyogrio.read_info(folder / name)["crs"]
    geo = json.loads(pyarrow.parquet.read_metadata(folder / "mask.parquet").metadata[b"geo"])
    found["parquet"] = json.dumps(geo["columns"]["geometry"]["crs"])
    found["ome-zarr"] = zarr.open_group(folder / "mask.ome.zarr", mode="r")["0"].attrs["proj:wkt2"]
    return {name: pyproj.CRS.from_user_input(text) for name, text in found.items()}


def test_the_crs_written_is_the_crs_read_where_variables_name_another_installation(tmp_path: Path) -> None:
    path, other = image(tmp_path / "a.tif", "EPSG:2056", 2_600_000, 1_200_000, 10), tmp_path / "other"
    other.mkdir()
    environment = {**os.environ, **dict.fromkeys(proj_data.VARIABLES, str(other))}
    command = [sys.executable, "-c", WRITE_ALL, str(path), str(tmp_path), str(Path(__file__).parent)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    named = " and ".join(f"{variable} ({other})" for variable in proj_data.VARIABLES)
    assert f"{named} are not used" in done.stdout
    assert {crs.to_epsg() for crs in written(tmp_path).values()} == {2056}
    (feature,) = json.loads((tmp_path / "mask.geojson").read_text(encoding="utf-8"))["features"]
    corner = pyproj.Transformer.from_crs(2056, "OGC:CRS84", always_xy=True).transform(2_600_000, 1_200_000)
    assert min(np.abs(np.array(feature["geometry"]["coordinates"][0]) - corner).max(axis=1)) < 1e-8
    ome = (tmp_path / "mask.ome.tif").read_bytes()
    assert b"LV95" in ome and b"LOCAL_CS" not in ome


@pytest.mark.parametrize(
    ("crs", "x", "y", "side"),
    [
        ("EPSG:4326", 8.0, 47.0, 1e-4),
        ("EPSG:3857", 1e6, 8.4e6, 10.0),
        ("EPSG:32632+5773", 5e5, 5.2e6, 10.0),
        ("+proj=utm +zone=32 +ellps=WGS84 +towgs84=0,0,0", 5e5, 5.2e6, 10.0),
        ("+proj=laea +lat_0=47.1 +lon_0=8.2 +ellps=GRS80 +units=m", 0.0, 0.0, 10.0),
    ],
)
def test_the_crs_written_is_the_crs_read(tmp_path: Path, crs: str, x: float, y: float, side: float) -> None:
    path = image(tmp_path / "a.tif", crs, x, y, side)
    write_all(path, tmp_path)
    with rasterio.open(path) as file:
        to_lonlat = pyproj.Transformer.from_crs(file.crs.to_wkt(), "OGC:CRS84", always_xy=True)
    for name, read in written(tmp_path).items():
        back = pyproj.Transformer.from_crs(read, "OGC:CRS84", always_xy=True)
        assert back.transform(x, y)[:2] == pytest.approx(to_lonlat.transform(x, y)[:2], abs=1e-9), name


def test_a_product_with_another_crs_than_its_grid_is_not_published(tmp_path: Path) -> None:
    path = image(tmp_path / "a.tif", "EPSG:32632", 5e5, 5.2e6, 10)
    grid = Grid(20, 30, crs=rasterio.CRS.from_epsg(32633).to_wkt(), unit="metre", metres_per_unit=1.0)
    with pytest.raises(FormatError, match=r"cannot write m.tif: its CRS would read back as another one: EPSG:32633"):
        refuse_other_crs_of(path, grid, tmp_path / "m.tif")
    with pytest.raises(FormatError, match="EPSG:32633 and none"):
        refuse_other_crs(None, grid, tmp_path / "m.tif")


@pytest.mark.parametrize("name", ["cog", "gpkg"])
def test_a_writer_that_changes_the_crs_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    grid = Grid(20, 30, (10, 0, 5e5, 0, -10, 5e6), rasterio.CRS.from_epsg(32633).to_wkt(), "metre", 1.0)
    labels = np.ones(grid.shape, np.uint8)
    mask = Mask(grid, lambda window: labels[window.slices()], (MaskClass("a", (0, 0, 0)),) * 2, {"source": "a"})
    other = rasterio.CRS.from_epsg(32634).to_wkt()
    place, write_arrow = cog_layers._place, pyogrio.raw.write_arrow
    monkeypatch.setattr(cog_layers, "_place", lambda root, own: place(root, replace(own, crs=other)))
    monkeypatch.setattr(pyogrio.raw, "write_arrow", lambda *args, **more: write_arrow(*args, **{**more, "crs": other}))
    with pytest.raises(FormatError, match="its CRS would read back as another one: EPSG:32633 and EPSG:32634"):
        resolve(str(FORMATS[name].writes))(mask, tmp_path / ("mask" + FORMATS[name].suffixes[0]))
    assert not list(tmp_path.iterdir())


def test_a_crs_that_a_geotiff_cannot_keep_is_refused_before_the_first_tile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = Grid(20, 30, crs=rasterio.CRS.from_epsg(32633).to_wkt(), unit="metre", metres_per_unit=1.0)
    mask = Mask(grid, lambda window: np.zeros(window.shape, np.uint8), (MaskClass("all", (0, 0, 0)),), {})
    check_geotiff_crs(mask, tmp_path / "m.tif")
    monkeypatch.setattr(written_crs, "round_trip", lambda crs: rasterio.CRS.from_epsg(32634).to_wkt())
    with pytest.raises(FormatError, match="EPSG:32633 and EPSG:32634"):
        check_geotiff_crs(mask, tmp_path / "m.tif")


def test_data_of_proj_that_do_not_work_are_refused_by_the_name_of_the_variable(tmp_path: Path) -> None:
    """A rasterio without data of its own, as conda has it, must take those that the variable names."""
    path = image(tmp_path / "a.tif", "EPSG:2056", 2_600_000, 1_200_000, 10)
    command = (
        "from tilesseg.formats.reading import proj_data; proj_data._package = lambda: None\n"
        "from tilesseg.formats import open_source; from tilesseg.errors import SourceError\n"
        "import sys\n"
        "try: open_source(sys.argv[1])\n"
        "except SourceError as error: print(error)"
    )
    environment = {**os.environ, "PROJ_LIB": str(tmp_path)}
    asked = [
        sys.executable,
        "-c",
        f"import os; kept = dict(os.environ)\nimport tilesseg.formats\nos.environ.update(kept)\n{command}",
    ]
    done = subprocess.run([*asked, str(path)], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("cannot read coordinate reference systems: PROJ's data do not work, EPSG:32632 gives")
    assert f"PROJ_LIB={tmp_path}" in done.stdout and done.stdout.count("\n") == 1


def test_variables_that_name_the_installations_own_data_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    package = proj_data._package()
    assert package is not None
    monkeypatch.setenv("PROJ_DATA", str(package / "proj_data"))
    proj_data.use_own_data()
    assert os.environ["PROJ_DATA"] == str(package / "proj_data") and proj_data.data_note() is None
