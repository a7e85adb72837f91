"""Which product a scene gets, under which name, and which options belong to which format."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fakes import job_data, write_bundle, write_scene
from small_runs import SmallRun

from tilesseg.cli.segment_command import SUFFIXES
from tilesseg.cluster.executors import SerialExecutor
from tilesseg.errors import JobError, StoreError
from tilesseg.events import ProductWritten
from tilesseg.formats.registry import FORMATS, resolve
from tilesseg.planning.job import Output, Product, parse_job, parse_product
from tilesseg.planning.product_checks import product_path, resolved
from tilesseg.planning.scene_plan import ScenePlan, SceneRun
from tilesseg.planning.stored_plan import stored_scene_plan
from tilesseg.run import write_products as written_by
from tilesseg.run.run_job import run_job
from tilesseg.run.write_products import export_run, write_products
from tilesseg.store.run_directory import RunDirectory
from tilesseg.store.scene_store import Store


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> ScenePlan:
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


@pytest.fixture
def small(tmp_path: Path) -> SmallRun:
    """A run of two scenes of four tiles, none of which is planned."""
    scenes = [str(write_scene(tmp_path / f"{name}.tif", np.ones((1, 128, 128), np.uint8))) for name in "ab"]
    data = job_data(scenes, write_bundle(tmp_path / "model"), tmp_path / "run")
    return SmallRun({**data, "tiling": {"patch": 32, "overlap": 8, "core": 64}, "input": {"check_range": False}})


def written(small: SmallRun, scene: str, *products: Product, preview: bool = False) -> list[ProductWritten]:
    store = small.run.scene(scene)
    plan = stored_scene_plan(store)
    assert plan is not None
    output = Output(dir=str(small.run.path), products=products, preview=preview)
    return list(write_products(SceneRun(store, small.plan, plan), output, executor=SerialExecutor()))


def counted(make: Callable[..., Any], made: list[str], name: str) -> Callable[..., Any]:
    def noted(*given: Any) -> Any:
        made.append(name)
        return make(*given)

    return noted


@pytest.mark.parametrize(
    ("product", "needed"),
    [
        ({"format": "cog"}, ["with_levels"]),
        ({"format": "cog", "overviews": "nearest"}, []),
        ({"format": "geojson"}, ["with_tile_polygons"]),
    ],
    ids=["mode", "nearest", "polygons"],
)
def test_workers_make_the_levels_or_the_polygons_that_a_product_needs(
    product: dict[str, Any], needed: list[str], small: SmallRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = list[str]()
    for name in ("with_levels", "with_tile_polygons"):
        monkeypatch.setattr(written_by, name, counted(getattr(written_by, name), made, name))
    small.plan_scenes("a")
    small.segment("a")
    written(small, "a", Product.model_validate(product))
    assert made == needed


def test_the_quick_look_lies_beside_the_first_product_and_each_file_has_its_own_seconds(
    small: SmallRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks: Iterator[int] = count(100)
    monkeypatch.setattr(written_by, "time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    small.plan_scenes("a")
    small.segment("a")
    products = [Product(format="cog", path=str(tmp_path / name)) for name in ("one.tif", "two.tif")]
    files = written(small, "a", *products, preview=True)
    assert [Path(file.path).name for file in files] == ["one.tif", "two.tif", "one.png"]
    assert [file.seconds for file in files] == [1, 1, 1]


@pytest.mark.parametrize(("planned", "said"), [(True, "1 of 4 tiles"), (False, "all tiles")])
def test_a_run_with_tiles_still_to_do_is_not_exported(small: SmallRun, planned: bool, said: str) -> None:
    small.plan_scenes("a")
    small.segment("a")
    if planned:
        small.plan_scenes("b")
        small.segment("b", limit=3)
    with pytest.raises(StoreError, match=f"cannot export scene b: {said} are still to do"):
        export_run(small.run.path, Product(format="geojson"))
