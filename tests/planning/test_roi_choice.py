"""Where a run looks: at tissue, at a region, or everywhere; decided once, kept when a run goes on, and said."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import yaml
from fakes import ArraySource, job_data, write_bundle, write_scene
from numpy.typing import NDArray
from test_roi_file import feature, painted, polygon
from test_run_job import Killed

from tilesseg.cli.main import run
from tilesseg.cluster.executors import SerialExecutor
from tilesseg.errors import JobError, SourceError, StoreError
from tilesseg.events import Event, ScenePlanned
from tilesseg.formats.source import Pixels
from tilesseg.planning.job import Input, parse_job
from tilesseg.planning.roi_choice import choose_cells, stained_bands
from tilesseg.raster.grid import Grid
from tilesseg.raster.window import Window
from tilesseg.reporting.results import Report
from tilesseg.run.run_job import run_job
from tilesseg.store.run_directory import RunDirectory

SHAPE = (600, 800)
TILING = {"patch": 32, "overlap": 8, "blend": "gaussian", "core": 128, "batch": 4}
STRIDE = 24
GLASS, STAIN = (243, 242, 244), (170, 90, 160)


def slide(path: Path, tissue: Sequence[slice] | None, *, shape: tuple[int, int] = SHAPE) -> Path:
    """A picture of glass with a square of tissue, as a scanner would give it."""
    noise = np.random.default_rng(0).integers(-2, 3, (*shape, 3))
    image = np.array(GLASS) + noise
    if tissue is not None:
        image[tuple(tissue)] = np.array(STAIN) + noise[tuple(tissue)]
    tifffile.imwrite(path, image.astype(np.uint8), tile=(128, 128), photometric="rgb")
    return path


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "model", "Positional", bands=3)


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    return slide(tmp_path / "scene.tif", (slice(200, 400), slice(300, 500)))


def go(
    scene: Any, bundle: Path, folder: Path, *, events: list[Event] | None = None, executor: Any = None, **how: Any
) -> Report:
    output = {"dir": str(folder), "products": [{"format": "cog"}], "preview": False}
    job = parse_job(job_data(scene, bundle, folder, tiling=TILING, input=how, output=output), where="test")
    return run_job(job, executor=executor or SerialExecutor(), listeners=[] if events is None else [events.append])


def mask_of(folder: Path, shape: tuple[int, int] = SHAPE) -> NDArray[np.uint8]:
    return RunDirectory(folder).scene("scene").read(Window(0, 0, *shape))


def notes(events: list[Event]) -> str:
    return "\n".join(note for event in events if isinstance(event, ScenePlanned) for note in event.notes)


def test_on_a_slide_only_the_tissue_is_read_and_predicted(tmp_path: Path, scene: Path, bundle: Path) -> None:
    events: list[Event] = []
    report = go(scene, bundle, tmp_path / "run", mpp=0.5, events=events)
    full = go(scene, bundle, tmp_path / "full", mpp=0.5, tissue="none")
    mask, whole = mask_of(tmp_path / "run"), mask_of(tmp_path / "full")
    seen = mask != 255
    assert report.exit_code == full.exit_code == 0
    assert (mask[seen] == whole[seen]).all() and seen[200:400, 300:500].all()
    far = 3 * STRIDE
    assert not seen[: 200 - far].any() and not seen[:, : 300 - far].any() and not seen[400 + far :].any()
    assert report.scenes[0].outside == np.count_nonzero(~seen) and full.scenes[0].outside == 0
    assert report.scenes[0].read < full.scenes[0].read / 3
    assert f"only tissue is segmented ({seen.mean():.1%} of the pixels" in notes(events)
    records = RunDirectory(tmp_path / "run").scene("scene").done().values()
    unread = [record for record in records if record.outside == record.pixels]
    assert unread and all(record.read == record.patches == 0 for record in unread)


def test_tissue_is_found_where_a_slide_is_resampled(tmp_path: Path, scene: Path, bundle: Path) -> None:
    report = go(scene, bundle, tmp_path / "run", mpp=0.5, resolution=1.0)
    mask, far = mask_of(tmp_path / "run", (300, 400)), 3 * STRIDE
    seen = mask != 255
    assert seen[100:200, 150:250].all() and report.scenes[0].outside == np.count_nonzero(~seen)
    assert not seen[: 100 - far].any() and not seen[:, : 150 - far].any() and not seen[200 + far :].any()


def test_what_is_outside_can_be_background(tmp_path: Path, scene: Path, bundle: Path) -> None:
    report = go(scene, bundle, tmp_path / "run", mpp=0.5, outside="background")
    go(scene, bundle, tmp_path / "nodata", mpp=0.5)
    mask, other = mask_of(tmp_path / "run"), mask_of(tmp_path / "nodata")
    assert (mask == np.where(other == 255, 0, other)).all()
    assert report.scenes[0].outside == np.count_nonzero(other == 255)


@pytest.mark.parametrize("outside", ["nodata", "background"])
def test_a_slide_without_tissue_succeeds_with_a_warning(tmp_path: Path, bundle: Path, outside: str) -> None:
    events: list[Event] = []
    scene = slide(tmp_path / "scene.tif", None)
    report = go(scene, bundle, tmp_path / "run", mpp=0.5, outside=outside, events=events)
    assert report.exit_code == 0 and len(report.products) == 1
    assert (mask_of(tmp_path / "run") == (255 if outside == "nodata" else 0)).all()
    assert "warning: no tissue was found" in notes(events)
    assert report.scenes[0].outside == SHAPE[0] * SHAPE[1] and report.scenes[0].read == 0


def test_a_slide_full_of_tissue_is_looked_at_everywhere(tmp_path: Path, bundle: Path) -> None:
    scene = slide(tmp_path / "scene.tif", (slice(None), slice(None)))
    report = go(scene, bundle, tmp_path / "run", mpp=0.5)
    assert report.scenes[0].outside == 0
    assert json.loads((tmp_path / "run" / "scenes" / "scene" / "plan.json").read_text())["scene"]["cells"] is None


def test_a_picture_without_micrometres_is_looked_at_everywhere(tmp_path: Path, scene: Path, bundle: Path) -> None:
    assert go(scene, bundle, tmp_path / "run").scenes[0].outside == 0


class _Source:
    def __init__(self, names: Sequence[str | None], dtype: str = "uint8", *, unit: str = "micrometre") -> None:
        self.bands, self.file_dtypes = tuple(names), (np.dtype(dtype),) * len(names)
        self.grid = Grid(10, 10, unit=unit)


@pytest.mark.parametrize(
    ("source", "path", "expected"),
    [
        (_Source(["red", "green", "blue"]), "a.tif", (0, 1, 2)),
        (_Source(["B", "G", "R"]), "a.tif", (2, 1, 0)),
        (_Source(["red", "green", "blue"], unit="pixel"), "a.svs", (0, 1, 2)),
        (_Source(["red", "green", "blue"], unit="pixel"), "a.png", None),
        (_Source(["red", "green", "blue"], unit="metre"), "a.tif", None),
        (_Source(["red", "green", "blue"], "uint16"), "a.tif", None),
        (_Source(["DAPI", "FITC", "TRITC"]), "a.ome.tif", None),
        (_Source([None, None, None]), "a.ome.tif", None),
    ],
)
def test_stained_are_slides_in_colours_of_one_byte(source: Any, path: str, expected: tuple[int, ...] | None) -> None:
    assert stained_bands(source, [path]) == expected


def test_a_region_is_looked_at_in_any_image(tmp_path: Path) -> None:
    image = write_scene(
        tmp_path / "scene.tif", np.random.default_rng(0).integers(20, 250, (1, *SHAPE)).astype(np.uint8)
    )
    bundle = write_bundle(tmp_path / "one", "Positional")
    drawn = np.zeros((1, 60, 80), np.uint8)
    drawn[0, 10:20, 30:50] = 1
    file = painted(tmp_path / "region.png", drawn)
    go(image, bundle, tmp_path / "run", tissue=str(file))
    go(image, bundle, tmp_path / "full")
    mask, whole = mask_of(tmp_path / "run"), mask_of(tmp_path / "full")
    seen = mask != 255
    assert (mask[seen] == whole[seen]).all() and seen[100:200, 300:500].all()
    assert 0.04 < seen.mean() < 0.15


def test_a_region_may_be_a_file_for_each_scene(tmp_path: Path, bundle: Path) -> None:
    for name, x in (("a", 0), ("b", 400)):
        slide(tmp_path / f"{name}.tif", None)
        square = polygon([[[x, 0], [x + 200, 0], [x + 200, 200], [x, 200], [x, 0]]])
        (tmp_path / f"{name}.geojson").write_text(json.dumps([feature(square)]))
    scenes, regions = [str(tmp_path / "a.tif"), str(tmp_path / "b.tif")], str(tmp_path / "{scene}.geojson")
    report = go(scenes, bundle, tmp_path / "run", tissue=regions)
    assert report.exit_code == 0
    for name, x in (("a", 0), ("b", 400)):
        seen = RunDirectory(tmp_path / "run").scene(name).read(Window(0, 0, *SHAPE)) != 255
        assert seen[:200, x : x + 200].all() and not seen[:, 700 - x : 780 - x].any()


def test_the_path_of_a_region_is_meant_from_the_job_files_folder(tmp_path: Path, scene: Path, bundle: Path) -> None:
    square = polygon([[[0, 0], [100, 0], [100, 100], [0, 100], [0, 0]]])
    (tmp_path / "region.geojson").write_text(json.dumps(square))
    data = job_data("scene.tif", "model", Path("run"), tiling=TILING, input={"tissue": "region.geojson"})
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(data))
    assert run(["run", str(tmp_path / "job.yaml")]) == 0
    assert run(["run", str(tmp_path / "job.yaml")]) == 0
    assert (mask_of(tmp_path / "run")[:100, :100] != 255).all()


def test_a_region_that_is_missing_or_touches_nothing_is_refused_before_the_first_tile(
    tmp_path: Path, scene: Path, bundle: Path
) -> None:
    with pytest.raises(SourceError, match=r"none\.geojson"):
        go(scene, bundle, tmp_path / "run", tissue=str(tmp_path / "none.geojson"))
    far = tmp_path / "far.geojson"
    far.write_text(json.dumps(polygon([[[5000, 0], [5100, 0], [5100, 100], [5000, 0]]])))
    with pytest.raises(SourceError, match="touches nothing of"):
        go(scene, bundle, tmp_path / "run", tissue=str(far))
    with pytest.raises(JobError, match="all 2 scenes are refused"):
        go([str(scene), {"image": str(scene), "name": "again"}], bundle, tmp_path / "run", tissue=str(far))
    assert not (tmp_path / "run").exists()


def test_a_resumed_run_looks_where_it_looked_and_refuses_to_look_elsewhere(
    tmp_path: Path, scene: Path, bundle: Path
) -> None:
    drawn = np.zeros((1, 60, 80), np.uint8)
    drawn[0, 10:40, 30:70] = 1
    file = painted(tmp_path / "region.tif", drawn)
    how = {"tissue": str(file)}
    go(scene, bundle, tmp_path / "whole", **how)
    with pytest.raises(KeyboardInterrupt):
        go(scene, bundle, tmp_path / "run", executor=Killed(9), **how)
    planned = (tmp_path / "run" / "plan.json").read_bytes()
    with pytest.raises(StoreError, match=r"input\.tissue was"):
        go(scene, bundle, tmp_path / "run", tissue="none")
    with pytest.raises(StoreError, match=r"input\.outside was nodata and is background now"):
        go(scene, bundle, tmp_path / "run", outside="background", **how)
    assert go(scene, bundle, tmp_path / "run", **how).exit_code == 0
    assert (tmp_path / "run" / "plan.json").read_bytes() == planned
    assert (mask_of(tmp_path / "run") == mask_of(tmp_path / "whole")).all()
    painted(tmp_path / "region.tif", np.ones((1, 61, 80), np.uint8))
    with pytest.raises(StoreError, match=r"has changed since this run began: .*region\.tif"):
        go(scene, bundle, tmp_path / "run", **how)


@pytest.mark.parametrize("stage", ["never", "always"])
def test_a_copy_of_the_image_is_looked_at_in_the_same_cells(
    tmp_path: Path, scene: Path, bundle: Path, stage: str
) -> None:
    go(scene, bundle, tmp_path / "run", mpp=0.5, stage=stage)
    go(scene, bundle, tmp_path / "other", mpp=0.5)
    assert (mask_of(tmp_path / "run") == mask_of(tmp_path / "other")).all()


def test_the_plan_says_what_is_not_looked_at_and_estimates_the_rest(
    tmp_path: Path, scene: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, figures = tmp_path / "job.yaml", {}
    for tissue in ("none", "auto"):
        output = {"dir": str(tmp_path / tissue), "products": [{"format": "cog"}]}
        how = {"tissue": tissue, "mpp": 0.5}
        data = job_data(scene, bundle, tmp_path, tiling=TILING, input=how, output=output)
        path.write_text(yaml.safe_dump(data))
        assert run(["plan", str(path), "--json"]) == 0
        figures[tissue] = json.loads(capsys.readouterr().out)["scenes"][0]
    all_of_it, some = figures["none"], figures["auto"]
    assert all_of_it["outside"] == 0 and all_of_it["tiles_looked_at"] == all_of_it["tiles"] == some["tiles"]
    assert 0.7 < some["outside"] < 0.95 and some["tiles_looked_at"] < some["tiles"]
    for figure in ("patches", "work_factor"):
        assert some[figure] < 0.4 * all_of_it[figure]
    assert run(["plan", str(path)]) == 0
    said = capsys.readouterr().out
    assert (
        f"outside the region of interest: {some['outside']:.1%} of the pixels" in said
        and "tiles that read nothing: " in said
    )
    assert run(["run", str(path)]) == 0
    assert "outside the region of interest: " in capsys.readouterr().out
    done = RunDirectory(tmp_path / "auto").scene("scene").done().values()
    assert sum(record.patches for record in done) == some["patches"]
    assert sum(record.outside for record in done) == round(some["outside"] * SHAPE[0] * SHAPE[1])


def test_scores_of_what_is_not_looked_at_are_255(tmp_path: Path, scene: Path) -> None:
    bundle = write_bundle(tmp_path / "constant", "Constant", bands=3)
    output = {"dir": str(tmp_path / "run"), "scores": True, "products": []}
    how = {"mpp": 0.5, "outside": "background"}
    run_job(parse_job(job_data(scene, bundle, tmp_path, tiling=TILING, input=how, output=output), where="test"))
    store = RunDirectory(tmp_path / "run").scene("scene")
    mask, scores = mask_of(tmp_path / "run"), store.read_scores(1, Window(0, 0, *SHAPE))
    assert (scores == np.where(mask == 1, 175, 255)).all() and 0 < (mask == 1).mean() < 0.4


class _Scanned(ArraySource):
    """A slide whose small view, or some of whose pixels, cannot be read."""

    bands = property(lambda self: ("red", "green", "blue"))
    grid = property(lambda self: Grid(*self.values.shape[1:], unit="micrometre"))
    view_reads, broken = True, Window(0, 0, 0, 0)

    def select(self, indices: Sequence[int]) -> Any:
        return self

    def read(self, window: Window) -> Pixels:
        if window.touches(self.broken):
            raise SourceError("damaged")
        return super().read(window)

    def thumbnail(self, size: int) -> Pixels:
        valid = self.valid.copy()
        valid[self.broken.slices()] = False
        return Pixels(self.values, valid & self.view_reads)


def looked_at(source: ArraySource) -> NDArray[np.bool_]:
    cells, _ = choose_cells(source, Input(), stride=50, paths=["a.tif"], name="a")
    return np.ones((4, 6), bool) if cells is None else cells.in_roi


def test_what_was_not_scanned_is_not_looked_at_and_what_cannot_be_read_is() -> None:
    glass = np.full((3, 200, 300), 243, np.uint8)
    glass[:, 60:90, 60:90] = np.array(STAIN)[:, None, None]
    valid = np.ones((200, 300), bool)
    valid[:, 150:] = False
    source = _Scanned(glass, valid)
    assert looked_at(source)[1, 1] and not looked_at(source)[:, 3:].any() and not looked_at(source)[3].any()
    damaged = _Scanned(glass, valid)
    object.__setattr__(damaged, "broken", Window(160, 210, 20, 20))
    assert looked_at(damaged)[3, 4] and not looked_at(damaged)[0].any()
    unseen = _Scanned(glass, valid)
    object.__setattr__(unseen, "view_reads", False)
    assert looked_at(unseen)[:, :3].all() and not looked_at(unseen)[:, 4:].any()


def test_the_image_is_not_even_opened_for_tiles_of_which_nothing_is_looked_at(
    tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> Any:
        raise AssertionError("opened")

    monkeypatch.setattr("tilesseg.planning.scene_plan.ScenePlan.open_for_tiles", refuse)
    scene = slide(tmp_path / "scene.tif", None)
    assert go(scene, bundle, tmp_path / "run", mpp=0.5).scenes[0].done == 35


def test_an_array_source_counts_as_no_slide() -> None:
    assert stained_bands(ArraySource.of(np.zeros((3, 4, 4), np.uint8)), ["array"]) is None


def test_on_a_real_slide_its_tissue_is_looked_at_and_the_rest_is_the_mask_without(
    tmp_path: Path, shared_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = shared_data / "microscopy" / "wsi" / "CMU-1-Small-Region.svs"
    bundle = write_bundle(tmp_path / "model", "Positional", bands=3)
    for name, size in (("patch", 128), ("overlap", 32), ("core", 512)):  # with those of 32 px, 16,000 are blended
        monkeypatch.setitem(TILING, name, size)
    masks = {}
    for tissue in ("auto", "none"):
        report = go({"image": str(image), "name": "scene"}, bundle, tmp_path / tissue, tissue=tissue)
        assert report.exit_code == 0
        masks[tissue] = mask_of(tmp_path / tissue, (2967, 2220))
    seen = masks["auto"] != 255
    assert (masks["auto"][seen] == masks["none"][seen]).all()
    assert 0.35 < seen.mean() < 0.6
    pixels = tifffile.imread(image).astype(int)
    strong = pixels.max(axis=2) - pixels.min(axis=2) > 40
    assert (strong & ~seen).sum() < 0.001 * strong.sum()


def test_a_region_of_a_real_slide_lies_where_it_was_drawn_at_every_pixel_size(
    tmp_path: Path, shared_data: Path
) -> None:
    image = shared_data / "microscopy" / "wsi" / "CMU-1-Small-Region.svs"
    bundle = write_bundle(tmp_path / "model", "Positional", bands=3)
    x, y, x_stop, y_stop = 1000, 1400, 1600, 2200
    square = polygon([[[x, y], [x_stop, y], [x_stop, y_stop], [x, y_stop], [x, y]]])
    (tmp_path / "region.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": [feature(square)]}))
    how = {"tissue": str(tmp_path / "region.geojson"), "resolution": 0.998}
    go({"image": str(image), "name": "scene"}, bundle, tmp_path / "run", **how)
    seen = mask_of(tmp_path / "run", (1484, 1110)) != 255
    assert seen[y // 2 : y_stop // 2, x // 2 : x_stop // 2].all()
    far = 2 * STRIDE
    assert not seen[: y // 2 - far].any() and not seen[y_stop // 2 + far :].any()
    assert not seen[:, : x // 2 - far].any() and not seen[:, x_stop // 2 + far :].any()
