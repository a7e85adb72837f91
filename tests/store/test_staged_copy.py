"""A copy gives what the image gives, is made once, and a killed copying goes on."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import tifffile
from fakes import job_data, write_bundle, write_scene
from numpy.typing import NDArray

from tilesseg.cli.main import run
from tilesseg.cluster.executors import SerialExecutor
from tilesseg.errors import SourceError
from tilesseg.events import Event, ProductWritten, RegionFailed, RegionStaged, ScenePlanned, TileDone, TileFailed
from tilesseg.formats.damage import joined
from tilesseg.formats.open import open_source
from tilesseg.planning import staging
from tilesseg.planning.cluster_options import Cluster
from tilesseg.planning.job import parse_job
from tilesseg.raster.window import Window
from tilesseg.reporting.results import Report
from tilesseg.run.copy_to_zarr import _copy_workers, stage_image
from tilesseg.run.run_job import run_job
from tilesseg.store.run_directory import RunDirectory

SHAPE = (700, 900)
TILING = {"patch": 64, "overlap": 16, "blend": "gaussian", "core": 192, "batch": 4}


def no_products(folder: Path) -> dict[str, Any]:
    return {"output": {"dir": str(folder), "products": []}}


def values(bands: int = 1, *, dtype: str = "uint8") -> NDArray[Any]:
    noise = np.random.default_rng(5).integers(1, 250, (bands, *SHAPE))
    noise[:, 100:180, 300:500] = 0
    return noise.astype(dtype)


def striped(folder: Path) -> Path:
    return write_scene(folder / "striped.tif", values(), blockysize=16, nodata=0, compress="lzw")


def one_strip(folder: Path) -> Path:
    return write_scene(folder / "strip.tif", values(dtype="uint16"), blockysize=SHAPE[0], nodata=0, compress="deflate")


def jpeg_2000(folder: Path) -> Path:
    scene = write_scene(folder / "plain.tif", values(), nodata=0)
    target = folder / "scene.jp2"
    with rasterio.open(scene) as source:
        options = {"QUALITY": "100", "REVERSIBLE": "YES", "BLOCKXSIZE": "256", "BLOCKYSIZE": "256"}
        with rasterio.open(target, "w", **{**source.profile, "driver": "JP2OpenJPEG", **options}) as file:
            file.write(source.read())
    return target


def masked(folder: Path) -> Path:
    path = write_scene(folder / "masked.tif", values(dtype="float32"), blockysize=32)
    with rasterio.open(path, "r+") as file:
        pixels = file.read()
        pixels[0, 20:90, 40:300] = np.nan
        file.write(pixels)
        file.write_mask(np.indices(SHAPE).sum(axis=0) < 1200)
    return path


IMAGES = [striped, one_strip, jpeg_2000, masked]


@pytest.fixture(autouse=True)
def small_regions(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the images were large: several regions, and no image that fits into the cache."""
    monkeypatch.setattr(staging, "REGION_BYTES", 256 * 256)
    monkeypatch.setattr(staging, "CHUNK", 64)
    monkeypatch.setattr("tilesseg.planning.staging.CACHE", 8192)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "model", "Positional")


def go(
    image: Path,
    bundle: Path,
    folder: Path,
    *,
    stage: str,
    events: list[Event] | None = None,
    retry_damaged: bool = False,
    **more: Any,
) -> Report:
    data = {"tiling": TILING, "input": {"stage": stage, "check_range": False}, **no_products(folder), **more}
    job = parse_job(job_data({"image": str(image), "name": "scene"}, bundle, folder, **data), where="test")
    listeners = [] if events is None else [events.append]
    return run_job(job, executor=SerialExecutor(), listeners=listeners, retry_damaged=retry_damaged)


def mask(folder: Path) -> NDArray[np.uint8]:
    return RunDirectory(folder).scene("scene").read(Window(0, 0, *SHAPE))


@pytest.mark.parametrize("write", IMAGES)
def test_the_mask_does_not_depend_on_staging(write: Any, bundle: Path, tmp_path: Path) -> None:
    image, events = write(tmp_path), []
    assert go(image, bundle, tmp_path / "plain", stage="never").exit_code == 0
    assert go(image, bundle, tmp_path / "staged", stage="always", events=events).exit_code == 0
    np.testing.assert_array_equal(mask(tmp_path / "plain"), mask(tmp_path / "staged"))
    assert {*np.unique(mask(tmp_path / "plain"))} > {255}
    assert [event for event in events if isinstance(event, RegionStaged)]


