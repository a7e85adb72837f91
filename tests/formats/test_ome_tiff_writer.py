"""Laws of the OME-TIFF writers, and of a slide's COG. Oracles: tifffile, ome-types and the OME schema, rasterio."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import tifffile
from fakes import job_data, write_bundle, write_scene
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning

from tilesseg.cluster.executors import ThreadExecutor
from tilesseg.errors import FormatError
from tilesseg.formats.cog.writer import write_cog
from tilesseg.formats.ome_tiff import writer as ome_tiff
from tilesseg.formats.ome_tiff.writer import write_ome_tiff, write_ome_tiff_scores
from tilesseg.formats.registry import FORMATS, resolve
from tilesseg.formats.writer import Mask, MaskClass, MaskLevel, Scores
from tilesseg.planning.job import parse_job
from tilesseg.raster.grid import Grid
from tilesseg.raster.pyramid import HALVES, halve_mean, level_shapes
from tilesseg.raster.window import Window
from tilesseg.run.run_job import run_job
from tilesseg.store.scene_store import Store

Labels = NDArray[np.uint8]
UTM = rasterio.CRS.from_epsg(32633).to_wkt()
CLASSES = (
    MaskClass("stroma", (220, 230, 240)),
    MaskClass('<tumour> & "necrosis"', (255, 255, 0)),
    MaskClass("µ-ombré", (9, 8, 7)),
)
PROVENANCE = {"model": 'nuclei "net" <1>', "model_sha256": "ff", "source": "Gewebe für µm.svs"}
SHAPES = [(1, 1), (1, 1300), (1301, 1), (512, 512), (513, 513), (1031, 769), (600, 2500)]


def random_labels(shape: tuple[int, int], seed: int = 0) -> Labels:
    """Patches of labels with ragged borders, some failed, some nodata."""
    rng = np.random.default_rng(seed)
    coarse = rng.choice(np.array([0, 1, 2, 254, 255], np.uint8), (shape[0] // 5 + 1, shape[1] // 5 + 1))
    return np.kron(coarse, np.ones((5, 5), np.uint8))[: shape[0], : shape[1]]


def slide(shape: tuple[int, int], mpp: float = 0.499, corner: tuple[float, float] = (0.0, 0.0)) -> Grid:
    x, y = corner
    return Grid(*shape, transform=(mpp, 0, x, 0, mpp, y), unit="micrometre", metres_per_unit=1e-6)


def as_mask(labels: Labels, grid: Grid | None = None, *, image: Grid | None = None) -> Mask:
    return Mask(grid or slide(labels.shape), lambda w: labels[w.slices()], CLASSES, PROVENANCE, image)  # type: ignore[arg-type]


def as_scores(planes: Labels, grid: Grid | None = None) -> Scores:
    names = tuple(f"class {number}" for number in range(len(planes)))
    return Scores(grid or slide(planes.shape[1:]), lambda n, w: planes[n][w.slices()], names, PROVENANCE)  # type: ignore[arg-type]


def read_levels(path: Path) -> list[Labels]:
    """All levels as tifffile sees them, `(channel, y, x)`."""
    with tifffile.TiffFile(path) as tiff:
        assert tiff.is_ome and len(tiff.series) == 1
        return [
            level.asarray(squeeze=False).reshape(-1, *level.pages[0].shape)  # type: ignore[union-attr]
            for level in tiff.series[0].levels
        ]


def ome_of(path: Path) -> Any:
    """The metadata as ome-types understands it, once the OME schema has accepted it."""
    import ome_types

    with tifffile.TiffFile(path) as tiff:
        xml = tiff.ome_metadata
    assert xml is not None
    ome_types.validate_xml(xml)
    return ome_types.from_xml(xml)


def pixels_of(path: Path) -> Any:
    (image,) = ome_of(path).images
    return image.pixels


def notes_of(path: Path, kind: str) -> list[dict[str, str]]:
    found = ome_of(path).structured_annotations.map_annotations
    return [{pair.k: pair.value for pair in note.value.ms} for note in found if note.namespace == f"tilesseg:{kind}"]


def test_the_format_table_leads_to_the_writers() -> None:
    assert resolve(str(FORMATS["ome-tiff"].writes)) is write_ome_tiff
    assert resolve(str(FORMATS["scores-ome-tiff"].writes)) is write_ome_tiff_scores


@pytest.mark.parametrize("rule", ["mode", "nearest"])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_level_follows_from_the_one_below(shape: tuple[int, int], rule: Any, tmp_path: Path) -> None:
    labels, path = random_labels(shape), tmp_path / "mask.ome.tif"
    assert write_ome_tiff(as_mask(labels), path, overviews=rule, threads=2) == (path,)
    levels = read_levels(path)
    assert [level.shape for level in levels] == [(1, *size) for size in level_shapes(shape)]
    for level in levels:
        np.testing.assert_array_equal(level[0], labels)
        labels = HALVES[rule](labels)
    ome_of(path)
    assert list(tmp_path.iterdir()) == [path]


def test_other_levels_are_subifds_and_all_are_tiled_deflate_in_grey(tmp_path: Path) -> None:
    path = tmp_path / "mask.ome.tif"
    write_ome_tiff(as_mask(random_labels((1500, 900))), path)
    with tifffile.TiffFile(path) as tiff:
        assert len(tiff.pages) == 1 and not tiff.is_bigtiff
        pages = [tiff.pages[0].aspage(), *tiff.pages[0].aspage().pages]  # type: ignore[misc]
        assert len(pages) == 4
        for page in pages:
            assert (page.tile, page.compression, page.predictor) == ((512, 512), 8, 1)
            assert (page.photometric, page.dtype, page.samplesperpixel) == (1, np.uint8, 1)
        assert [page.subfiletype for page in pages] == [0, 1, 1, 1]


def test_stored_levels_are_copied_and_not_made_again(tmp_path: Path) -> None:
    labels, path = random_labels((1301, 700)), tmp_path / "mask.ome.tif"
    shapes = level_shapes(labels.shape)[1:]  # type: ignore[arg-type]
    stored = [np.full(shape, number, np.uint8) for number, shape in enumerate(shapes)]

    def level(array: Labels) -> MaskLevel:
        return MaskLevel(array.shape, lambda window: array[window.slices()])  # type: ignore[arg-type]

    mask = Mask(slide(labels.shape), lambda w: labels[w.slices()], CLASSES, {}, levels=tuple(map(level, stored)))  # type: ignore[arg-type]
    write_ome_tiff(mask, path)
    for found, expected in zip(read_levels(path), [labels, *stored], strict=True):
        np.testing.assert_array_equal(found[0], expected)
    write_ome_tiff(mask, path, overviews="nearest")  # the stored ones are by mode
    np.testing.assert_array_equal(read_levels(path)[1][0], HALVES["nearest"](labels))


@pytest.mark.parametrize("mpp", [0.25, 0.4990000000001, 1 / 3, 0.2302, 1.0, 12.34567890123])
def test_physical_size_is_right_to_a_millionth(mpp: float, tmp_path: Path) -> None:
    path = tmp_path / "mask.ome.tif"
    write_ome_tiff(as_mask(random_labels((30, 40)), slide((30, 40), mpp)), path)
    pixels = pixels_of(path)
    assert (pixels.physical_size_x, pixels.physical_size_y) == (mpp, mpp)
    assert pixels.physical_size_x_unit.value == pixels.physical_size_y_unit.value == "µm"
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0].aspage()
        assert page.resolutionunit == 3
        assert page.get_resolution(unit="micrometer") == pytest.approx((1 / mpp, 1 / mpp), rel=1e-6)


def test_pixels_that_are_not_square_keep_their_sides(tmp_path: Path) -> None:
    path, grid = tmp_path / "mask.ome.tif", Grid(30, 40, (0.5, 0, 0, 0, 0.25, 0), None, "micrometre", 1e-6)
    write_ome_tiff(as_mask(random_labels((30, 40)), grid), path)
    assert (pixels_of(path).physical_size_x, pixels_of(path).physical_size_y) == (0.5, 0.25)
    with tifffile.TiffFile(path) as tiff:
        assert tiff.pages[0].aspage().get_resolution(unit="micrometer") == (2.0, 4.0)


@pytest.mark.parametrize(
    ("mpp", "corner", "position"),
    [(0.25, (0.0, 0.0), (0.0, 0.0)), (0.25, (100.5, 40.0), (100.5, 40.0)), (1.0, (100.5, 40.0), (100.875, 40.375))],
)
def test_the_origin_is_the_centre_of_the_first_pixel(
    mpp: float, corner: tuple[float, float], position: tuple[float, float], tmp_path: Path
) -> None:
    """Positions are of pixel centres: a pixel 4 times as large has its own 1.5 image pixels further on."""
    path, image = tmp_path / "mask.ome.tif", slide((120, 160), 0.25, corner)
    write_ome_tiff(as_mask(random_labels((30, 40)), slide((30, 40), mpp, corner), image=image), path)
    (plane,) = pixels_of(path).planes
    assert (plane.position_x, plane.position_y) == pytest.approx(position, abs=1e-12)
    assert plane.position_x_unit.value == plane.position_y_unit.value == "µm"


def test_nothing_is_invented_where_the_size_of_a_pixel_is_unknown(tmp_path: Path) -> None:
    path = tmp_path / "mask.ome.tif"
    write_ome_tiff(as_mask(random_labels((30, 40)), Grid(30, 40)), path)
    pixels = pixels_of(path)
    assert pixels.physical_size_x is pixels.physical_size_y is None and pixels.planes == []
    with tifffile.TiffFile(path) as tiff:
        assert tiff.pages[0].aspage().resolutionunit == 1
    write_ome_tiff(as_mask(random_labels((30, 40)), Grid(30, 40, (1, 0, 700, 0, 1, 300))), path)
    (plane,) = pixels_of(path).planes
    assert (plane.position_x, plane.position_y, plane.position_x_unit.value) == (700, 300, "pixel")


@pytest.mark.parametrize(("crs", "metres", "size"), [(UTM, 1.0, 1e7), (UTM, 0.3048, 3.048e6), (UTM, None, None)])
def test_a_georeferenced_mask_has_its_size_in_micrometres_and_its_place_in_a_note(
    crs: str, metres: float | None, size: float | None, tmp_path: Path
) -> None:
    path, unit = tmp_path / "mask.ome.tif", "metre" if metres else "degree"
    grid = Grid(30, 40, (10.0, 0, 500_000.0, 0, -10.0, 5e6), crs, unit, metres)
    write_ome_tiff(as_mask(random_labels((30, 40)), grid), path)
    pixels = pixels_of(path)
    assert pixels.physical_size_x == (pytest.approx(size) if size else None)
    assert pixels.planes == []
    assert notes_of(path, "georeference") == [{"crs": crs, "transform": "10.0 0.0 500000.0 0.0 -10.0 5000000.0"}]


def test_names_colours_and_provenance_are_in_annotations(tmp_path: Path) -> None:
    path = tmp_path / "CMU-1.2.ome.tif"
    write_ome_tiff(as_mask(random_labels((30, 40))), path)
    assert notes_of(path, "class") == [
        {"label": "0", "name": "stroma", "colour": "#dce6f0"},
        {"label": "1", "name": '<tumour> & "necrosis"', "colour": "#ffff00"},
        {"label": "2", "name": "µ-ombré", "colour": "#090807"},
        {"label": "254", "name": "failed", "colour": "#ff00ff"},
        {"label": "255", "name": "nodata"},
    ]
    assert notes_of(path, "provenance") == [PROVENANCE]
    (image,) = ome_of(path).images
    assert image.name == "CMU-1.2" and [channel.name for channel in image.pixels.channels] == ["mask"]
    assert len(image.annotation_refs) == 6


def test_a_mask_at_the_images_pixels_repeats_labels(tmp_path: Path) -> None:
    labels, path = random_labels((300, 200)), tmp_path / "mask.ome.tif"
    image = slide((900, 600), 0.5, (3.0, 4.0))
    write_ome_tiff(as_mask(labels, slide((300, 200), 1.5, (3.0, 4.0)), image=image), path, resolution="image")
    large = labels.repeat(3, axis=0).repeat(3, axis=1)
    levels = read_levels(path)
    np.testing.assert_array_equal(levels[0][0], large)
    np.testing.assert_array_equal(levels[1][0], HALVES["mode"](large))
    (plane,) = pixels_of(path).planes
    assert (pixels_of(path).physical_size_x, plane.position_x, plane.position_y) == (0.5, 3.0, 4.0)


@pytest.mark.parametrize("count", [1, 3])
def test_scores_are_a_channel_for_each_class_by_mean(count: int, tmp_path: Path) -> None:
    planes, path = np.random.default_rng(0).integers(0, 251, (count, 1031, 769), np.uint8), tmp_path / "s.ome.tif"
    planes[:, :300, :300] = 255
    planes[:, 300:400, :] = 254
    assert write_ome_tiff_scores(as_scores(planes), path, threads=2) == (path,)
    for level in read_levels(path):
        np.testing.assert_array_equal(level, planes)
        planes = np.stack([halve_mean(plane) for plane in planes])
    pixels = pixels_of(path)
    assert [channel.name for channel in pixels.channels] == [f"class {number}" for number in range(count)]
    assert len(pixels.planes) == count and pixels.physical_size_x == 0.499
    assert notes_of(path, "scores") == [{"0": "0", "250": "1", "254": "failed", "255": "nodata"}]


def test_the_channels_of_scores_are_pages_that_rasterio_reads_as_they_are(tmp_path: Path) -> None:
    planes, path = np.random.default_rng(0).integers(0, 251, (2, 700, 600), np.uint8), tmp_path / "s.ome.tif"
    write_ome_tiff_scores(as_scores(planes), path)
    for number in range(2):
        with pytest.warns(NotGeoreferencedWarning), rasterio.open(f"GTIFF_DIR:{number + 1}:{path}") as file:
            np.testing.assert_array_equal(file.read(1), planes[number])


def test_nodata_is_stored_as_255_and_costs_little(tmp_path: Path) -> None:
    empty, path = np.full((3000, 3000), 255, np.uint8), tmp_path / "mask.ome.tif"
    write_ome_tiff(as_mask(empty), path)
    assert all((level == 255).all() for level in read_levels(path))
    assert path.stat().st_size < 60_000


def test_the_mask_is_read_once_in_bands_of_rows_top_to_bottom(tmp_path: Path) -> None:
    labels, asked = random_labels((1300, 700)), []

    def read(window: Window) -> Labels:
        asked.append(window)
        return labels[window.slices()]

    write_ome_tiff(Mask(Grid(1300, 700), read, CLASSES, {}), tmp_path / "mask.ome.tif")
    assert asked == [Window(0, 0, 512, 700), Window(512, 0, 512, 700), Window(1024, 0, 276, 700)]


def test_the_threads_do_not_change_the_file(tmp_path: Path) -> None:
    for threads in (1, 3):
        (tmp_path / str(threads)).mkdir()
        write_ome_tiff(as_mask(random_labels((1500, 1500))), tmp_path / str(threads) / "m.ome.tif", threads=threads)
    assert (tmp_path / "1" / "m.ome.tif").read_bytes() == (tmp_path / "3" / "m.ome.tif").read_bytes()


def test_a_large_file_is_a_bigtiff(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ome_tiff, "CLASSIC_BYTES", 1_000_000)
    labels, path = random_labels((1000, 1000)), tmp_path / "mask.ome.tif"
    write_ome_tiff(as_mask(labels), path)
    with tifffile.TiffFile(path) as tiff:
        assert tiff.is_bigtiff
    np.testing.assert_array_equal(read_levels(path)[0][0], labels)


def test_openslide_finds_no_slide_of_another_maker_in_it(tmp_path: Path) -> None:
    """OpenSlide reads it as a plain tiled TIFF at most: never with another vendor's rules."""
    openslide = pytest.importorskip("openslide")
    path = tmp_path / "mask.ome.tif"
    write_ome_tiff(as_mask(random_labels((1000, 1000))), path)
    assert openslide.OpenSlide.detect_format(str(path)) in (None, "generic-tiff")


