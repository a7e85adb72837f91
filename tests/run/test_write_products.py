"""Which product a scene gets, under which name, and which options belong to which format."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fakes import job_data, write_bundle, write_scene

from tilesseg.cli.segment_command import SUFFIXES
from tilesseg.cluster.executors import SerialExecutor
from tilesseg.errors import JobError
from tilesseg.formats.registry import FORMATS, resolve
from tilesseg.planning.job import Product, parse_job, parse_product
from tilesseg.planning.product_checks import product_path, resolved
from tilesseg.planning.scene_plan import ScenePlan
from tilesseg.planning.stored_plan import stored_scene_plan
from tilesseg.run.run_job import run_job
from tilesseg.store.run_directory import RunDirectory
from tilesseg.store.scene_store import Store


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> ScenePlan:
    import numpy as np

    folder = tmp_path_factory.mktemp("run")
    scene = write_scene(folder / "scene.tif", np.tile(np.arange(80, dtype=np.uint8) * 3, (1, 70, 1)), names=["b1"])
    output = {"dir": str(folder / "run"), "products": [], "preview": False}
    data = {**job_data(scene, write_bundle(folder / "model"), folder / "run"), "output": output}
    run_job(parse_job(data, where="test"), executor=SerialExecutor())
    plan = stored_scene_plan(RunDirectory(folder / "run").scene("scene"))
    assert plan is not None
    return plan


def test_auto_is_ome_tiff_for_what_is_measured_in_micrometres_and_else_a_cog(planned: ScenePlan) -> None:
    assert resolved(Product(), planned).format == "cog"
    slide = replace(planned, grid=replace(planned.grid, crs=None, unit="micrometre"))
    assert resolved(Product(overviews="nearest"), slide) == Product(format="ome-tiff", overviews="nearest")


@pytest.mark.parametrize("name", [name for name, row in FORMATS.items() if row.writes])
def test_every_format_has_a_name_of_its_own_in_the_run(name: str, planned: ScenePlan) -> None:
    product = Product.model_validate({"format": name})
    path = product_path(Store(Path("run/scenes/a")), planned, product)
    expected = "a-scores" if name.startswith("scores") else "a"
    assert path == Path("run/scenes/a") / f"{expected}{FORMATS[name].suffixes[0]}"


@pytest.mark.parametrize("name", FORMATS)
def test_every_row_names_something_that_is_there(name: str) -> None:
    row = FORMATS[name]
    assert all(callable(resolve(dotted)) for dotted in (row.opens, row.writes, row.checks) if dotted)
    assert row.opens or row.writes


def test_suffixes_of_the_command_line_are_those_of_the_formats() -> None:
    assert all(suffix.endswith(FORMATS[name].suffixes) for suffix, name in SUFFIXES.items())
    assert next(name for suffix, name in SUFFIXES.items() if "x.ome.tif".endswith(suffix)) == "ome-tiff"


@pytest.mark.parametrize(
    ("product", "said"),
    [
        ({"format": "cog", "classes": ["a"]}, "format cog takes no classes, only scores-cog"),
        ({"format": "geojson", "overviews": "nearest"}, "format geojson takes no overviews, only cog"),
        ({"format": "gpkg", "canvas": "full"}, "format gpkg takes no canvas, only geojson do"),
        ({"format": "ome-tiff", "version": "0.4"}, "format ome-tiff takes no version"),
        ({"beside": "nuclei"}, "format auto takes no beside, only ome-zarr do"),
        ({"format": "ome-zarr", "beside": "a/b"}, "beside"),
        ({"format": "ome-zarr", "beside": "a", "path": "b.zarr"}, "leave one out"),
        ({"format": "geotiff"}, "format"),
    ],
)
def test_an_option_that_a_format_does_not_know_is_refused(product: dict[str, Any], said: str) -> None:
    with pytest.raises(JobError, match=said):
        parse_product(product, where="arguments")