@pytest.mark.parametrize("write", IMAGES)
def test_a_copy_is_a_source_equal_to_the_image(write: Any, tmp_path: Path) -> None:
    image = write(tmp_path)
    assert stage_image(str(image), tmp_path / "copy.zarr", executor=SerialExecutor()).exit_code == 0
    one, two = open_source(str(image)), open_source(str(tmp_path / "copy.zarr"))
    assert (one.grid, one.bands, one.dtype) == (two.grid, two.bands, two.dtype)
    for window in (Window(0, 0, *SHAPE), Window(-5, 600, 400, 400)):
        for left, right in zip(one.read(window), two.read(window), strict=True):
            np.testing.assert_array_equal(left, right)


def test_auto_copies_strips_and_says_so_and_reads_tiles_as_they_are(bundle: Path, tmp_path: Path) -> None:
    for name, image in (
        ("striped", striped(tmp_path)),
        ("tiled", write_scene(tmp_path / "tiled.tif", values(), tiled=True, blockxsize=16, blockysize=16)),
    ):
        events: list[Event] = []
        go(image, bundle, tmp_path / name, stage="auto", events=events)
        copied = [event for event in events if isinstance(event, RegionStaged)]
        notes = [note for event in events if isinstance(event, ScenePlanned) for note in event.notes]
        said = [note for note in notes if "copied to Zarr first" in note]
        assert bool(copied) == bool(said) == (name == "striped")


def test_a_one_strip_image_is_streamed_by_one_task(bundle: Path, tmp_path: Path) -> None:
    events: list[Event] = []
    go(one_strip(tmp_path), bundle, tmp_path / "run", stage="auto", events=events)
    assert [event.pixels for event in events if isinstance(event, RegionStaged)] == [SHAPE[0] * SHAPE[1]]


def test_a_copy_is_removed_once_its_scene_is_complete(bundle: Path, tmp_path: Path) -> None:
    go(striped(tmp_path), bundle, tmp_path / "run", stage="always")
    assert not (tmp_path / "run" / "scenes" / "scene" / "staged").exists()


class Killed(SerialExecutor):
    """Dies after this many results."""

    def __init__(self, after: int) -> None:
        self.after = after

    def map(self, function: Any, items: Any, *, lost: Any) -> Any:
        for item in items:
            if self.after == 0:
                raise KeyboardInterrupt
            self.after -= 1
            yield function(item)


def test_copying_goes_on_where_it_was_cut_off(bundle: Path, tmp_path: Path) -> None:
    image = striped(tmp_path)
    job = parse_job(
        job_data(
            {"image": str(image), "name": "scene"}, bundle, tmp_path / "run", tiling=TILING, input={"stage": "always"}
        ),
        where="test",
    )
    with pytest.raises(KeyboardInterrupt):
        run_job(job, executor=Killed(3))
    events: list[Event] = []
    assert run_job(job, executor=SerialExecutor(), listeners=[events.append]).exit_code == 0
    regions = len(staging.copy_layout(open_source(str(image))).regions(SHAPE))
    assert next(event for event in events if isinstance(event, ScenePlanned)).regions == regions - 3
    assert sum(isinstance(event, RegionStaged) for event in events) == regions - 3
    go(image, bundle, tmp_path / "plain", stage="never")
    np.testing.assert_array_equal(mask(tmp_path / "run"), mask(tmp_path / "plain"))


def test_whether_to_copy_may_change_when_a_run_goes_on(bundle: Path, tmp_path: Path) -> None:
    image = striped(tmp_path)
    job = job_data({"image": str(image), "name": "scene"}, bundle, tmp_path / "run", tiling=TILING)
    with pytest.raises(KeyboardInterrupt):
        run_job(parse_job({**job, "input": {"stage": "never"}}, where="test"), executor=Killed(3))
    events: list[Event] = []
    again = parse_job({**job, "input": {"stage": "always"}}, where="test")
    assert run_job(again, executor=SerialExecutor(), listeners=[events.append]).exit_code == 0
    assert [event for event in events if isinstance(event, RegionStaged)]


def damage(image: Path) -> None:
    """Overwrite the middle of the file: some strips there can no longer be decoded."""
    data = bytearray(image.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 200] = b"\xff" * 200
    image.write_bytes(data)


