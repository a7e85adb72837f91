"""From a slide to its products and back, by other people's readers: a whole job, not a writer alone."""

from __future__ import annotations

import csv
import itertools
import json
import sqlite3
import threading
import warnings
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import geopandas
import numpy as np
import pytest
import scipy.ndimage
import shapely
import tifffile
import zarr
from fakes import job_data, spec_data, write_scene, write_spec
from numpy.typing import NDArray
from slide_files import halved, write_pyramid
from test_ome_zarr_writer import hashes, image, is_valid, read_by_ngff_zarr, read_by_ome_zarr_py

from tilesseg.cli.segment_command import segment
from tilesseg.cli.status_text import summary
from tilesseg.errors import FormatError, JobError
from tilesseg.formats.registry import FORMATS
from tilesseg.formats.vector import tile_polygons
from tilesseg.planning.job import Product, parse_job
from tilesseg.raster.pyramid import HALVES
from tilesseg.raster.window import Window
from tilesseg.run.run_job import job_status, run_job
from tilesseg.run.write_products import export_run

MPP = 0.499
NAMES = ("back\"<ground>&'", 'Zellen "ß" <&>', "größer > als")
MASKS = ("cog", "ome-tiff", "ome-zarr")


def blobs(shape: tuple[int, int]) -> NDArray[np.uint8]:
    """A picture `(y, x, channel)` of smooth dark and light spots."""
    smooth = scipy.ndimage.gaussian_filter(np.random.default_rng(3).random(shape), 9)
    grey = (smooth - smooth.min()) / np.ptp(smooth) * 255
    return np.repeat(grey[..., None], 3, axis=2).astype(np.uint8)


@pytest.fixture
def slide(tmp_path: Path) -> Path:
    """With a name that paths and XML stumble over."""
    folder = tmp_path / "Präparate & more"
    folder.mkdir()
    return write_pyramid(folder / "slide é <1>.tif", halved(blobs((701, 903)), 2), mpp=MPP)


def model(folder: Path) -> Path:
    classes = [{"name": name, "colour": f"#{60 * k:02x}4080"} for k, name in enumerate(NAMES)]
    return write_spec(folder, {**spec_data("Shades", bands=3), "classes": classes})


def finished(scene: Path, folder: Path, products: list[dict[str, Any]], resolution: float, **more: Any) -> Path:
    """The scene's folder in the run of a job."""
    data = job_data(
        scene,
        model(folder / "model"),
        folder / "run",
        input={"resolution": resolution, "tissue": "none", "check_range": False},
        tiling={"patch": 128, "core": 256},
        output={"dir": str(folder / "run"), "products": products, "scores": True, **more},
    )
    assert run_job(parse_job(data, where="test")).exit_code == 0
    return next((folder / "run" / "scenes").iterdir())


def stored(folder: Path) -> NDArray[np.uint8]:
    return np.asarray(zarr.open_array(str(folder / "mask.zarr"), mode="r")[...], np.uint8)


def pyramid_of(folder: Path) -> list[NDArray[np.uint8]]:
    names = sorted(int(one.name) for one in folder.iterdir() if one.is_dir())
    return [np.asarray(zarr.open_array(str(folder / str(n)), mode="r")[...], np.uint8) for n in names]


def follows(levels: list[NDArray[np.uint8]], rule: str) -> bool:
    return all(np.array_equal(HALVES[rule](fine), coarse) for fine, coarse in itertools.pairwise(levels))


def check_ome_tiff(path: Path, mask: NDArray[np.uint8], mpp: float, native: float, rule: str = "mode") -> None:
    with tifffile.TiffFile(path) as tiff:
        assert tiff.is_ome
        levels = [level.asarray() for level in tiff.series[0].levels]
        text = tiff.ome_metadata
    assert text is not None
    assert np.array_equal(levels[0], mask)
    assert len(levels) > 1 and follows(levels, rule)
    pixels = ET.fromstring(text).find(".//{*}Pixels")
    plane = ET.fromstring(text).find(".//{*}Plane")
    assert pixels is not None and plane is not None
    for axis in "XY":
        assert float(pixels.attrib[f"PhysicalSize{axis}"]) == pytest.approx(mpp, rel=1e-6)
        assert pixels.attrib[f"PhysicalSize{axis}Unit"] == "µm"
        assert float(plane.attrib[f"Position{axis}"]) == pytest.approx((mpp - native) / 2, abs=1e-6)
    found = [m.text for m in ET.fromstring(text).iterfind(".//{*}M") if m.attrib["K"] == "name"]
    assert found == [*NAMES, "failed", "nodata"]


