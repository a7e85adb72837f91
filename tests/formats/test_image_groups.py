"""Groups of images in OME-Zarr: plates, wells and SpatialData; zarr itself is the oracle."""

from __future__ import annotations

import os
import pickle
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import zarr

from tilesseg.errors import FormatError, JobError, SourceError
from tilesseg.formats.detect import format_of
from tilesseg.formats.ome_zarr.image_labels import find_home
from tilesseg.formats.open import open_source
from tilesseg.formats.reading.open_options import Opening
from tilesseg.planning.scene_list import find_scenes
from tilesseg.raster.grid import Grid

PIXELS = np.random.default_rng(0).integers(0, 255, (2, 20, 30)).astype(np.uint8)


def write_image(
    folder: Path, *, version: str = "0.5", add: int = 0, shared: list[dict[str, Any]] | None = None
) -> None:
    """An image of two channels, whose values are `PIXELS` plus a number."""
    old = version.startswith("0.4")
    group = zarr.open_group(str(folder), mode="w", zarr_format=2 if old else 3)
    group.create_array("s0", shape=PIXELS.shape, chunks=PIXELS.shape, dtype="uint8")[:] = PIXELS + np.uint8(add)
    axes = [{"name": "c", "type": "channel"}, *({"name": name, "type": "space"} for name in "yx")]
    levels = [{"path": "s0", "coordinateTransformations": [{"type": "scale", "scale": [1.0, 1.0, 1.0]}]}]
    more = {} if shared is None else {"coordinateTransformations": shared}
    image = {"axes": axes, "datasets": levels, **more}
    if old:
        group.attrs.update({"multiscales": [{"version": version, **image}]})
    else:
        group.attrs.update({"ome": {"version": version, "multiscales": [image]}})


def write_group(folder: Path, attributes: dict[str, Any]) -> Path:
    zarr.open_group(str(folder), mode="a", zarr_format=3).attrs.update(attributes)
    return folder


def write_plate(folder: Path) -> Path:
    """A plate of two wells with two fields and one."""
    wells = {"A/1": ["0", "1"], "B/2": ["0"]}
    write_group(folder, {"ome": {"version": "0.5", "plate": {"wells": [{"path": well} for well in wells]}}})
    for well, fields in wells.items():
        write_group(folder / well, {"ome": {"version": "0.5", "well": {"images": [{"path": one} for one in fields]}}})
        for field in fields:
            write_image(folder / well / field, add=len(well) + int(field))
    return folder


def pixels(path: Path, **opening: Any) -> Any:
    source = open_source(str(path), Opening(**opening))
    return source.read(source.grid.window).values


class MaskOf(NamedTuple):
    """What finding a place for labels asks of a mask."""

    paths: tuple[str, ...]
    grid: Grid
    image: Grid | None = None


# SpatialData


@pytest.mark.parametrize("version", ["0.5-dev-spatialdata", "0.4-dev-spatialdata", "0.5.1", "0.4"])
def test_the_versions_of_spatialdata_are_those_that_they_were_made_from(tmp_path: Path, version: str) -> None:
    write_image(tmp_path / "he", version=version)
    np.testing.assert_array_equal(pixels(tmp_path / "he"), PIXELS)


@pytest.mark.parametrize("version", ["0.6-dev-spatialdata", "0.45", "0.3"])
def test_other_versions_are_refused(tmp_path: Path, version: str) -> None:
    write_image(tmp_path / "he.zarr", version=version)
    with pytest.raises(SourceError, match=f"OME-Zarr version {version}"):
        open_source(str(tmp_path / "he.zarr"))


@pytest.mark.parametrize("kind", ["scale", "affine", "sequence"])
def test_coordinate_systems_of_spatialdata_do_not_move_the_image(tmp_path: Path, kind: str) -> None:
    into = {"type": kind, kind: [1.0, 0.5, 0.5], "input": {"name": "cyx"}, "output": {"name": "global"}}
    write_image(tmp_path / "he", version="0.5-dev-spatialdata", shared=[into, into])
    np.testing.assert_array_equal(pixels(tmp_path / "he"), PIXELS)
    assert open_source(str(tmp_path / "he")).grid.unit == "pixel"


def test_the_only_image_of_a_spatialdata_is_read_and_one_of_several_chosen(tmp_path: Path) -> None:
    root = write_group(tmp_path / "sample.zarr", {"spatialdata_attrs": {"version": "0.2"}})
    write_group(root / "images", {})
    write_image(root / "images/he", version="0.5-dev-spatialdata")
    assert format_of(str(root)) == "ome-zarr"
    np.testing.assert_array_equal(pixels(root), PIXELS)
    write_image(root / "images/if", version="0.5-dev-spatialdata", add=1)
    with pytest.raises(SourceError, match="2 images, of which 1 is read; give series, one of images/he, images/if"):
        open_source(str(root))
    for series in (1, "images/if"):
        np.testing.assert_array_equal(pixels(root, series=series), PIXELS + np.uint8(1))


def test_a_spatialdata_without_images_is_refused(tmp_path: Path) -> None:
    root = write_group(tmp_path / "sample.zarr", {"spatialdata_attrs": {"version": "0.2"}})
    with pytest.raises(SourceError, match="without an image"):
        open_source(str(root))


def test_the_spatialdata_of_the_cases_is_read(shared_cases: Path) -> None:
    root = shared_cases / "micro/spatialdata.zarr"
    expected = zarr.open_array(str(root / "images/he/s0"), mode="r")[:]
    for path in (root, root / "images/he"):
        np.testing.assert_array_equal(pixels(path), expected)