def test_a_read_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "mask.ome.tif"
    path.write_text("of yesterday")

    def read(window: Window) -> Labels:
        if window.y:
            raise RuntimeError("the store is gone")
        return np.zeros(window.shape, np.uint8)

    with pytest.raises(RuntimeError, match="the store is gone"):
        write_ome_tiff(Mask(Grid(2000, 2000), read, CLASSES, {}), path)
    assert path.read_text() == "of yesterday"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("place", "reason"),
    [("missing/mask.tif", "No such file"), ("file/mask.tif", "Not a directory"), ("dir", "a folder lies there")],
)
def test_a_target_that_cannot_be_written_is_refused_in_one_line(place: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "dir").mkdir()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(FormatError, match=reason) as refusal:
        write_ome_tiff(as_mask(random_labels((9, 9))), tmp_path / place)
    assert "\n" not in str(refusal.value) and str(tmp_path / place) in str(refusal.value)
    assert sorted(tmp_path.rglob("*")) == before


FULL_DISK = """
    import resource, signal, sys
    from pathlib import Path
    import numpy as np
    from tilesseg.errors import FormatError
    from tilesseg.formats import Mask
    from tilesseg.formats.ome_tiff.writer import write_ome_tiff
    from tilesseg.raster.grid import Grid

    noise = np.random.default_rng(0).integers(0, 3, (2048, 2048), np.uint8)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
    try:
        write_ome_tiff(Mask(Grid(2048, 2048), lambda w: noise[w.slices()], (), {}), Path(sys.argv[1]))
    except FormatError as refusal:
        print("refused:", refusal)
"""


