"""The law "figures do not depend on tiles": hectares and polygons of a run, in any projection, whatever the cores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pyproj
import pytest
import rasterio
from fakes import job_data, write_bundle, write_scene

from tilesseg.planning.job import parse_job
from tilesseg.reporting.results import SceneReport
from tilesseg.run.run_job import run_job

SIDE = 320
PLACES = {
    "Web Mercator": ("EPSG:3857", (10_000.0, 1e6, 8.4e6)),
    "polar": ("EPSG:3413", (5_000.0, -1.1e6, 1.2e6)),
    "UTM": ("EPSG:32633", (300.0, 3e5, 5.6e6)),
    "degrees": ("EPSG:4326", (0.1, 8.0, 60.0)),
}


def run(folder: Path, place: str, core: int) -> tuple[SceneReport, dict[int, float]]:
    """Results of a run, and the sum of the polygons' areas by label."""
    crs, (side, x, y) = PLACES[place]
    labels = np.kron(np.random.default_rng(0).integers(0, 3, (1, 40, 40)), np.ones((1, 8, 8))).astype(np.uint8)
    transform = rasterio.Affine(side, 0, x, 0, -side, y)
    folder.mkdir()
    scene = write_scene(
        folder / "scene.tif", labels, crs=crs, transform=transform, tiled=True, blockxsize=64, blockysize=64
    )
    bundle = write_bundle(folder / "model", classes=3)
    changes: dict[str, Any] = {"tiling": {"patch": 64, "overlap": 16, "blend": "gaussian", "core": core}}
    data = job_data(scene, bundle, folder / "run", **changes)
    data["output"] |= {"products": [{"format": "gpkg", "path": str(folder / "mask.gpkg")}], "preview": False}
    report = run_job(parse_job(data, where="test"))
    assert report.exit_code == 0
    table = geopandas.read_file(folder / "mask.gpkg")
    return report.scenes[0], table.groupby("label")["area_m2"].sum().to_dict()


@pytest.mark.parametrize("place", PLACES)
def test_areas_do_not_depend_on_tiles_and_polygons_add_up_to_them(tmp_path: Path, place: str) -> None:
    one, polygons = run(tmp_path / "one", place, 512)
    many, others = run(tmp_path / "many", place, 64)
    assert (one.tiles, many.tiles) == (1, 25)
    assert one.hectares == many.hectares
    assert polygons == pytest.approx(others, rel=1e-13)
    for label, hectares in enumerate(one.hectares.values()):
        assert polygons[label] / 10_000 == pytest.approx(hectares, abs=1e-4)
    crs, (side, x, y) = PLACES[place]
    there = pyproj.Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
    t = np.linspace(0, SIDE * side, 400)
    edge = np.concatenate([t, np.full(400, t[-1]), t[::-1], np.zeros(400)])
    down = np.concatenate([np.zeros(400), t, np.full(400, t[-1]), t[::-1]])
    area, _ = pyproj.Geod(ellps="WGS84").polygon_area_perimeter(*there.transform(x + edge, y - down))
    assert sum(one.hectares.values()) == pytest.approx(abs(area) / 10_000, rel=2e-5)
