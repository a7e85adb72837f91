"""Laws of the COG writer. Oracles: rasterio, rio-cogeo, and our own pyramid computed on the whole mask at once."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest
import rasterio
import tifffile
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning
from rio_cogeo.cogeo import cog_validate

from tilesseg.errors import FormatError
from tilesseg.formats.cog import cog_layers as cog_file
from tilesseg.formats.cog.writer import qgis_style, write_cog
from tilesseg.formats.registry import FORMATS, resolve
from tilesseg.formats.writer import Mask, MaskClass, MaskLevel
from tilesseg.raster.grid import IDENTITY, Grid, Transform
from tilesseg.raster.pyramid import HALVES, level_shapes
from tilesseg.raster.window import Window

Labels = NDArray[np.uint8]
UTM = rasterio.CRS.from_epsg(32633).to_wkt()
GEOGRAPHIC = rasterio.CRS.from_epsg(4326).to_wkt()
ALBERS = rasterio.CRS.from_string(
    "+proj=aea +lat_0=23 +lon_0=-96 +lat_1=29.5 +lat_2=45.5 +x_0=0 +y_0=0 +datum=NAD83 +units=m +no_defs"
).to_wkt()
INTERRUPTED = rasterio.CRS.from_string("+proj=igh +lon_0=0 +datum=WGS84 +units=m").to_wkt()
"""A projection that GeoTIFF keys cannot say."""
LOCAL = 'LOCAL_CS["assembly hall",UNIT["metre",1],AXIS["Easting",EAST],AXIS["Northing",NORTH]]'
NORTH_UP: Transform = (10.0, 0.0, 500_000.0, 0.0, -10.0, 5_200_000.0)
SOUTH_UP: Transform = (10.0, 0.0, 500_000.0, 0.0, 10.0, 5_200_000.0)
ROTATED: Transform = (8.66, 5.0, 500_000.0, 5.0, -8.66, 5_200_000.0)
CLASSES = (
    MaskClass("clear", (220, 230, 240)),
    MaskClass('<cloud> & "haze"', (255, 255, 0)),
    MaskClass("ombré", (9, 8, 7)),
)
PROVENANCE = {"model": 'cloud "net" <1>', "model sha256": "ff"}
SHAPES = [(1, 1), (1, 1300), (1301, 2), (1999, 3), (512, 512), (513, 513), (512, 1024), (1031, 769), (600, 2500)]


def random_labels(shape: tuple[int, int], seed: int = 0) -> Labels:
    """Patches of labels with ragged borders, some failed, some nodata."""
    rng = np.random.default_rng(seed)
    coarse = rng.choice(np.array([0, 1, 2, 254, 255], np.uint8), (shape[0] // 5 + 1, shape[1] // 5 + 1))
    return np.kron(coarse, np.ones((5, 5), np.uint8))[: shape[0], : shape[1]]


def as_mask(labels: Labels, **grid: Any) -> Mask:
    where = Grid(*labels.shape, **({"transform": NORTH_UP, "crs": UTM} | grid))
    return Mask(where, lambda window: labels[window.slices()], CLASSES, PROVENANCE)


@contextmanager
def opened(path: Path, level: int = 0) -> Iterator[Any]:
    """The oracle: rasterio, which is right to warn where there is no transform."""
    options = {"overview_level": level - 1} if level else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        file = rasterio.open(path, **options)
    with file:
        yield file


def validate(path: Path) -> tuple[bool, list[str], list[str]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        valid, errors, remarks = cog_validate(path, strict=True, quiet=True)
    return valid, errors, remarks


def read_level(path: Path, level: int) -> Labels:
    with opened(path, level) as file:
        result: Labels = file.read(1)
        return result


def test_the_format_table_leads_to_the_writer() -> None:
    assert resolve(str(FORMATS["cog"].writes)) is write_cog


@pytest.mark.parametrize("rule", ["mode", "nearest"])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_level_equals_our_pyramid_and_the_file_is_a_valid_cog(shape: Any, rule: Any, tmp_path: Path) -> None:
    labels, path = random_labels(shape), tmp_path / "mask.tif"
    assert write_cog(as_mask(labels), path, overviews=rule) == (path, tmp_path / "mask.qml")
    assert validate(path) == (True, [], [])
    with opened(path) as file:
        levels = 1 + len(file.overviews(1))
    for level in range(levels):
        np.testing.assert_array_equal(read_level(path, level), labels)
        labels = HALVES[rule](labels)
    smallest = read_level(path, levels - 1)
    assert max(smallest.shape) <= 512 or smallest.shape[1] == 1


def with_stored_levels(mask: Mask, labels: Labels) -> Mask:
    """As a mask comes whose levels its tiles have made."""
    levels = []
    for shape in level_shapes(mask.grid.shape)[1:]:
        labels = HALVES["mode"](labels)
        levels.append(MaskLevel(shape, lambda window, labels=labels: labels[window.slices()]))
    return replace(mask, levels=tuple(levels))


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("shape", [*SHAPES, (513, 1500), (5000, 600), (300, 4700)])
def test_stored_levels_are_copied_into_a_valid_cog_that_says_the_same(
    shape: Any, threads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What GDAL lays out and we fill reads, level by level, as what GDAL writes, tags and colours among it."""
    labels, ours, theirs = random_labels(shape), tmp_path / "ours.tif", tmp_path / "theirs.tif"
    labels[: shape[0] // 2, : shape[1] // 2] = 255  # TIFF tiles that are not stored
    write_cog(as_mask(labels), theirs, threads=threads)
    ready = with_stored_levels(as_mask(labels), labels)
    if max(shape) > 512:
        monkeypatch.setattr(cog_file, "cascade", None)
    write_cog(ready, ours, threads=threads)
    assert cog_validate(ours, quiet=True)[1] == [] and validate(ours)[0] == validate(theirs)[0]
    with opened(ours) as file, opened(theirs) as other:
        assert (file.profile, file.tags(), file.overviews(1)) == (other.profile, other.tags(), other.overviews(1))
        assert file.tags(ns="IMAGE_STRUCTURE") == other.tags(ns="IMAGE_STRUCTURE")
        assert file.colormap(1) == other.colormap(1)
        levels = 1 + len(file.overviews(1))
    for level in range(levels):
        np.testing.assert_array_equal(read_level(ours, level), read_level(theirs, level))
    with tifffile.TiffFile(ours) as one, tifffile.TiffFile(theirs) as two:
        for mine, other_page in zip(one.pages, two.pages, strict=True):
            assert [count > 0 for count in mine.databytecounts] == [count > 0 for count in other_page.databytecounts]
    data = ours.read_bytes()
    with tifffile.TiffFile(ours) as one:
        for page in one.pages:
            for start, size in zip(page.dataoffsets, page.databytecounts, strict=True):
                if size:
                    assert int.from_bytes(data[start - 4 : start], "little") == size
                    assert data[start + size - 4 : start + size] == data[start + size : start + size + 4]


def test_levels_of_which_one_cannot_be_read_leave_nothing(tmp_path: Path) -> None:
    labels = random_labels((1300, 1100))
    ready = with_stored_levels(as_mask(labels), labels)

    def fail(window: Window) -> Labels:
        raise OSError(5, "Input/output error")

    broken = replace(ready, levels=(MaskLevel(ready.levels[0].shape, fail), *ready.levels[1:]))
    with pytest.raises(FormatError, match=r"mask.tif: Input/output error"):
        write_cog(broken, tmp_path / "mask.tif")
    assert not list(tmp_path.iterdir())


def test_a_mask_one_pixel_wide_is_a_cog_without_overviews(tmp_path: Path) -> None:
    """Readers compute a level's decimation from widths: there can be none, whatever rio-cogeo recommends."""
    labels, path = random_labels((1301, 1)), tmp_path / "mask.tif"
    write_cog(as_mask(labels), path)
    assert cog_validate(path, quiet=True)[:2] == (True, [])
    np.testing.assert_array_equal(read_level(path, 0), labels)


@pytest.mark.parametrize("transform", [NORTH_UP, SOUTH_UP, ROTATED])
def test_top_left_equals_the_sources_at_every_level_and_bottom_right_within_one_level_pixel(
    transform: Transform, tmp_path: Path
) -> None:
    mask, path = as_mask(random_labels((1031, 1769)), transform=transform), tmp_path / "mask.tif"
    write_cog(mask, path)
    for level in range(3):
        with opened(path, level) as file:
            here = Grid(file.height, file.width, transform=tuple(file.transform)[:6])
        assert here.to_world(0, 0) == pytest.approx(mask.grid.to_world(0, 0), abs=1e-6)
        off = np.subtract(here.to_world(*here.shape), mask.grid.to_world(1031, 1769))
        assert np.hypot(*off) <= 2**level * np.hypot(*mask.grid.resolution)


@pytest.mark.parametrize("transform", [NORTH_UP, SOUTH_UP, ROTATED, IDENTITY])
@pytest.mark.parametrize("crs", [None, UTM, GEOGRAPHIC, ALBERS, INTERRUPTED, LOCAL])
def test_georeferencing_comes_back_as_it_was(crs: str | None, transform: Transform, tmp_path: Path) -> None:
    path = tmp_path / "mask.tif"
    written = write_cog(as_mask(random_labels((20, 30)), transform=transform, crs=crs), path)
    assert sorted(tmp_path.iterdir()) == sorted(written)
    with opened(path) as file:
        assert tuple(file.transform)[:6] == pytest.approx(transform, abs=1e-9)
        assert file.crs == (None if crs is None else rasterio.CRS.from_wkt(crs))
        assert file.tags().get("AREA_OR_POINT") == (None if crs is None else "Area")  # a GeoTIFF key: it needs a CRS
    assert validate(path) == (True, [], [])


def test_a_mask_without_georeferencing_carries_none_and_warns_nobody(tmp_path: Path) -> None:
    path = tmp_path / "mask.tif"
    write_cog(as_mask(random_labels((700, 900)), transform=IDENTITY, crs=None), path)  # warnings are errors here
    with pytest.warns(NotGeoreferencedWarning), rasterio.open(path) as file:
        assert file.crs is None and file.transform == rasterio.Affine.identity()


def test_nodata_colours_names_and_provenance_are_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "mask.tif"
    write_cog(as_mask(random_labels((600, 900))), path)
    with opened(path) as file:
        assert (file.nodata, file.count, file.dtypes, file.descriptions) == (255, 1, ("uint8",), ("mask",))
        assert file.profile["blockxsize"] == file.profile["blockysize"] == 512
        assert file.profile["compress"] == "deflate"
        assert file.colorinterp[0].name == "palette"
        colours, tags = file.colormap(1), file.tags()
    assert [colours[k][:3] for k in range(3)] == [c.rgb for c in CLASSES]
    assert colours[254] == (255, 0, 255, 255)
    assert colours[255][3] == 0
    assert [tags[f"TILESSEG_CLASS_{k}"] for k in range(3)] == [c.name for c in CLASSES]
    assert (tags["TILESSEG_CLASS_254"], tags["TILESSEG_CLASS_255"]) == ("failed", "nodata")
    assert (tags["TILESSEG_MODEL"], tags["TILESSEG_MODEL_SHA256"]) == ('cloud "net" <1>', "ff")


def test_nodata_costs_no_room_and_comes_back(tmp_path: Path) -> None:
    empty, path = np.full((3000, 3000), 255, np.uint8), tmp_path / "mask.tif"
    write_cog(as_mask(empty), path)
    assert validate(path) == (True, [], [])
    np.testing.assert_array_equal(read_level(path, 0), empty)
    assert path.stat().st_size < 10_000


def test_the_mask_is_read_once_in_bands_of_rows_top_to_bottom(tmp_path: Path) -> None:
    labels, asked = random_labels((1300, 700)), []

    def read(window: Window) -> Labels:
        asked.append(window)
        return labels[window.slices()]

    write_cog(Mask(Grid(1300, 700), read, CLASSES, {}), tmp_path / "mask.tif")
    assert asked == [Window(0, 0, 512, 700), Window(512, 0, 512, 700), Window(1024, 0, 276, 700)]


def test_the_threads_do_not_change_the_file(tmp_path: Path) -> None:
    for threads in (1, 2):
        write_cog(as_mask(random_labels((1500, 1500))), tmp_path / f"{threads}.tif", threads=threads)
    assert (tmp_path / "1.tif").read_bytes() == (tmp_path / "2.tif").read_bytes()


def test_a_new_mask_replaces_an_old_one_and_its_sidecars(tmp_path: Path) -> None:
    path = tmp_path / "mask.tif"
    for name in ("mask.tif", "mask.tif.aux.xml", "mask.tif.ovr", "mask.qml"):
        (tmp_path / name).write_text("of yesterday")
    labels = random_labels((100, 100))
    assert sorted(write_cog(as_mask(labels), path)) == sorted(tmp_path.iterdir())
    np.testing.assert_array_equal(read_level(path, 0), labels)


def test_a_read_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "mask.tif"
    path.write_text("of yesterday")

    def read(window: Window) -> Labels:
        if window.y:
            raise RuntimeError("the store is gone")
        return np.zeros(window.shape, np.uint8)

    with pytest.raises(RuntimeError, match="the store is gone"):
        write_cog(Mask(Grid(2000, 2000), read, CLASSES, {}), path)
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
        write_cog(as_mask(random_labels((9, 9))), tmp_path / place)
    assert "\n" not in str(refusal.value) and str(tmp_path / place) in str(refusal.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_crs_that_gdal_does_not_know_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="cannot write") as refusal:
        write_cog(as_mask(random_labels((9, 9)), crs="nonsense"), tmp_path / "mask.tif")
    assert "\n" not in str(refusal.value)
    assert list(tmp_path.iterdir()) == []


FULL_DISK = """
    import resource, signal, sys
    from pathlib import Path
    import numpy as np
    from tilesseg.errors import FormatError
    from tilesseg.formats import MaskLevel, Mask
    from tilesseg.formats.cog.writer import write_cog
    from tilesseg.raster.grid import Grid

    noise = np.random.default_rng(0).integers(0, 3, (4096, 4096), np.uint8)
    shapes = [(4096 >> k, 4096 >> k) for k in range(1, 5)] if sys.argv[3] == "stored" else []
    levels = tuple(MaskLevel(shape, lambda w: noise[w.slices()]) for shape in shapes)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
    try:
        write_cog(Mask(Grid(4096, 4096), lambda w: noise[w.slices()], (), {}, levels=levels), Path(sys.argv[1]))
    except FormatError as refusal:
        print("refused:", refusal)
"""


@pytest.mark.parametrize("levels", ["stored", "made"])
@pytest.mark.parametrize("limit", [100, 300_000, 3_000_000, 4_500_000, 5_000_000])
def test_a_full_disk_is_refused_in_one_line_and_nothing_is_left(limit: int, levels: str, tmp_path: Path) -> None:
    """A limit on the file size stands in for the disk: it hits the temporary levels, or the COG alone."""
    script = [sys.executable, "-c", textwrap.dedent(FULL_DISK), str(tmp_path / "mask.tif"), str(limit), levels]
    result = subprocess.run(script, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    assert result.stdout.startswith("refused: ") and result.stdout.count("\n") == 1, result
    assert list(tmp_path.iterdir()) == []


def test_the_qgis_style_is_xml_with_every_class_and_failed() -> None:
    root = ET.fromstring(qgis_style([*CLASSES, MaskClass("bell\x07", (1, 2, 3))]))
    renderer = root.find("pipe/rasterrenderer")
    assert root.tag == "qgis" and renderer is not None
    assert (renderer.get("type"), renderer.get("band")) == ("paletted", "1")
    entries = [entry.attrib for entry in renderer.findall("colorPalette/paletteEntry")]
    assert [entry["value"] for entry in entries] == ["0", "1", "2", "3", "254"]
    assert [entry["label"] for entry in entries] == [*(c.name for c in CLASSES), "bell\ufffd", "failed"]
    assert [entry["color"] for entry in entries] == ["#dce6f0", "#ffff00", "#090807", "#010203", "#ff00ff"]
    assert {entry["alpha"] for entry in entries} == {"255"}


def test_masks_of_real_georeferencing_come_back(shared_data: Path, tmp_path: Path) -> None:
    for name in ("rasterio/RGB.byte.tif", "umbra_sar_rotated.tif", "landsat_fields/landsat_albers.tif"):
        with rasterio.open(shared_data / "satellite" / name) as file:
            crs, transform, shape = file.crs, file.transform, file.shape
        labels, path = random_labels(shape), tmp_path / "mask.tif"
        write_cog(as_mask(labels, transform=tuple(transform)[:6], crs=crs.to_wkt()), path)
        assert validate(path) == (True, [], [])
        with rasterio.open(path) as file:
            assert file.crs == crs
            assert tuple(file.transform) == pytest.approx(tuple(transform), rel=1e-12)
            np.testing.assert_array_equal(file.read(1), labels)


PEAK = """
    import sys
    from pathlib import Path
    import numpy as np
    from tilesseg.formats import Mask
    from tilesseg.formats.cog.writer import write_cog
    from tilesseg.raster.grid import Grid

    size = int(sys.argv[2])
    band = np.kron(np.random.default_rng(0).integers(0, 3, (64, size // 8), np.uint8), np.ones((8, 8), np.uint8))
    write_cog(Mask(Grid(size, size), lambda w: band[: w.height], (), {}), Path(sys.argv[1]))
    print(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
"""


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="the peak is read from Linux's /proc")
def test_peak_memory_does_not_grow_with_the_height(tmp_path: Path) -> None:
    """Only bands of 512 rows grow, with the width: 16384² takes at most a dozen of its bands more than 4096²."""

    def peak(size: int) -> float:
        script = [sys.executable, "-c", textwrap.dedent(PEAK), str(tmp_path / "mask.tif"), str(size)]
        result = subprocess.run(script, capture_output=True, check=True, cwd=Path(__file__).parents[2])
        return int(result.stdout) / 1024

    small, large = peak(4096), peak(16384)
    assert large - small < 12 * 512 * (16384 - 4096) / 2**20 + 64