@pytest.mark.parametrize("limit", [100, 200_000, 1_000_000, 1_200_000])
def test_a_full_disk_is_refused_in_one_line_and_nothing_is_left(limit: int, tmp_path: Path) -> None:
    script = [sys.executable, "-c", textwrap.dedent(FULL_DISK), str(tmp_path / "mask.ome.tif"), str(limit)]
    result = subprocess.run(script, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    assert result.stdout.startswith("refused: ") and result.stdout.count("\n") == 1, result
    assert list(tmp_path.iterdir()) == []


def test_a_file_with_holes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Should a tile ever be left out, it would read as 0, a class."""
    monkeypatch.setattr("tilesseg.formats.writing.tiff_tiles.encode", lambda tile: b"")
    with pytest.raises(FormatError, match="tiles are missing"):
        write_ome_tiff(as_mask(random_labels((900, 900))), tmp_path / "mask.ome.tif")
    assert list(tmp_path.iterdir()) == []


PEAK = """
    import sys
    from pathlib import Path
    import numpy as np
    from tilesseg.formats import Mask
    from tilesseg.formats.ome_tiff.writer import write_ome_tiff
    from tilesseg.raster.grid import Grid

    height, width = int(sys.argv[2]), 8192
    band = np.kron(np.random.default_rng(0).integers(0, 3, (64, width // 8), np.uint8), np.ones((8, 8), np.uint8))
    write_ome_tiff(Mask(Grid(height, width), lambda w: band[: w.height, : w.width].copy(), (), {}), Path(sys.argv[1]))
    print(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from Linux's /proc")
def test_peak_memory_does_not_grow_with_the_height(tmp_path: Path) -> None:
    def peak(height: int) -> float:
        script = [sys.executable, "-c", textwrap.dedent(PEAK), str(tmp_path / "mask.ome.tif"), str(height)]
        result = subprocess.run(script, capture_output=True, check=True, cwd=Path(__file__).parents[2])
        return int(result.stdout) / 1024

    small, large = peak(4096), peak(65_536)
    assert large - small < 16


def tags_of(path: Path) -> dict[str, Any]:
    with tifffile.TiffFile(path) as tiff:
        return {tag.name: tag.value for tag in tiff.pages[0].aspage().tags}


@pytest.mark.parametrize("mpp", [0.25, 0.499, 1.0, 1 / 3])
def test_a_cog_of_a_slide_has_its_resolution_and_no_place_on_earth(mpp: float, tmp_path: Path) -> None:
    labels, path = random_labels((1300, 900)), tmp_path / "mask.tif"
    write_cog(as_mask(labels, slide((1300, 900), mpp, (12.5, 40.0))), path)
    with pytest.warns(NotGeoreferencedWarning), rasterio.open(path) as file:
        assert file.crs is None and file.transform == rasterio.Affine.identity()
        np.testing.assert_array_equal(file.read(1), labels)
        metadata = file.tags()
    assert metadata["TILESSEG_CORNER"] == "12.5 40.0 micrometre"
    assert float(metadata["TILESSEG_MPP_X"]) == float(metadata["TILESSEG_MPP_Y"]) == mpp
    tags = tags_of(path)
    assert not any(name.startswith(("ModelPixel", "ModelTie", "ModelTrans", "GeoKey")) for name in tags)
    assert tags["ResolutionUnit"] == 3
    for axis in ("XResolution", "YResolution"):
        above, below = tags[axis]
        assert above / below == pytest.approx(1e4 / mpp, rel=1e-6)


def test_a_cog_at_the_images_pixels_has_the_images_scale(tmp_path: Path) -> None:
    labels, path = random_labels((300, 200)), tmp_path / "mask.tif"
    write_cog(as_mask(labels, slide((300, 200), 2.0), image=slide((600, 400), 1.0)), path, resolution="image")
    with pytest.warns(NotGeoreferencedWarning), rasterio.open(path) as file:
        np.testing.assert_array_equal(file.read(1), labels.repeat(2, axis=0).repeat(2, axis=1))
        assert file.tags()["TILESSEG_MPP_X"] == "1.0"  # also where the transform is the identity


@pytest.mark.parametrize("transform", [(1.0, 0, 0, 0, 1.0, 0), (1.0, 0, 700.0, 0, 1.0, 300.0)])
def test_a_cog_of_a_slide_of_unknown_scale_claims_no_resolution(transform: Any, tmp_path: Path) -> None:
    path = tmp_path / "mask.tif"
    write_cog(as_mask(random_labels((30, 40)), Grid(30, 40, transform)), path)
    with pytest.warns(NotGeoreferencedWarning), rasterio.open(path) as file:
        assert file.crs is None and file.transform == rasterio.Affine.identity()
        assert file.tags().get("TILESSEG_CORNER") == (None if not transform[2] else "700.0 300.0 pixel")
    assert "XResolution" not in tags_of(path)


def test_a_mask_of_a_real_slide_has_its_scale_and_levels(shared_data: Path, tmp_path: Path) -> None:
    image = shared_data / "microscopy" / "wsi" / "CMU-1-Small-Region.svs"
    with tifffile.TiffFile(image) as tiff:
        pixels = tiff.pages[0].asarray()
    labels, path = tissue(pixels), tmp_path / "mask.ome.tif"
    write_ome_tiff(as_mask(labels, slide(labels.shape, 0.499)), path)  # type: ignore[arg-type]
    levels = read_levels(path)
    assert [level.shape[1:] for level in levels] == list(level_shapes(labels.shape))  # type: ignore[arg-type]
    for level in levels:
        np.testing.assert_array_equal(level[0], labels)
        labels = HALVES["mode"](labels)
    assert pixels_of(path).physical_size_x == pytest.approx(0.499, rel=1e-6)


def test_a_run_writes_mask_and_scores_with_levels_made_by_its_workers(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 250, (1, 40, 50)).repeat(16, axis=1).repeat(16, axis=2)
    scene = write_scene(tmp_path / "scene.tif", values.astype(np.uint8))
    products = [{"format": "ome-tiff"}, {"format": "scores-ome-tiff"}, {"format": "cog"}]
    output = {"dir": str(tmp_path / "run"), "scores": True, "products": products, "preview": False}
    job = parse_job({**job_data(scene, write_bundle(tmp_path / "bundle"), tmp_path), "output": output}, where="test")
    run_job(job, executor=ThreadExecutor(2))
    folder = tmp_path / "run" / "scenes" / "scene"
    with rasterio.open(folder / "scene.tif") as file:
        labels = file.read(1)
    for level in read_levels(folder / "scene.ome.tif"):
        np.testing.assert_array_equal(level[0], labels)
        labels = HALVES["mode"](labels)
    store = Store(folder)
    scores = [store.read_scores(number, Window(0, 0, 640, 800)) for number in range(len(store.score_classes))]
    np.testing.assert_array_equal(read_levels(folder / "scene-scores.ome.tif")[0], np.stack(scores))
    assert [channel.name for channel in pixels_of(folder / "scene-scores.ome.tif").channels] == [*store.score_classes]
    assert not (folder / "further-levels").exists()


def tissue(pixels: Labels, cuts: Sequence[int] = (20, 70)) -> Labels:
    """Background, pale and dark tissue by saturation, as a mask."""
    span = pixels.max(axis=2) - pixels.min(axis=2)
    return np.digitize(span, cuts).astype(np.uint8)
