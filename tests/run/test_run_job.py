"""A run is its directory: it goes on where it stopped, refuses to become another one, and says how far it is."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import yaml
from fakes import job_data, write_bundle, write_scene
from numpy.typing import NDArray

from tilesseg.cli.main import run
from tilesseg.cluster.executors import SerialExecutor, ThreadExecutor
from tilesseg.errors import StoreError
from tilesseg.events import Event, Note, ProductWritten, RunFinished, ScenePlanned, TileDone, TileFailed
from tilesseg.planning.job import Product, parse_job
from tilesseg.raster.window import Window
from tilesseg.reporting.results import Report
from tilesseg.run.run_job import job_status, run_job
from tilesseg.run.work_queue import TileItem
from tilesseg.run.write_products import export_run
from tilesseg.store.run_directory import RunDirectory

SHAPE = (300, 400)
TILING = {"patch": 32, "overlap": 8, "blend": "gaussian", "core": 64, "batch": 4}
TILES = math.ceil(SHAPE[0] / 64) * math.ceil(SHAPE[1] / 64)


def values(shape: tuple[int, int] = SHAPE, *, seed: int = 3) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(20, 250, (1, *shape)).astype(np.uint8)


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    return write_scene(tmp_path / "scene.tif", values())


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "model", "Positional")


class Killed:
    """An executor whose client dies once `after` results are in."""

    slots = 1

    def __init__(self, after: int) -> None:
        self.after = after

    def map(self, function: Callable[[Any], Any], items: Iterable[Any], *, lost: Any) -> Iterator[Any]:
        tiles = 0
        for item in items:
            if isinstance(item, TileItem) and tiles == self.after:
                raise KeyboardInterrupt
            tiles += isinstance(item, TileItem)
            yield function(item)


class Slots(SerialExecutor):
    """Says that it does this many at the same time."""

    def __init__(self, slots: int) -> None:
        self.slots = slots


def go(
    scenes: Any, bundle: Path, folder: Path, *, executor: Any = None, events: list[Event] | None = None, **changes: Any
) -> Report:
    job = parse_job(job_data(scenes, bundle, folder, **{"tiling": TILING, **changes}), where="test")
    listeners = [] if events is None else [events.append]
    return run_job(job, executor=executor or SerialExecutor(), listeners=listeners)


def mask_bytes(folder: Path, scene: str = "scene") -> bytes:
    """What is stored, and nothing of when it was stored."""
    with rasterio.open(folder / "scenes" / scene / f"{scene}.tif") as file:
        whole = RunDirectory(folder).scene(scene).read(Window(0, 0, file.height, file.width))
        assert np.array_equal(file.read(1), whole)
    return whole.tobytes()


def done_in(events: Iterable[Event]) -> list[str]:
    return [event.tile for event in events if isinstance(event, TileDone)]


@pytest.mark.parametrize("after", [0, 1, 13, TILES - 1, TILES])
def test_killed_after_k_of_n_the_next_run_does_n_minus_k(tmp_path: Path, scene: Path, bundle: Path, after: int) -> None:
    go(scene, bundle, tmp_path / "whole")
    first: list[Event] = []
    if after < TILES:
        with pytest.raises(KeyboardInterrupt):
            go(scene, bundle, tmp_path / "run", executor=Killed(after), events=first)
    else:
        go(scene, bundle, tmp_path / "run", executor=Killed(after), events=first)
    second: list[Event] = []
    report = go(scene, bundle, tmp_path / "run", events=second)
    assert len(done_in(first)) == after and len(done_in(second)) == TILES - after
    assert not set(done_in(first)) & set(done_in(second))
    planned = [(event.tiles, event.done) for event in second if isinstance(event, ScenePlanned)]
    assert planned == ([(TILES - after, after)] if after < TILES else [])  # a finished scene is not looked at again
    assert report.exit_code == 0 and report.scenes[0].done == TILES
    assert mask_bytes(tmp_path / "run") == mask_bytes(tmp_path / "whole")
    assert sum(report.scenes[0].pixels.values()) == SHAPE[0] * SHAPE[1]


def test_a_run_killed_over_and_over_gets_there_and_gives_the_same_bytes(
    tmp_path: Path, scene: Path, bundle: Path
) -> None:
    go(scene, bundle, tmp_path / "whole", executor=ThreadExecutor(3))
    events: list[Event] = []
    for _ in range(math.ceil(TILES / 4) - 1):
        with pytest.raises(KeyboardInterrupt):
            go(scene, bundle, tmp_path / "run", executor=Killed(4), events=events)
        assert not list((tmp_path / "run").rglob("scene.tif"))
    go(scene, bundle, tmp_path / "run", executor=Killed(4), events=events)
    assert sorted(done_in(events)) == sorted(set(done_in(events))) and len(done_in(events)) == TILES
    assert mask_bytes(tmp_path / "run") == mask_bytes(tmp_path / "whole")


def test_a_finished_run_does_no_tile_again(tmp_path: Path, scene: Path, bundle: Path) -> None:
    go(scene, bundle, tmp_path / "run")
    product = tmp_path / "run" / "scenes" / "scene" / "scene.tif"
    product.unlink()
    events: list[Event] = []
    report = go(scene, bundle, tmp_path / "run", events=events)
    assert not done_in(events) and report.exit_code == 0 and product.exists()


def test_a_tile_without_its_record_counts_as_not_done_whatever_is_stored(
    tmp_path: Path, scene: Path, bundle: Path
) -> None:
    go(scene, bundle, tmp_path / "run")
    before = mask_bytes(tmp_path / "run")
    (tmp_path / "run" / "scenes" / "scene" / "done" / "r002-c003.json").unlink()
    assert job_status(tmp_path / "run").scenes[0].missing == 1
    events: list[Event] = []
    go(scene, bundle, tmp_path / "run", events=events)
    assert done_in(events) == ["r002-c003"] and mask_bytes(tmp_path / "run") == before


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tiling": {**TILING, "overlap": 12}}, "tiling.overlap was 8 and is 12 now"),
        ({"tiling": {**TILING, "patch": 48}}, "tiling.patch was 32 and is 48 now"),
        ({"tiling": {**TILING, "blend": "hann"}}, "tiling.blend was gaussian and is hann now"),
        ({"tiling": {**TILING, "core": 128}}, "tiling.core was 64 and is 128 now"),
        ({"input": {"bands": [1]}}, "input.bands was None and is [1] now"),
        ({"input": {"scale": 0.5}}, "input.scale was None and is 0.5 now"),
        ({"cluster": {"kind": "serial", "engine_threads": 2}}, "cluster.engine_threads was 1 and is 2 now"),
        ({"engine": "torch"}, "engine was auto and is torch now"),
        ({"precision": "fp32"}, "precision was auto and is fp32 now"),
        ({"compile": True}, "compile was False and is True now"),
    ],
)
def test_a_run_refuses_to_go_on_as_another_one_and_names_the_difference(
    tmp_path: Path, scene: Path, bundle: Path, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(KeyboardInterrupt):
        go(scene, bundle, tmp_path / "run", executor=Killed(3))
    before = stored(tmp_path / "run")
    with pytest.raises(StoreError) as refused:
        go(scene, bundle, tmp_path / "run", **changes)
    assert said in str(refused.value) and "\n" not in str(refused.value)
    assert stored(tmp_path / "run") == before
    assert go(scene, bundle, tmp_path / "run").exit_code == 0


def stored(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_run_refuses_another_model(tmp_path: Path, scene: Path, bundle: Path) -> None:
    go(scene, bundle, tmp_path / "run")
    before = yaml.safe_load((bundle / "model.yaml").read_text())
    write_bundle(bundle, "Positional", fill=3.0)
    with pytest.raises(StoreError, match=r"model\.sha256 was [0-9a-f]{64} and is [0-9a-f]{64} now"):
        go(scene, bundle, tmp_path / "run")
    (bundle / "model.yaml").write_text(yaml.safe_dump({**before, "description": "Now with words."}))
    assert go(scene, bundle, tmp_path / "run").exit_code == 0


@pytest.mark.parametrize("how", ["mtime", "size"])
def test_a_run_refuses_an_image_that_has_changed(tmp_path: Path, scene: Path, bundle: Path, how: str) -> None:
    with pytest.raises(KeyboardInterrupt):
        go(scene, bundle, tmp_path / "run", executor=Killed(3))
    stat = scene.stat()
    if how == "size":
        with scene.open("ab") as file:
            file.write(b"\0" * 7)
    os.utime(scene, ns=(stat.st_atime_ns, stat.st_mtime_ns + (how == "mtime")))
    with pytest.raises(StoreError) as refused:
        go(scene, bundle, tmp_path / "run")
    now = scene.stat()
    assert all(
        str(value) in str(refused.value) for value in (stat.st_mtime_ns, now.st_mtime_ns, stat.st_size, now.st_size)
    )
    assert str(scene) in str(refused.value) and "\n" not in str(refused.value)


def test_what_does_not_change_the_mask_may_change_between_runs(tmp_path: Path, scene: Path, bundle: Path) -> None:
    go(scene, bundle, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        go(scene, bundle, tmp_path / "run", executor=Killed(5))
    output = {"dir": str(tmp_path / "run"), "preview": False, "products": [{"overviews": "nearest"}]}
    report = go(scene, bundle, tmp_path / "run", executor=ThreadExecutor(2), output=output, name="other",
                cluster={"kind": "threads", "threads": 2, "engine_threads": 1})  # fmt: skip
    assert report.exit_code == 0 and len(report.products) == 1
    assert mask_bytes(tmp_path / "run") == mask_bytes(tmp_path / "whole")


def test_what_auto_became_is_not_decided_again(tmp_path: Path, scene: Path, bundle: Path) -> None:
    auto = {"tiling": {"patch": 32, "overlap": 8, "blend": "gaussian", "core": "auto"}}
    big = write_scene(tmp_path / "big.tif", values((4200, 1100)))
    with pytest.raises(KeyboardInterrupt):
        go(big, bundle, tmp_path / "run", executor=Killed(1), **auto)
    files = [tmp_path / "run" / name for name in ("plan.json", "scenes/big/plan.json")]
    before = [file.read_bytes() for file in files]
    report = go(big, bundle, tmp_path / "run", executor=Slots(7), **auto)
    assert [file.read_bytes() for file in files] == before
    assert report.exit_code == 0
    go(big, bundle, tmp_path / "fresh", executor=Slots(7), **auto)
    fresh = json.loads((tmp_path / "fresh" / "scenes" / "big" / "plan.json").read_text())
    assert fresh["scene"]["layout"]["core"] != json.loads(before[1])["scene"]["layout"]["core"]
    assert mask_bytes(tmp_path / "run", "big") == mask_bytes(tmp_path / "fresh", "big")


def test_a_failed_tile_is_254_and_the_next_run_tries_it_again(tmp_path: Path, bundle: Path) -> None:
    pixels = values()
    pixels[0, 100, 100] = 13
    image = write_scene(tmp_path / "scene.tif", pixels)
    cursed = write_bundle(tmp_path / "cursed", "Broken", classes=250)
    events: list[Event] = []
    report = go(image, cursed, tmp_path / "run", events=events)
    assert report.exit_code == 3 and report.scenes[0].failed == {"r001-c001": "RuntimeError: unlucky pixel"}
    mask = np.frombuffer(mask_bytes(tmp_path / "run"), np.uint8).reshape(SHAPE)
    tile = (slice(64, 128), slice(64, 128))
    assert (mask[tile] == 254).all() and np.count_nonzero(mask == 254) == 64 * 64
    again: list[Event] = []
    report = go(image, cursed, tmp_path / "run", events=again)
    assert report.exit_code == 3 and not done_in(again)
    assert [event.tile for event in again if isinstance(event, TileFailed)] == ["r001-c001"]
    (finished,) = (event for event in again if isinstance(event, RunFinished))
    assert (finished.done, finished.failed) == (TILES - 1, 1)


def test_a_tile_that_failed_for_a_passing_reason_is_healed_by_the_next_run(
    tmp_path: Path, scene: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go(scene, bundle, tmp_path / "whole")
    import fakes

    with monkeypatch.context() as patch:
        calls = iter(range(10**6))
        real = fakes.Positional.predict

        def moody(self: Any, patches: Any) -> Any:
            if next(calls) == 40:
                raise MemoryError("the node is full")
            return real(self, patches)

        patch.setattr(fakes.Positional, "predict", moody)
        report = go(scene, bundle, tmp_path / "run")
    assert report.exit_code == 3 and list(report.scenes[0].failed.values()) == ["MemoryError: the node is full"]
    events: list[Event] = []
    report = go(scene, bundle, tmp_path / "run", events=events)
    assert report.exit_code == 0 and len(done_in(events)) == 1 and not report.scenes[0].failed
    assert mask_bytes(tmp_path / "run") == mask_bytes(tmp_path / "whole")


def test_a_scene_of_which_no_tile_could_be_done_gets_no_product(tmp_path: Path) -> None:
    image = write_scene(tmp_path / "scene.tif", np.full((1, 40, 40), 13, np.uint8))
    cursed = write_bundle(tmp_path / "cursed", "Broken", input_range=[0, 20])
    events: list[Event] = []
    report = go(image, cursed, tmp_path / "run", events=events)
    assert report.exit_code == 3 and report.products == ()
    assert any(isinstance(event, Note) and "no product" in event.text for event in events)
    assert not list((tmp_path / "run").rglob("*.tif"))


def test_plan_then_run_use_one_plan(
    tmp_path: Path, scene: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "job.yaml"
    data = job_data("scene.tif", bundle, Path("run"), tiling={**TILING, "batch": "auto", "blend": "auto"})
    path.write_text(yaml.safe_dump(data))
    assert run(["plan", str(path), "--json"]) == 0
    forecast = json.loads(capsys.readouterr().out)
    planned = (tmp_path / "run" / "plan.json").read_bytes()
    assert forecast["scenes"][0]["tiles"] == TILES and forecast["scenes"][0]["patch"] == 32
    assert run(["plan", str(path)]) == 0
    assert f"{TILES} (tasks)" in capsys.readouterr().out
    assert run(["run", str(path)]) == 0
    assert (tmp_path / "run" / "plan.json").read_bytes() == planned
    done = [json.loads(file.read_text()) for file in (tmp_path / "run").rglob("done/*.json")]
    assert sum(record["patches"] + record["skipped"] for record in done) == forecast["scenes"][0]["patches"]


def test_the_tile_index_is_geojson_whose_cores_cover_the_scene_once(
    tmp_path: Path, scene: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(job_data(scene, bundle, tmp_path / "run", tiling=TILING)))
    assert run(["plan", str(path)]) == 0
    index = json.loads((tmp_path / "run" / "scenes" / "scene" / "tiles.geojson").read_text())
    assert index["type"] == "FeatureCollection"
    rings: dict[str, list[Any]] = {"core": [], "halo": [], "patch": []}
    for feature in index["features"]:
        assert feature["type"] == "Feature" and feature["geometry"]["type"] == "Polygon"
        (ring,) = feature["geometry"]["coordinates"]
        assert len(ring) == 5 and ring[0] == ring[-1]
        rings[feature["properties"]["what"]].append(ring)
    assert len(rings["core"]) == len(rings["halo"]) == TILES < len(rings["patch"])
    covered = np.zeros(SHAPE, int)
    for ring in rings["core"]:
        rows, columns = pixels_of(ring)
        covered[rows, columns] += 1
    assert (covered == 1).all()


def pixels_of(ring: list[list[float]]) -> tuple[slice, slice]:
    """Rows and columns of a ring in longitude and latitude, by pyproj."""
    from pyproj import Transformer

    xs, ys = Transformer.from_crs("OGC:CRS84", "EPSG:32633", always_xy=True).transform(*zip(*ring, strict=True))
    columns = (np.array(xs) - 500_000) / 10
    rows = (5_600_000 - np.array(ys)) / 10
    for exact in (columns, rows):
        assert np.abs(exact - exact.round()).max() < 1e-3
    (left, right), (top, bottom) = ((round(side.min()), round(side.max())) for side in (columns, rows))
    return slice(top, bottom), slice(left, right)


def test_status_needs_the_directory_alone(tmp_path: Path, scene: Path, bundle: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        go(scene, bundle, tmp_path / "run", executor=Killed(6))
    shutil.move(tmp_path / "run", tmp_path / "elsewhere")
    shutil.rmtree(bundle)
    scene.unlink()
    (tmp_path / "elsewhere" / "events.jsonl").unlink()
    (found,) = job_status(tmp_path / "elsewhere").scenes
    assert (found.tiles, found.done, found.missing, found.state) == (TILES, 6, TILES - 6, "unfinished")
    assert sum(found.pixels.values()) == 6 * 64 * 64
    assert sum(found.hectares.values()) == pytest.approx(6 * 64 * 64 * 100 / 0.9996**2 / 10_000, rel=1e-5)


def test_status_and_the_summary_say_what_the_run_said(
    tmp_path: Path, scene: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = go(scene, bundle, tmp_path / "run")
    assert job_status(tmp_path / "run").scenes == report.scenes
    assert run(["status", str(tmp_path / "run"), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert said["scenes"] == summary["scenes"] == json.loads(json.dumps(report.to_json()))["scenes"]
    assert summary["products"] == list(report.products) and summary["seconds"] > 0


def test_the_events_of_all_runs_are_kept_as_they_were_told(tmp_path: Path, scene: Path, bundle: Path) -> None:
    told: list[Event] = []
    with pytest.raises(KeyboardInterrupt):
        go(scene, bundle, tmp_path / "run", executor=Killed(6), events=told)
    go(scene, bundle, tmp_path / "run", events=told)
    kept = [json.loads(line) for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    times = [event.pop("time") for event in kept]
    said = [json.loads(json.dumps(event.to_json())) for event in told]
    assert kept == [{key: value for key, value in event.items() if key != "stored"} for event in said]
    assert times == sorted(times)
    kinds = [event["event"] for event in kept]
    assert kinds.count("run_started") == 2 and kinds.count("tile_done") == TILES
    assert kinds[-1] == "run_finished" and kinds.count("product_written") == 2


def test_every_scene_of_a_glob_gets_its_own_product_at_the_place_asked_for(tmp_path: Path, bundle: Path) -> None:
    images = {name: values((90, 70 + 10 * k), seed=k) for k, name in enumerate(("north", "south", "west"))}
    (tmp_path / "images").mkdir()
    for name, pixels in images.items():
        write_scene(tmp_path / "images" / f"{name}.tif", pixels)
    identity = write_bundle(tmp_path / "identity", "Identity", classes=250)
    output = {"dir": str(tmp_path / "run"), "products": [{"path": str(tmp_path / "masks" / "{scene}-mask.tif")}]}
    events: list[Event] = []
    report = go(str(tmp_path / "images" / "*.tif"), identity, tmp_path / "run", output=output, events=events)
    assert report.exit_code == 0 and [scene.scene for scene in report.scenes] == sorted(images)
    for name, pixels in images.items():
        with rasterio.open(tmp_path / "masks" / f"{name}-mask.tif") as mask:
            assert np.array_equal(mask.read(1), pixels[0])
        assert (tmp_path / "masks" / f"{name}-mask.png").exists() and (tmp_path / "masks" / f"{name}-mask.qml").exists()
    written = [event.scene for event in events if isinstance(event, ProductWritten)]
    assert written == [name for name in sorted(images) for _ in range(2)]
    first = next(i for i, event in enumerate(events) if isinstance(event, ProductWritten))
    assert any(
        isinstance(event, TileDone) for event in events[first:]
    )  # a scene's product does not wait for the others


def test_a_scene_may_be_several_files_with_a_name_of_its_own(tmp_path: Path) -> None:
    bands = [str(write_scene(tmp_path / f"B{k}.tif", values(seed=k))) for k in (2, 3)]
    model = write_bundle(tmp_path / "model", "Positional", bands=2)
    report = go([{"image": bands, "name": "pair"}], model, tmp_path / "run")
    assert report.exit_code == 0 and report.scenes[0].scene == "pair"
    assert (tmp_path / "run" / "scenes" / "pair" / "pair.tif").exists()


def test_a_further_product_with_other_overviews_is_exported(tmp_path: Path, bundle: Path) -> None:
    pixels = np.zeros((1, 1200, 1100), np.uint8)
    pixels[0, ::2, ::2] = 1
    image = write_scene(tmp_path / "dots.tif", pixels)
    identity = write_bundle(tmp_path / "identity", "Identity", input_range=[0, 1])
    go(image, identity, tmp_path / "run", tiling={})
    assert (
        run(["export", str(tmp_path / "run"), "--out", str(tmp_path / "{scene}-near.tif"), "--overviews", "nearest"])
        == 0
    )
    export_run(tmp_path / "run", Product(path=str(tmp_path / "{scene}-mode.tif"), overviews="mode"))
    levels = {}
    for kind in ("near", "mode"):
        with rasterio.open(tmp_path / f"dots-{kind}.tif") as file:
            assert np.array_equal(file.read(1), pixels[0]) and file.overviews(1)
        with rasterio.open(tmp_path / f"dots-{kind}.tif", overview_level=0) as file:
            levels[kind] = np.unique(file.read(1)).tolist()
    assert levels["mode"] == [0] and len(levels["near"]) == 1


def test_a_plan_without_a_done_tile_binds_nobody(tmp_path: Path, scene: Path, bundle: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        go(scene, bundle, tmp_path / "run", executor=Killed(0))
    changed = {"tiling": {**TILING, "overlap": 12, "core": 128}}
    assert go(scene, bundle, tmp_path / "run", **changed).exit_code == 0
    go(scene, bundle, tmp_path / "fresh", **changed)
    assert mask_bytes(tmp_path / "run") == mask_bytes(tmp_path / "fresh")


def test_a_scene_that_left_the_job_and_came_back_changed_is_not_taken_for_done(tmp_path: Path, bundle: Path) -> None:
    one, two = (write_scene(tmp_path / f"{name}.tif", values(seed=seed)) for name, seed in (("one", 1), ("two", 2)))
    both, alone = [str(one), str(two)], [str(one)]
    assert go(both, bundle, tmp_path / "run").exit_code == 0
    assert go(alone, bundle, tmp_path / "run").exit_code == 0
    write_scene(two, values(seed=3))
    report = go(both, bundle, tmp_path / "run")
    assert report.exit_code == 3 and [scene.state for scene in report.scenes] == ["complete", "refused"]
    assert "scene two has changed since this run began" in str(report.scenes[1].refused)