def check_ome_zarr(path: Path, mask: NDArray[np.uint8], mpp: float, native: float) -> None:
    is_valid(path, "0.5")
    levels = pyramid_of(path)
    assert np.array_equal(levels[0], mask)
    assert len(levels) > 1 and follows(levels, "mode")
    (node, *_) = read_by_ome_zarr_py(path)
    assert [one.shape for one in node.data] == [one.shape for one in levels]
    images = read_by_ngff_zarr(path).images
    assert len(images) == len(levels)
    for k, one in enumerate(images):
        assert one.scale["x"] == pytest.approx(mpp * 2**k, rel=1e-6)
        assert one.translation["y"] == pytest.approx((mpp * 2**k - native) / 2, abs=1e-6)
        assert np.array_equal(np.asarray(one.data), levels[k])


def check_polygons(folder: Path, stem: str, mask: NDArray[np.uint8], mpp: float, native: float) -> None:
    area = (mask < 254).sum() * mpp**2
    for suffix, read in ((".gpkg", geopandas.read_file), (".parquet", geopandas.read_parquet)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            table = read(folder / f"{stem}{suffix}")
        assert table.geometry.is_valid.all()
        assert table.geometry.area.sum() == pytest.approx(area)
        assert set(table["class"]) == {NAMES[label] for label in np.unique(mask)}
    found = json.loads((folder / f"{stem}.geojson").read_text(encoding="utf-8"))["features"]
    shapes = [shapely.from_geojson(json.dumps(one["geometry"])) for one in found]
    assert sum(one.area for one in shapes) * native**2 == pytest.approx(area, rel=1e-4)
    assert {one["properties"]["classification"]["name"] for one in found} == {NAMES[k] for k in np.unique(mask)}


def check_all(scene: Path, folder: Path, resolution: float, native: float) -> None:
    products = [{"format": name} for name in ("ome-tiff", "ome-zarr", "geojson", "gpkg", "geoparquet")]
    done = finished(scene, folder, products, resolution)
    mask = stored(done)
    assert len(np.unique(mask)) == 3 and mask.max() < 254
    check_ome_tiff(done / f"{done.name}.ome.tif", mask, resolution, native)
    check_ome_zarr(done / f"{done.name}.ome.zarr", mask, resolution, native)
    check_polygons(done, done.name, mask, resolution, native)
    check_areas(done.parents[1], mask, resolution)


def check_areas(run: Path, mask: NDArray[np.uint8], mpp: float) -> None:
    """Square millimetres stand in the summary, in its table, in the text, and in the report."""
    report = job_status(run)
    expected = {name: round(float((mask == label).sum()) * mpp**2 / 1e6, 6) for label, name in enumerate(NAMES)}
    assert report.scenes[0].square_mm == pytest.approx(expected, abs=2e-6)
    (scene,) = json.loads((run / "summary.json").read_text(encoding="utf-8"))["scenes"]
    assert scene["square_mm"] == report.scenes[0].square_mm and scene["hectares"] == {}
    with (run / "summary.csv").open(encoding="utf-8", newline="") as file:
        (row,) = csv.DictReader(file)
    assert {name: float(row[f"{name}_mm2"]) for name in NAMES} == scene["square_mm"]
    assert summary(report).count(" mm²") == len(NAMES)


@pytest.mark.parametrize("mpp", [MPP, 0.7])
def test_products_of_a_slide_are_read_back_by_others_as_they_were_stored(mpp: float, slide: Path) -> None:
    check_all(slide, slide.parent, mpp, MPP)


@pytest.mark.parametrize("mpp", [pytest.param(MPP, marks=pytest.mark.slow), 2.0])
def test_products_of_a_real_slide_have_its_scale_levels_and_labels(
    mpp: float, shared_data: Path, tmp_path: Path
) -> None:
    check_all(shared_data / "microscopy" / "wsi" / "CMU-1-Small-Region.svs", tmp_path, mpp, MPP)


def test_masks_at_the_images_pixels_are_the_same_in_every_format(slide: Path) -> None:
    options = {"resolution": "image", "overviews": "nearest"}
    own = slide.parent / "at image"
    products = [{"format": f, "path": str(own / f"{f}{FORMATS[f].suffixes[0]}"), **options} for f in MASKS]
    done = finished(slide, slide.parent, products, 1.0)
    with tifffile.TiffFile(own / "cog.tif") as tiff:
        expected = tiff.pages[0].asarray()
    assert expected.shape == (701, 903) != stored(done).shape
    check_ome_tiff(own / "ome-tiff.ome.tif", expected, MPP, MPP, "nearest")
    levels = pyramid_of(own / "ome-zarr.ome.zarr")
    assert np.array_equal(levels[0], expected) and follows(levels, "nearest")


def test_a_second_run_and_an_export_replace_every_product(slide: Path) -> None:
    own = slide.parent / "labels"  # a folder of that name is not an image's
    names = [name for name, row in FORMATS.items() if row.writes]
    products = [{"format": f, "path": str(own / f"{{scene}} {f}{FORMATS[f].suffixes[0].upper()}")} for f in names]
    for _ in range(2):
        done = finished(slide, slide.parent, products, 1.0)
    for product in products:
        export_run(slide.parent / "run", Product.model_validate(product))
    assert len([one for one in own.iterdir() if not one.name.startswith(".")]) == len(names) + 2  # style and quick look
    assert not [one for one in own.iterdir() if one.name.startswith(".")]
    assert not (done / "further-levels").exists() and not (done / "pieces").exists()


def test_scores_are_not_written_over_a_folder_of_somebody_else(slide: Path) -> None:
    theirs = slide.parent / "x.zarr"
    theirs.mkdir()
    (theirs / "thesis.txt").write_text("three years")
    with pytest.raises(FormatError, match="that tilesseg did not write lies there"):
        finished(slide, slide.parent, [{"format": "scores-ome-zarr", "path": str(theirs)}], 1.0)
    assert not (slide.parent / "run").exists()
    assert (theirs / "thesis.txt").exists()


def test_a_folder_in_the_way_of_a_file_is_refused_also_in_a_folder_called_labels(slide: Path) -> None:
    (slide.parent / "labels" / "a.tif").mkdir(parents=True)
    with pytest.raises(FormatError, match="a folder lies there"):
        finished(slide, slide.parent, [{"format": "cog", "path": str(slide.parent / "labels" / "a.tif")}], 1.0)
    assert not (slide.parent / "run").exists()


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_labels_beside_an_image_that_cannot_be_written_leave_it_as_it_was(
    version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    home = image(tmp_path / "image.zarr", version)
    before = hashes(home)
    bundle = write_spec(tmp_path / "m", {**spec_data("Constant"), "input_range": [0, 9]})
    output = {"dir": str(tmp_path / "run"), "products": [{"format": "ome-zarr", "beside": "x"}]}
    data = job_data(home, bundle, tmp_path / "run", input={"bands": [1], "check_range": False}, output=output)
    with monkeypatch.context() as patched:
        patched.setattr("tilesseg.formats.ome_zarr.writer.make_group", full)
        report = run_job(parse_job(data, where="test"))
        assert report.exit_code == 3 and report.scenes[0].state == "failed products"
        assert "No space left" in str(report.scenes[0].problem)
    assert hashes(home) == before and not (home / "labels").exists()
    for _ in range(2):
        assert run_job(parse_job(data, where="test")).exit_code == 0
    after = hashes(home)
    assert {name: after[name] for name in before} == before
    is_valid(home / "labels" / "x", version)


def test_labels_beside_an_image_read_at_a_coarser_level_lie_on_that_level(tmp_path: Path) -> None:
    home = image(tmp_path / "image.zarr", "0.5")
    bundle = write_spec(tmp_path / "m", {**spec_data("Constant"), "input_range": [0, 9]})
    output = {"dir": str(tmp_path / "run"), "products": [{"format": "ome-zarr", "beside": "x"}]}
    read = {"bands": [1], "check_range": False, "level": 1}
    run_job(parse_job(job_data(home, bundle, tmp_path / "run", input=read, output=output), where="test"))
    first = read_by_ngff_zarr(home / "labels" / "x").images[0]
    assert (first.scale["y"], first.translation["y"]) == (0.5, 0.125)


def test_a_new_geopackage_takes_nothing_over_from_the_journal_of_the_old_one(slide: Path) -> None:
    product: dict[str, Any] = {"format": "gpkg", "path": str(slide.parent / "a.gpkg")}
    finished(slide, slide.parent, [product], 1.0)
    path = Path(product["path"])
    for suffix in ("-wal", "-shm", "-journal"):
        path.with_name(path.name + suffix).write_bytes(b"of a reader that crashed")
    export_run(slide.parent / "run", Product(**product))
    assert [one.name for one in slide.parent.glob("a.gpkg*")] == ["a.gpkg"]
    connection = sqlite3.connect(path)
    assert connection.execute("pragma integrity_check").fetchall() == [("ok",)]
    connection.close()


def test_a_new_ome_tiff_drops_what_gdal_kept_beside_the_old_one(slide: Path) -> None:
    product: dict[str, Any] = {"format": "ome-tiff", "path": str(slide.parent / "a.ome.tif")}
    finished(slide, slide.parent, [product], 1.0)
    for suffix in (".aux.xml", ".ovr", ".msk"):
        Path(product["path"] + suffix).write_bytes(b"of the old one")
    export_run(slide.parent / "run", Product(**product))
    assert [one.name for one in slide.parent.glob("a.ome.tif*")] == ["a.ome.tif"]


def test_tracing_in_threads_never_tells_of_warnings_that_are_not_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    """What hides rasterio's warning is the state of the process, so only one thread may be inside it."""
    inside = threading.Semaphore(1)
    real = tile_polygons.rasterio.features.shapes

    def shapes(*arguments: Any, **options: Any) -> Any:
        assert inside.acquire(blocking=False), "two threads trace at once"
        yield from real(*arguments, **options)
        inside.release()

    monkeypatch.setattr(tile_polygons.rasterio.features, "shapes", shapes)
    labels = np.random.default_rng(0).integers(0, 3, (60, 60)).astype(np.uint8)
    problems: list[BaseException] = []

    def trace() -> None:
        try:
            for _ in range(20):
                tile_polygons.traced(labels, Window(0, 0, 60, 60))
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=trace) for _ in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert not problems


def test_pixels_asked_for_where_only_polygons_are_written_are_refused(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="only polygons are written"):
        segment(["a.tif"], "m", out=[tmp_path / "a.geojson"], at="image")


def test_labels_beside_an_image_have_the_pixels_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr("tilesseg.cli.segment_command._execute", lambda job, **_: asked.append(job) or 0)
    segment(["a.zarr"], "m", beside="cells", at="image")
    assert [one.resolution for one in asked[0].output.products] == ["image"]
    assert not asked[0].output.preview  # the run is removed, and a picture in it would go with it


def test_a_scene_with_254_classes_and_one_of_a_pixel_have_every_product(tmp_path: Path) -> None:
    many = np.arange(254, dtype=np.uint8).reshape(1, 2, 127).repeat(3, axis=1)
    products = [{"format": name, "path": str(tmp_path / "{scene}" / f"{name}{row.suffixes[0]}")}
                for name, row in FORMATS.items() if row.writes and row.kind != "scores"]  # fmt: skip
    for name, values in (("many", many), ("one", many[:, :1, 5:6])):
        scene = write_scene(tmp_path / f"{name}.tif", values, names=["b1"])
        bundle = write_spec(tmp_path / "m", spec_data("Identity", classes=254))
        output = {"dir": str(tmp_path / name / "run"), "products": products, "preview": False}
        data = job_data(scene, bundle, tmp_path, input={"check_range": False}, output=output)
        report = run_job(parse_job(data, where="test"))
        assert report.exit_code == 0 and len(report.products) == len(products)
        assert np.array_equal(tifffile.imread(tmp_path / name / "ome-tiff.ome.tif"), values[0])
        assert len(geopandas.read_file(tmp_path / name / "gpkg.gpkg")) == len(np.unique(values))


def test_a_failed_tile_is_254_in_every_mask_and_in_no_polygon(tmp_path: Path) -> None:
    values = np.zeros((1, 300, 260), np.uint8)
    values[0, :50, :50], values[0, 250, 250] = 1, 13
    scene = write_scene(tmp_path / "a.tif", values, names=["b1"])
    bundle = write_spec(tmp_path / "m", spec_data("Broken"))
    wanted = [*MASKS, "gpkg"]
    products = [{"format": f, "path": str(tmp_path / "out" / f"{f}{FORMATS[f].suffixes[0]}")} for f in wanted]
    output = {"dir": str(tmp_path / "run"), "products": products}
    tiling = {"patch": 64, "core": 128}
    data = job_data(scene, bundle, tmp_path, input={"check_range": False}, tiling=tiling, output=output)
    assert run_job(parse_job(data, where="test")).exit_code == 3
    mask = stored(tmp_path / "run" / "scenes" / "a")
    assert 0 < (mask == 254).sum() < mask.size
    assert np.array_equal(tifffile.imread(tmp_path / "out" / "cog.tif"), mask)
    assert np.array_equal(tifffile.imread(tmp_path / "out" / "ome-tiff.ome.tif"), mask)
    assert np.array_equal(pyramid_of(tmp_path / "out" / "ome-zarr.ome.zarr")[0], mask)
    assert geopandas.read_file(tmp_path / "out" / "gpkg.gpkg").geometry.area.sum() == 100 * (mask < 254).sum()


def test_worker_processes_make_the_products_of_several_scenes_as_one_thread_does(slide: Path) -> None:
    """Levels and polygons of one scene are made while tiles of the next ones are."""
    scenes = [slide, write_pyramid(slide.parent / "b.tif", halved(blobs((400, 520)), 2), mpp=MPP)]
    bundle, made = model(slide.parent / "model"), {}
    for kind, who in (("serial", {}), ("local", {"workers": 2, "threads": 2})):
        products = [{"format": f, "path": str(slide.parent / kind / f"{{scene}}{FORMATS[f].suffixes[0]}")}
                    for f in ("ome-tiff", "geojson", "gpkg", "ome-zarr")]  # fmt: skip
        data = job_data(
            [str(one) for one in scenes],
            bundle,
            slide.parent,
            input={"resolution": MPP, "tissue": "none", "check_range": False},
            tiling={"patch": 128, "core": 128},
            output={"dir": str(slide.parent / f"run {kind}"), "products": products},
            cluster={"kind": kind, "engine_threads": 1, **who},
        )
        assert run_job(parse_job(data, where="test")).exit_code == 0
        same = [one for suffix in (".ome.tif", ".geojson") for one in sorted((slide.parent / kind).glob(f"*{suffix}"))]
        made[kind] = {one.name: one.read_bytes() for one in same}
    assert len(made["serial"]) == 4
    assert made["serial"] == made["local"]


def test_the_old_store_is_there_again_where_the_new_one_cannot_take_its_place(
    slide: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    product: dict[str, Any] = {"format": "ome-zarr", "path": str(slide.parent / "a.zarr")}
    finished(slide, slide.parent, [product], 1.0)
    before = hashes(slide.parent / "a.zarr")
    real = Path.rename

    def rename(self: Path, target: Path) -> Path:
        if self.name.startswith(".a.zarr.") and not self.name.endswith(".old"):
            raise OSError(5, "Input/output error")
        return real(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(FormatError, match="Input/output error"):
        export_run(slide.parent / "run", Product(**product))
    assert hashes(slide.parent / "a.zarr") == before
