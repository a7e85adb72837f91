"""Whole slides: OpenSlide and tifffile, asked directly, are the oracles."""

from __future__ import annotations

import pickle
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import openslide
import pytest
import rasterio
import tifffile
from fakes import job_data, write_bundle
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from slide_files import damage, halved, leave_out, tile_place, tissue, write_leica, write_pyramid

from tilesseg.cluster.executors import SerialExecutor
from tilesseg.errors import SourceError
from tilesseg.formats.detect import format_of
from tilesseg.formats.open import open_source
from tilesseg.formats.reading.image import Image
from tilesseg.formats.reading.open_options import Opening
from tilesseg.formats.reading.pixel_size import downsample
from tilesseg.formats.slide import open_slide
from tilesseg.formats.slide.openslide_reader import open_openslide
from tilesseg.formats.slide.source import slide_reader
from tilesseg.formats.slide.tiff_reader import open_tiff_slide
from tilesseg.planning.job import parse_job
from tilesseg.raster.window import Window
from tilesseg.run.run_job import run_job

IMAGE = tissue((330, 410))
LEVELS = halved(IMAGE, 3)


@pytest.fixture(scope="module")
def pyramid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pyramid(tmp_path_factory.mktemp("slides") / "pyramid.tif", LEVELS)


@pytest.fixture(scope="module")
def leica(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("slides") / "slide.scn"
    return write_leica(path, LEVELS, canvas=(600, 700), corner=(101, 150))


def source_of(path: Path, **opening: Any) -> Image:
    return open_slide([str(path)], Opening(**opening))


def by_openslide(path: Path) -> Image:
    return Image.of(slide_reader(open_openslide(str(path))))


def by_tifffile(path: Path, **opening: Any) -> Image:
    return Image.of(slide_reader(open_tiff_slide(str(path), Opening(**opening))))


windows = st.tuples(*(st.integers(0, 300),) * 2, *(st.integers(1, 150),) * 2).map(lambda numbers: Window(*numbers))


def inside(window: Window, source: Any) -> Window:
    return window.intersect(source.grid.window)


# pixels


def test_openslide_and_tifffile_give_the_same_pixels_of_an_aperio_slide(shared_data: Path) -> None:
    path = shared_data / "microscopy/wsi/CMU-1-Small-Region.svs"
    first, second = by_openslide(path), by_tifffile(path)
    assert first.grid == second.grid
    assert first.grid.shape == (2967, 2220)
    assert first.grid.resolution == (0.499, 0.499)
    window = first.grid.window
    np.testing.assert_array_equal(first.read(window).values, second.read(window).values)
    with openslide.OpenSlide(path) as slide:
        whole = np.asarray(slide.read_region((0, 0), 0, slide.dimensions))
    np.testing.assert_array_equal(open_source(str(path)).read(window).values, whole[..., :3].transpose(2, 0, 1))
    assert open_source(str(path)).describe()["objective"] == 20


def test_levels_of_odd_sizes_are_the_files_own_pixels(shared_data: Path) -> None:
    path = shared_data / "microscopy/wsi/generic_pyramid_4levels.tiff"
    source = open_source(str(path))
    with openslide.OpenSlide(path) as slide:
        for number, level in enumerate([source, *source.levels]):
            whole = np.asarray(slide.read_region((0, 0), number, slide.level_dimensions[number]))
            np.testing.assert_array_equal(level.read(level.grid.window).values, whole[..., :3].transpose(2, 0, 1))
    assert [level.grid.resolution for level in source.levels] == [(2.0, 2.0), (4.0, 4.0), (8.0, 8.0)]


@given(window=windows, number=st.integers(0, 2))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_window_of_a_level_is_what_tifffile_reads(pyramid: Path, window: Window, number: int) -> None:
    source = [source_of(pyramid), *source_of(pyramid).levels][number]
    window = inside(window, source)
    if not window.empty:
        with tifffile.TiffFile(pyramid) as file:
            whole = file.pages[number].asarray()
        np.testing.assert_array_equal(source.read(window).values.transpose(1, 2, 0), whole[window.slices()])


@pytest.mark.parametrize("compression", ["jpeg", "lzw", "zstd", "deflate", "jpeg2000", None])
def test_every_compression_gives_what_tifffile_reads(tmp_path: Path, compression: str | None) -> None:
    path = write_pyramid(tmp_path / "slide.tif", LEVELS[:2], compression=compression)
    source = source_of(path)
    for number, level in enumerate([source, *source.levels]):
        with tifffile.TiffFile(path) as file:
            whole = file.pages[number].asarray()
        np.testing.assert_array_equal(level.read(level.grid.window).values.transpose(1, 2, 0), whole)


def test_bands_come_in_the_order_they_are_selected(pyramid: Path) -> None:
    source = source_of(pyramid).select([2, 0])
    np.testing.assert_array_equal(source.read(source.grid.window).values, IMAGE.transpose(2, 0, 1)[[2, 0]])
    assert source.masks == (0, 0)
    with pytest.raises(SourceError, match="cannot read band 3 of"):
        source.select([3])


def test_a_source_travels_to_another_process_and_serves_many_threads(pyramid: Path, leica: Path) -> None:
    for path in (pyramid, leica):
        source = pickle.loads(pickle.dumps(source_of(path)))
        whole = source.read(source.grid.window).values
        places = [Window(y, x, 64, 64) for y in range(0, 256, 32) for x in range(0, 320, 32)]
        with ThreadPoolExecutor(8) as pool:
            for window, pixels in zip(places, pool.map(source.read, places), strict=True):
                np.testing.assert_array_equal(pixels.values, whole[:, *window.slices()])


def test_pixels_times_scale_plus_offset(pyramid: Path) -> None:
    source = source_of(pyramid, scale=0.5, offset=1.0)
    assert source.dtype == np.float32
    np.testing.assert_array_equal(source.read(source.grid.window).values[0], IMAGE[..., 0] * np.float32(0.5) + 1)


# place


@pytest.mark.parametrize(
    ("finest", "shape", "expected"),
    [
        ((250, 300), (62, 75), (4.0, 4.0)),
        ((250, 300), (63, 75), (4.0, 4.0)),
        ((250, 300), (31, 37), (8.0, 8.0)),
        ((1000, 1000), (300, 300), (10 / 3, 10 / 3)),
        ((1000, 2000), (500, 500), None),
        ((768, 574), (1000, 900), None),
    ],
)
def test_a_level_is_coarser_by_a_whole_number_where_its_size_follows_from_it(
    finest: tuple[int, int], shape: tuple[int, int], expected: tuple[float, float] | None
) -> None:
    assert downsample(finest, shape) == (expected and pytest.approx(expected))


def test_levels_share_the_corner_and_have_larger_pixels(pyramid: Path) -> None:
    source = source_of(pyramid)
    assert source.grid.unit == "micrometre"
    assert source.grid.metres_per_unit == 1e-6
    assert source.grid.transform == pytest.approx((0.5, 0, 0, 0, 0.5, 0))
    assert [level.grid.resolution[0] for level in source.levels] == pytest.approx([1.0, 2.0])
    assert all(level.native == source.native == source.grid for level in source.levels)


def test_the_level_asked_for_is_read_and_the_finest_stays_native(pyramid: Path) -> None:
    source = open_source(str(pyramid), Opening(level=1))
    assert source.grid.shape == LEVELS[1].shape[:2]
    assert source.native.shape == LEVELS[0].shape[:2]
    np.testing.assert_array_equal(source.read(source.grid.window).values, LEVELS[1].transpose(2, 0, 1))
    with pytest.raises(SourceError, match="level 3 is requested, and its levels are 0 to 2"):
        open_source(str(pyramid), Opening(level=3))


def test_only_the_scanned_region_is_read_and_keeps_its_place(leica: Path) -> None:
    source = source_of(leica, mpp=None)
    assert source.grid.shape == IMAGE.shape[:2]
    assert source.grid.transform == (1.0, 0.0, 150.0, 0.0, 1.0, 101.0)
    values, valid = source.read(source.grid.window)
    np.testing.assert_array_equal(values, IMAGE.transpose(2, 0, 1))
    assert valid.all()
    sized = open_source(str(leica), Opening(mpp=0.5))
    assert sized.grid.transform == (0.5, 0.0, 75.0, 0.0, 0.5, 50.5)
    assert "from row 101, column 150 of a canvas of 600 × 700" in " ".join(source.describe()["notes"])


def test_levels_of_a_region_that_begins_between_their_pixels_have_its_corner(leica: Path) -> None:
    for level in source_of(leica).levels:
        assert level.grid.transform[2::3] == (150.0, 101.0)
    level = source_of(leica).levels[0]  # pixels of 2: the region begins in the middle of one, along y
    with openslide.OpenSlide(leica) as slide:
        expected = np.asarray(slide.read_region((150, 101), 1, level.grid.shape[::-1]))
    np.testing.assert_array_equal(level.read(level.grid.window).values, expected[..., :3].transpose(2, 0, 1))


@given(window=windows, number=st.integers(0, 2), cut=st.floats(0, 1))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_window_read_in_two_parts_is_the_same_through_openslide(
    leica: Path, window: Window, number: int, cut: float
) -> None:
    source = [source_of(leica), *source_of(leica).levels][number]
    middle = window.x + round(cut * window.width)
    parts = [
        Window.from_bounds(window.y, a, window.y_stop, b) for a, b in ((window.x, middle), (middle, window.x_stop))
    ]
    whole, read = source.read(window), [source.read(part) for part in parts if not part.empty]
    np.testing.assert_array_equal(whole.values, np.concatenate([one.values for one in read], axis=2))
    np.testing.assert_array_equal(whole.valid, np.concatenate([one.valid for one in read], axis=1))


# what is not there, and what is damaged


@pytest.mark.parametrize("compression", ["jpeg", "deflate"])
def test_a_tile_that_was_never_scanned_is_nodata(tmp_path: Path, compression: str) -> None:
    path = write_pyramid(tmp_path / "slide.tif", LEVELS[:2], compression=compression)
    leave_out(path, 8)  # the second of the second row of seven
    values, valid = source_of(path).read(Window(0, 0, *IMAGE.shape[:2]))
    expected = np.ones(IMAGE.shape[:2], np.bool_)
    expected[64:128, 64:128] = False
    np.testing.assert_array_equal(valid, expected)
    assert not values[:, ~valid].any()
    assert source_of(path).describe()["files"][0]["mask"] == "tiles that are in the file"


@pytest.mark.parametrize(("compression", "harm"), [("jpeg", b"\xff"), ("deflate", b"\x00"), ("zstd", b"\x00")])
def test_exactly_the_windows_that_touch_a_corrupt_tile_are_refused(
    tmp_path: Path, compression: str, harm: bytes
) -> None:
    path = write_pyramid(tmp_path / "slide.tif", LEVELS[:2], compression=compression)
    intact = source_of(path).read(Window(0, 0, *IMAGE.shape[:2]))
    offset, count = tile_place(path, 8)
    with path.open("r+b") as file:
        file.seek(offset + count // 2)
        file.write(harm * (count // 3))
    source = source_of(path)
    hurt = Window(64, 64, 64, 64)
    for y in range(0, 256, 32):
        for x in range(0, 384, 32):
            window = Window(y, x, 32, 32)
            if window.touches(hurt):
                with pytest.raises(SourceError, match=r"slide\.tif: cannot read rows \d+–\d+, columns") as caught:
                    source.read(window)
                assert "\n" not in str(caught.value)
            else:
                np.testing.assert_array_equal(source.read(window).values, intact.values[:, *window.slices()])


def test_openslide_is_opened_anew_after_an_error_so_that_other_tiles_are_read(tmp_path: Path) -> None:
    path = write_pyramid(tmp_path / "slide.tif", LEVELS[:2], compression="jpeg")
    offset, count = tile_place(path, 8)
    with path.open("r+b") as file:
        file.seek(offset + count // 2)
        file.write(b"\xff" * (count // 3))
    source, problems = by_openslide(path), []

    def read(number: int) -> None:
        try:
            source.read(Window(64, 64 * (number % 3), 32, 32))
        except SourceError:
            problems.append(number % 3)

    threads = [threading.Thread(target=read, args=(number,)) for number in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == [1] * 10


def test_a_shortened_file_is_refused_where_its_tiles_are_missing(tmp_path: Path) -> None:
    path = write_pyramid(tmp_path / "slide.tif", [IMAGE], compression="deflate")
    source = by_tifffile(path)
    offset, count = tile_place(path, 41)
    with path.open("r+b") as file:
        file.truncate(offset + count // 2)
    source.read(Window(0, 0, 64, 64))
    with pytest.raises(SourceError, match="the file ends"):
        source.read(Window(320, 400, 10, 10))


def test_hostile_slides_are_refused_in_one_line(shared_data: Path) -> None:
    folder = shared_data / "hostile/wsi"
    with pytest.raises(SourceError, match=r"broken\.svs with OpenSlide: Unsupported") as caught:
        open_source(str(folder / "broken.svs"))
    assert "\n" not in str(caught.value)
    source = open_source(str(folder / "unreadable.svs"))
    with pytest.raises(SourceError, match=r"unreadable\.svs: cannot read rows 0–15.*JPEG"):
        source.read(source.grid.window)
    with pytest.raises(SourceError, match="no window of the image can be read"):
        source.sample()
    odd = open_source(str(folder / "odd-name.svs"))
    assert odd.read(odd.grid.window).values[:, 0, 0].tolist() == [245, 243, 252]
    with pytest.raises(SourceError, match="no such file"):
        open_source(str(folder / "missing.svs"))


def test_without_openslide_its_formats_name_the_extra_and_tiffs_are_read(
    leica: Path, pyramid: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openslide", None)
    with pytest.raises(SourceError, match=r"pip install 'tilesseg\[slides\]'"):
        source_of(leica)
    assert source_of(pyramid).read(Window(0, 0, 9, 9)).valid.all()


def test_what_openslide_cannot_do_is_refused(leica: Path) -> None:
    with pytest.raises(SourceError, match="with z 1: OpenSlide reads one image"):
        open_source(str(leica), Opening(z=1))


# views and statistics


def test_thumbnail_and_sample_come_from_a_level_and_cover_the_slide(pyramid: Path) -> None:
    source = source_of(pyramid)
    view = source.thumbnail(90)
    assert view.values.shape == (3, 72, 90)
    assert view.valid.all()
    assert source.sample().shape[0] == 3
    np.testing.assert_allclose(source.sample().mean(axis=1), IMAGE.mean(axis=(0, 1)), rtol=0.02)


def test_rows_are_the_whole_slide(pyramid: Path) -> None:
    rows = [raw.values for raw in source_of(pyramid).rows(100)]
    np.testing.assert_array_equal(np.concatenate(rows, axis=1), IMAGE.transpose(2, 0, 1))


def test_identity_is_size_and_time_of_every_file(pyramid: Path) -> None:
    assert list(source_of(pyramid).identity()) == [str(pyramid)]
    found = pyramid.stat()
    assert source_of(pyramid).identity()[str(pyramid)] == [found.st_size, found.st_mtime_ns]


def test_damage_in_a_level_does_not_keep_a_view_from_being_made(tmp_path: Path) -> None:
    path = write_pyramid(tmp_path / "slide.tif", LEVELS, compression="deflate")
    damage(path, 0, page=1)
    view = source_of(path).thumbnail(200)
    assert not view.valid.all()
    assert view.valid.any()


# which reader opens what


def test_each_kind_of_file_goes_to_its_reader(tmp_path: Path, pyramid: Path, shared_data: Path) -> None:
    micro = shared_data / "microscopy"
    assert format_of(str(pyramid)) == "slide"
    assert format_of(str(micro / "wsi/generic_pyramid_4levels.tiff")) == "slide"
    assert format_of(str(micro / "instanseg/HE_example.ome.tif")) == "ome-tiff"
    assert format_of(str(micro / "instanseg/Fluorescence_example.tif")) == "slide"
    for plain in ("kidney_ihc.tif", "stardist/img2d.tif", "stardist/histo.jpg"):
        assert format_of(str(micro / plain)) == "geotiff"
    for path in sorted((shared_data / "satellite").rglob("*.tif")):
        assert format_of(str(path)) == "geotiff"


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("options", [{"nodata": 0}, {"driver": "COG"}])
def test_gdals_own_pyramids_stay_with_gdal(tmp_path: Path, options: dict[str, Any]) -> None:
    path = tmp_path / "scene.tif"
    size = {"count": 3, "height": 1024, "width": 1024, "dtype": "uint8", "driver": "GTiff", "tiled": True}
    size = {key: value for key, value in size.items() if options.get("driver") != "COG" or key != "tiled"}
    with rasterio.open(path, "w", **(size | options)) as file:
        file.write(np.ones((3, 1024, 1024), np.uint8))
        if options.get("driver") != "COG":
            file.build_overviews([2, 4])
    assert format_of(str(path)) == "geotiff"


def test_an_imagej_tiff_has_its_channels_and_its_pixel_size(tmp_path: Path, shared_data: Path) -> None:
    path = shared_data / "microscopy/instanseg/Fluorescence_example.tif"
    source = open_source(str(path))
    assert len(source.bands) == 2
    np.testing.assert_array_equal(source.read(source.grid.window).values, tifffile.imread(path))
    stack = np.random.default_rng(0).integers(0, 999, (3, 2, 40, 50)).astype(np.uint16)
    told = {"axes": "ZCYX", "unit": "micron", "Labels": ["a", "b"] * 3}
    tifffile.imwrite(tmp_path / "stack.tif", stack, imagej=True, resolution=(4, 2), metadata=told)
    with pytest.raises(SourceError, match="3 planes in depth, of which 1 is read; choose z from 0 to 2"):
        open_source(str(tmp_path / "stack.tif"))
    source = open_source(str(tmp_path / "stack.tif"), Opening(z=1))
    assert source.grid.resolution == pytest.approx((0.5, 0.25))
    np.testing.assert_array_equal(source.read(source.grid.window).values, stack[1])


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_a_plain_picture_is_staged_and_segmented_with_its_micrometres(tmp_path: Path, suffix: str) -> None:
    picture = tissue((150, 170), channels=4 if suffix == ".png" else 3)
    if suffix == ".png":
        picture[..., 3] = 255
        picture[:40, :50, 3] = 0
    path = tmp_path / f"picture{suffix}"
    from PIL import Image

    Image.fromarray(picture).save(path)
    source = open_source(str(path), Opening(mpp=0.25))
    assert source.grid.unit == "micrometre"
    assert source.grid.resolution == (0.25, 0.25)
    assert len(source.bands) == 3
    bundle = write_bundle(tmp_path / "model", "Constant", bands=3)
    job = job_data(path, bundle, tmp_path / "run", input={"mpp": 0.25, "stage": "always", "check_range": False})
    report = run_job(parse_job(job, where="test"), executor=SerialExecutor())
    assert report.exit_code == 0
    if suffix == ".png":
        np.testing.assert_array_equal(source.read(source.grid.window).valid, picture[..., 3] != 0)


def test_a_qptiff_has_its_stains_by_name_and_the_objective(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 999, (2, 300, 320)).astype(np.uint16)
    path = tmp_path / "multiplex.qptiff"
    place = {"resolution": (20000, 20000), "resolutionunit": "CENTIMETER", "software": "PerkinElmer-QPI"}
    stored = {"metadata": None, "photometric": "minisblack", "tile": (64, 64), "compression": "lzw", **place}
    with tifffile.TiffWriter(path) as file:
        for step in (1, 2):
            for name, plane in zip(("DAPI", "CD8"), values, strict=True):
                text = f"<PerkinElmer-QPI-ImageDescription><Name>{name}</Name><Objective>20x</Objective>"
                text += "</PerkinElmer-QPI-ImageDescription>"
                file.write(plane[::step, ::step], description=text, subfiletype=int(step > 1), **stored)
            if step == 1:
                thumbnail = np.zeros((30, 32, 3), np.uint8)
                file.write(thumbnail, photometric="rgb", metadata=None, software="PerkinElmer-QPI")
    source = open_source(str(path))
    assert source.bands == ("DAPI", "CD8")
    assert source.grid.resolution == (0.5, 0.5)
    assert source.describe()["objective"] == 20
    np.testing.assert_array_equal(source.read(source.grid.window).values, values)
    np.testing.assert_array_equal(source.levels[0].read(Window(0, 0, 150, 160)).values, values[:, ::2, ::2])


def test_a_corrupt_tile_of_a_slide_costs_the_patches_that_see_it(tmp_path: Path) -> None:
    image = tissue((1100, 1040))
    path = write_pyramid(tmp_path / "slide.tif", [image, *halved(image, 2)[1:]], compression="jpeg")
    offset, count = tile_place(path, 0)
    with path.open("r+b") as file:
        file.seek(offset + count // 2)
        file.write(b"\xff" * (count // 3))
    bundle = write_bundle(tmp_path / "model", "Constant", bands=3)
    job = job_data(path, bundle, tmp_path / "run", input={"check_range": False}, tiling={"core": 512})
    report = run_job(parse_job(job, where="test"), executor=SerialExecutor())
    assert report.exit_code == 3
    assert not report.scenes[0].failed and list(report.scenes[0].damaged) == ["r000-c000"]
    assert "cannot read" in report.scenes[0].damaged["r000-c000"]
    assert report.scenes[0].damaged_pixels == 448**2  # of the first patch, which begins 64 px above the image