# plates


def test_a_plate_is_a_scene_for_each_image(tmp_path: Path) -> None:
    plate = write_plate(tmp_path / "screen.ome.zarr")
    scenes = find_scenes(str(plate))
    assert [scene.name for scene in scenes] == ["screen-A-1-0", "screen-A-1-1", "screen-B-2-0"]
    for scene, add in zip(scenes, (3, 4, 3), strict=True):
        np.testing.assert_array_equal(pixels(Path(scene.paths[0])), PIXELS + np.uint8(add))
    assert [scene.name for scene in find_scenes(str(plate / "A/1"))] == ["1-0", "1-1"]


def test_plates_of_a_glob_are_scenes_too(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_plate(tmp_path / f"{name}.zarr")
    names = [scene.name for scene in find_scenes(f"{tmp_path}/*.zarr")]
    assert names == [f"{plate}-{field}" for plate in "ab" for field in ("A-1-0", "A-1-1", "B-2-0")]


def test_a_plate_is_refused_as_an_image_and_series_chooses_one(tmp_path: Path) -> None:
    plate = write_plate(tmp_path / "screen.zarr")
    with pytest.raises(SourceError, match=r"a plate, not an image; open one of its 3: .*; series chooses one"):
        open_source(str(plate))
    np.testing.assert_array_equal(pixels(plate, series="A/1/1"), PIXELS + np.uint8(4))


def test_a_plate_without_images_is_refused(tmp_path: Path) -> None:
    plate = write_group(tmp_path / "empty.zarr", {"ome": {"version": "0.5", "plate": {"wells": []}}})
    with pytest.raises(JobError, match="a plate without an image"):
        find_scenes(str(plate))


# zip files


def zipped(folder: Path, file: Path, *, inside: str = "", compression: int = zipfile.ZIP_STORED) -> Path:
    """A zip file of what is in a folder, in the file's root or in a folder of it."""
    with zipfile.ZipFile(file, "w", compression) as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                archive.write(path, os.path.join(inside, path.relative_to(folder)))
    return file


@pytest.mark.parametrize("version", ["0.5", "0.4"])
@pytest.mark.parametrize(
    ("name", "inside", "compression"),
    [("a.ozx", "", zipfile.ZIP_STORED), ("a.ome.zarr.zip", "a.ome.zarr", zipfile.ZIP_DEFLATED), ("a.OZX", "", 0)],
)
def test_a_zipped_image_is_read_where_it_lies(
    tmp_path: Path, version: str, name: str, inside: str, compression: int
) -> None:
    write_image(tmp_path / "a.ome.zarr", version=version)
    file = zipped(tmp_path / "a.ome.zarr", tmp_path / name, inside=inside, compression=compression)
    assert format_of(str(file)) == "ome-zarr"
    np.testing.assert_array_equal(pixels(file), PIXELS)
    source = pickle.loads(pickle.dumps(open_source(str(file))))
    np.testing.assert_array_equal(source.read(source.grid.window).values, PIXELS)
    assert list(source.identity()) == [str(file)]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["a.ome.zarr", name])


def test_absent_chunks_of_a_zip_are_those_of_its_folder(tmp_path: Path) -> None:
    write_image(tmp_path / "a.ome.zarr")
    array = zarr.open_group(str(tmp_path / "a.ome.zarr")).create_array(
        "s0", shape=(1, 20, 30), chunks=(1, 10, 10), shards=(1, 20, 10), dtype="uint8", overwrite=True
    )
    array[:, :10, :10] = 7
    file = zipped(tmp_path / "a.ome.zarr", tmp_path / "a.ozx")
    folder, archive = (open_source(str(path)) for path in (tmp_path / "a.ome.zarr", file))
    for one, two in zip(folder.read(folder.grid.window), archive.read(archive.grid.window), strict=True):
        np.testing.assert_array_equal(one, two)


def test_a_zipped_plate_is_a_scene_for_each_image(tmp_path: Path) -> None:
    file = zipped(write_plate(tmp_path / "screen.zarr"), tmp_path / "screen.ozx")
    scenes = find_scenes(str(file))
    assert [scene.name for scene in scenes] == ["screen-A-1-0", "screen-A-1-1", "screen-B-2-0"]
    np.testing.assert_array_equal(pixels(Path(scenes[1].paths[0])), PIXELS + np.uint8(4))


def test_a_zip_without_zarr_is_left_to_gdal_and_a_damaged_one_refused(tmp_path: Path) -> None:
    (tmp_path / "a.ozx").write_bytes(b"PK\3\4 nothing")
    with pytest.raises(SourceError, match=r"cannot open .*a\.ozx as a zip file"):
        open_source(str(tmp_path / "a.ozx"))
    (tmp_path / "text").mkdir()
    (tmp_path / "text/a.txt").write_text("a")
    assert format_of(str(zipped(tmp_path / "text", tmp_path / "b.zip"))) == "geotiff"


def test_labels_are_not_written_into_a_zip(tmp_path: Path) -> None:
    write_image(tmp_path / "a.ome.zarr")
    file = zipped(tmp_path / "a.ome.zarr", tmp_path / "a.ozx")
    source = open_source(str(file))
    mask = MaskOf((str(file),), source.grid)
    with pytest.raises(FormatError, match=r"a\.ozx: it is a zip file; leave out beside, or unpack it"):
        find_home(mask, file / "labels" / "mask", None)  # type: ignore[arg-type]