def test_what_cannot_be_decoded_costs_the_same_pixels_with_and_without_a_copy(bundle: Path, tmp_path: Path) -> None:
    image = write_scene(tmp_path / "bad.tif", values() // 64 + 1, blockysize=16, nodata=0, compress="deflate")
    whole = image.read_bytes()
    damage(image)
    events: list[Event] = []
    report = go(image, bundle, tmp_path / "run", stage="always", events=events)
    assert report.exit_code == 3 and report.scenes[0].state == "damaged"
    assert [event for event in events if isinstance(event, RegionStaged) and event.damaged]
    assert not [event for event in events if isinstance(event, RegionFailed | TileFailed)]
    assert (mask(tmp_path / "run") == 254).any() and not (mask(tmp_path / "run") == 254).all()
    go(image, bundle, tmp_path / "plain", stage="never")
    np.testing.assert_array_equal(mask(tmp_path / "run"), mask(tmp_path / "plain"))
    times = image.stat()
    image.write_bytes(whole)
    os.utime(image, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert go(image, bundle, tmp_path / "run", stage="always").exit_code == 3
    assert go(image, bundle, tmp_path / "run", stage="always", retry_damaged=True).exit_code == 0
    assert not (mask(tmp_path / "run") == 254).any()


def test_damage_in_a_copy_that_was_begun_is_copied_again_on_request(bundle: Path, tmp_path: Path) -> None:
    image = write_scene(tmp_path / "bad.tif", values() // 64 + 1, blockysize=16, nodata=0, compress="deflate")
    whole = image.read_bytes()
    damage(image)
    times, regions = image.stat(), len(staging.copy_layout(open_source(str(image))).regions(SHAPE))
    data = {"tiling": TILING, "input": {"stage": "always", "check_range": False}, **no_products(tmp_path / "run")}
    job = parse_job(job_data({"image": str(image), "name": "scene"}, bundle, tmp_path / "run", **data), where="test")
    with pytest.raises(KeyboardInterrupt):
        run_job(job, executor=Killed(regions + 1))
    image.write_bytes(whole)
    os.utime(image, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert run_job(job, executor=SerialExecutor(), retry_damaged=True).exit_code == 0
    assert not (mask(tmp_path / "run") == 254).any()


def test_a_copy_of_a_damaged_image_is_damaged_where_the_image_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = write_scene(tmp_path / "bad.tif", values(), blockysize=16, compress="deflate")
    damage(image)
    out = tmp_path / "copy.zarr"
    assert run(["stage", str(image), str(out), "--workers", "1"]) == 3
    assert "[damaged-pixels]" in capsys.readouterr().out
    copy, direct = open_source(str(out)), open_source(str(image))
    with pytest.raises(SourceError, match="cannot read"):
        copy.read(copy.grid.window)
    (pixels, found), (own, own_found) = copy.salvage(copy.grid.window), direct.salvage(direct.grid.window)
    assert joined(one.window for one in found) == joined(one.window for one in own_found)
    np.testing.assert_array_equal(pixels.values, own.values)
    np.testing.assert_array_equal(pixels.valid, own.valid)


def test_the_command_copies_goes_on_and_refuses_what_it_would_destroy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image, out = striped(tmp_path), tmp_path / "copy.zarr"
    assert run(["stage", str(image), str(out), "--workers", "1"]) == 0
    assert f"wrote {out}: 0.6 Mpx" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy.zarr", "striped.tif"]
    assert run(["stage", str(image), str(out)]) == 1
    assert "it exists; remove it" in capsys.readouterr().err
    assert run(["stage", str(image), str(tmp_path / "copy.tif")]) == 1
    assert "give it the suffix .zarr" in capsys.readouterr().err
    assert run(["stage", str(tmp_path / "none.tif"), str(tmp_path / "b.zarr")]) == 1
    assert "no such file" in capsys.readouterr().err
    assert not list(tmp_path.glob(".*"))


def test_bands_can_be_chosen(tmp_path: Path) -> None:
    image = write_scene(tmp_path / "many.tif", values(4), names=list("abcd"), blockysize=16, photometric="minisblack")
    stage_image(str(image), tmp_path / "copy.zarr", bands=["d", 2], executor=SerialExecutor())
    assert open_source(str(tmp_path / "copy.zarr")).bands == ("d", "b")


def test_several_files_of_one_image_become_one_copy(bundle: Path, tmp_path: Path) -> None:
    fine = write_scene(tmp_path / "red.tif", values(dtype="uint16"), nodata=0)
    coarse = values(dtype="uint16")[:, ::2, ::2]
    transform = rasterio.Affine(20, 0, 500_000, 0, -20, 5_600_000)
    low = write_scene(tmp_path / "nir.tif", coarse, nodata=0, transform=transform)
    stage_image([str(fine), str(low)], tmp_path / "copy.zarr", executor=SerialExecutor())
    one, two = open_source([str(fine), str(low)]), open_source(str(tmp_path / "copy.zarr"))
    for bands in ((0,), (1,), (1, 0)):
        for left, right in zip(
            one.select(bands).read(Window(0, 0, *SHAPE)), two.select(bands).read(Window(0, 0, *SHAPE)), strict=True
        ):
            np.testing.assert_array_equal(left, right)


def test_the_copy_is_stored_in_whole_shards_of_the_images_own_type(tmp_path: Path) -> None:
    image = write_scene(tmp_path / "scaled.tif", values(dtype="int16"), blockysize=16)
    with rasterio.open(image, "r+") as file:
        file.scales, file.offsets = (0.0001,), (-0.1,)
    stage_image(str(image), tmp_path / "copy.zarr", executor=SerialExecutor())
    import zarr

    stored = zarr.open_array(str(tmp_path / "copy.zarr" / "image"), mode="r")
    assert stored.dtype == np.int16 and stored.shards is not None
    one, two = open_source(str(image)), open_source(str(tmp_path / "copy.zarr"))
    np.testing.assert_array_equal(one.read(one.grid.window).values, two.read(two.grid.window).values)


def test_tifffile_reads_what_the_tests_write(tmp_path: Path) -> None:
    """The one-strip image is one."""
    with tifffile.TiffFile(one_strip(tmp_path)) as tiff:
        assert len(tiff.pages[0].aspage().dataoffsets) == 1


def test_each_scene_is_copied_beside_the_tiles_of_the_one_before_and_no_copy_is_left(
    bundle: Path, tmp_path: Path
) -> None:
    images = {name: write_scene(tmp_path / f"{name}.tif", values(), nodata=0, blockysize=16) for name in "abc"}
    entries = [{"image": str(path), "name": name} for name, path in images.items()]
    events: list[Event] = []
    job = job_data(entries, bundle, tmp_path / "run", tiling=TILING, input={"stage": "always"})
    report = run_job(parse_job(job, where="test"), executor=SerialExecutor(), listeners=[events.append])
    assert report.exit_code == 0
    order = [
        (event.scene, event.kind) for event in events if isinstance(event, RegionStaged | TileDone | ProductWritten)
    ]
    first = {step: order.index(step) for step in order}
    assert first["a", "region_staged"] < first["a", "tile_done"] < first["b", "tile_done"] < first["c", "tile_done"]
    assert first["b", "region_staged"] < first["a", "tile_done"]  # in one batch: both can be worked on at once
    assert first["c", "region_staged"] < first["b", "tile_done"]
    assert first["c", "region_staged"] > first["a", "product_written"]  # so no third copy lies on the disk
    assert not list((tmp_path / "run").rglob("staged"))


def test_a_copy_tells_its_place_in_the_words_of_cf_too(tmp_path: Path) -> None:
    import zarr

    out = tmp_path / "copy.zarr"
    stage_image(str(striped(tmp_path)), out, executor=SerialExecutor())
    grid = open_source(str(out)).grid
    group = zarr.open_group(str(out), mode="r+", use_consolidated=False)
    for name in list(group.attrs):
        del group.attrs[name]  # what is left is CF's
    again = open_source(str(out / "image")).grid
    assert (again.shape, again.transform) == (grid.shape, grid.transform)
    assert rasterio.CRS.from_wkt(str(again.crs)) == rasterio.CRS.from_wkt(str(grid.crs))


def test_a_remote_image_is_copied_when_asked(url: str, bundle: Path, tmp_path: Path) -> None:
    image = write_scene(tmp_path / "far.tif", values(), nodata=0, tiled=True, blockxsize=64, blockysize=64)
    events: list[Event] = []
    go(f"{url}/far.tif", bundle, tmp_path / "far", stage="always", events=events)
    assert [event for event in events if isinstance(event, RegionStaged)]
    go(image, bundle, tmp_path / "near", stage="never")
    np.testing.assert_array_equal(mask(tmp_path / "far"), mask(tmp_path / "near"))


@pytest.mark.parametrize(
    ("asked", "processes"),
    [({}, 3), ({"workers": 7}, 7), ({"kind": "threads"}, "auto")],
    ids=["on its own", "as many as asked", "threads"],
)
def test_copying_takes_a_process_for_each_core(
    monkeypatch: pytest.MonkeyPatch, asked: dict[str, Any], processes: int | str
) -> None:
    """A network has several cores to itself; a copy has not."""
    monkeypatch.setattr("tilesseg.run.copy_to_zarr.available_cores", lambda: 3)
    assert _copy_workers(Cluster(**asked)).workers == processes
