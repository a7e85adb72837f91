"""Masks and scores as OME-Zarr: levels, scale and place; labels beside an image, of which nothing else changes."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from rasterio.crs import CRS

from tilesseg.errors import FormatError
from tilesseg.formats.ome_zarr import writer as writer_module
from tilesseg.formats.ome_zarr.writer import check_ome_zarr, write_ome_zarr, write_ome_zarr_scores
from tilesseg.formats.open import open_source
from tilesseg.formats.reading.open_options import Opening
from tilesseg.formats.writer import Mask, MaskClass, MaskLevel, Scores
from tilesseg.raster.grid import Grid
from tilesseg.raster.pyramid import HALVES, halve_mean, halve_mode
from tilesseg.raster.window import Window

RNG = np.random.default_rng(11)
CLASSES = (MaskClass("background", (10, 20, 30)), MaskClass("nucleus", (200, 100, 0)), MaskClass("other", (0, 0, 255)))
PROVENANCE = {"model": "m", "plan_fingerprint": "abc"}


def labels(*shape: int) -> np.ndarray:
    """Coarse patches with noise, 254 and 255 among them."""
    coarse = RNG.choice([0, 1, 2, 254, 255], tuple(-(-side // 7) for side in shape)).astype(np.uint8)
    fine = np.kron(coarse, np.ones((7, 7), np.uint8))[: shape[0], : shape[1]]
    return np.where(RNG.random(shape) < 0.2, RNG.integers(0, 3, shape), fine).astype(np.uint8)


def slide(height: int, width: int, mpp: float = 0.5, x: float = 0.0, y: float = 0.0) -> Grid:
    return Grid(height, width, (mpp, 0.0, x, 0.0, mpp, y), unit="micrometre", metres_per_unit=1e-6)


def mask_of(data: np.ndarray, grid: Grid | None = None, **more: Any) -> Mask:
    grid = grid or slide(*data.shape)
    return Mask(grid, lambda window: data[window.slices()], CLASSES, PROVENANCE, **more)


def image(path: Path, version: str = "0.5", shape: tuple[int, int] = (701, 903), levels: int = 3, **more: Any) -> Path:
    """An image (c, y, x) of two channels with floor-sized levels, placed as Bio-Formats does: no translation."""
    axes, lead = more.get("axes", "cyx"), more.get("lead", (2,))
    form = 2 if version == "0.4" else 3
    datasets = []
    for k in range(levels):
        scale = [1.0] * len(lead) + [0.25 * 2**k] * 2
        steps: list[dict[str, Any]] = [{"type": "scale", "scale": scale}]
        if more.get("translation"):
            steps.append({"type": "translation", "translation": [0.0] * len(lead) + list(more["translation"])})
        datasets.append({"path": f"s{k}", "coordinateTransformations": steps})
    kinds = {"c": "channel", "t": "time"}
    told = [{"name": n, "type": kinds.get(n, "space"), **({} if n in "ct" else {"unit": "micrometer"})} for n in axes]
    scales: dict[str, Any] = {"name": "image", "axes": told, "datasets": datasets}
    ome: dict[str, Any] = {"multiscales": [scales]}
    if version == "0.4":
        scales["version"] = "0.4"
    attributes = ome if version == "0.4" else {"ome": {"version": "0.5", **ome}}
    group = zarr.create_group(str(path), zarr_format=form, attributes=attributes)
    for k in range(levels):
        sides = (*lead, shape[0] >> k, shape[1] >> k)
        names = {"dimension_names": list(axes)}
        further = {"chunk_key_encoding": {"name": "v2", "separator": "/"}} if form == 2 else names
        chunks = (*(1 for _ in lead), 256, 256)
        made = group.create_array(f"s{k}", shape=sides, dtype="uint16", chunks=chunks, **further)
        made[...] = 7
    return path


def stored(path: Path, level: int | str) -> np.ndarray:
    return np.asarray(zarr.open_array(str(path / str(level)), mode="r")[...])


def attributes(path: Path) -> dict[str, Any]:
    found = zarr.open_group(str(path), mode="r", use_consolidated=False).attrs.asdict()
    return {**found, **found.get("ome", {})}


def places(path: Path) -> list[tuple[list[float], list[float]]]:
    found = []
    for dataset in attributes(path)["multiscales"][0]["datasets"]:
        scale, *moved = dataset["coordinateTransformations"]
        found.append((scale["scale"], moved[0]["translation"] if moved else []))
    return found


def hashes(folder: Path) -> dict[str, str]:
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def is_valid(path: Path, version: str) -> None:
    """By yaozarrs: its models, and its look at the files."""
    from yaozarrs import v04, v05, validate_zarr_store

    validate_zarr_store(str(path))
    if version == "0.5":
        v05.OMEZarrGroupJSON.model_validate_json((path / "zarr.json").read_text())
    else:
        told = json.loads((path / ".zattrs").read_text())
        (v04.LabelImage if "image-label" in told else v04.Image).model_validate(told)


def read_by_ome_zarr_py(path: Path) -> list[Any]:
    from ome_zarr.io import parse_url
    from ome_zarr.reader import Reader

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        location = parse_url(path)
        assert location is not None
        return list(Reader(location)())


def read_by_ngff_zarr(path: Path) -> Any:
    import ngff_zarr

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ngff_zarr.from_ngff_zarr(str(path), validate=False)


@pytest.mark.parametrize("overviews", ["mode", "nearest"])
@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_each_level_is_made_of_the_stored_level_before_it(tmp_path: Path, version: Any, overviews: Any) -> None:
    data = labels(701, 2503)
    path = tmp_path / "mask.ome.zarr"
    assert write_ome_zarr(mask_of(data), path, version=version, overviews=overviews) == (path,)
    np.testing.assert_array_equal(stored(path, 0), data)
    for level in range(1, 5):
        np.testing.assert_array_equal(stored(path, level), HALVES[overviews](stored(path, level - 1)))
    assert max(stored(path, 4).shape) <= 256 < max(stored(path, 3).shape)
    assert len(attributes(path)["multiscales"][0]["datasets"]) == 5
    assert [one.name for one in tmp_path.iterdir()] == ["mask.ome.zarr"]


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_other_peoples_readers_find_levels_scale_and_place(tmp_path: Path, version: Any) -> None:
    data = labels(600, 520)
    path = tmp_path / "mask.zarr"
    write_ome_zarr(mask_of(data, slide(600, 520, 0.499, x=100.0, y=30.0)), path, version=version)
    is_valid(path, version)
    (node, *_) = read_by_ome_zarr_py(path)
    assert [level.shape for level in node.data] == [(600, 520), (300, 260), (150, 130)]
    np.testing.assert_array_equal(np.asarray(node.data[0]), data)
    found = read_by_ngff_zarr(path)
    assert [one.data.shape for one in found.images] == [(600, 520), (300, 260), (150, 130)]
    for k, one in enumerate(found.images):
        assert one.scale == {"y": 0.499 * 2**k, "x": 0.499 * 2**k}
        assert one.axes_units == {"y": "micrometer", "x": "micrometer"}
        assert one.translation["x"] == 100.0 + (2**k - 1) / 2 * 0.499
        assert one.translation["y"] == 30.0 + (2**k - 1) / 2 * 0.499
        np.testing.assert_array_equal(np.asarray(one.data), stored(path, k))


def test_a_mask_of_larger_pixels_begins_at_the_images_corner(tmp_path: Path) -> None:
    grid, native = slide(300, 300, 1.0, x=8.0, y=4.0), slide(1200, 1200, 0.25, x=8.0, y=4.0)
    path = tmp_path / "mask.zarr"
    write_ome_zarr(mask_of(labels(300, 300), grid, image=native), path)
    assert places(path) == [([1.0, 1.0], [4.375, 8.375]), ([2.0, 2.0], [4.875, 8.875])]
    write_ome_zarr(mask_of(labels(300, 300), grid, image=native), path, resolution="image")
    assert places(path)[0] == ([0.25, 0.25], [4.0, 8.0])
    assert stored(path, 0).shape == (1200, 1200)


def test_a_grid_without_a_size_has_axes_without_unit(tmp_path: Path) -> None:
    path = tmp_path / "mask.zarr"
    write_ome_zarr(mask_of(labels(30, 40), Grid(30, 40)), path)
    is_valid(path, "0.5")
    assert attributes(path)["multiscales"][0]["axes"] == [{"name": n, "type": "space"} for n in "yx"]
    assert places(path) == [([1.0, 1.0], [0.0, 0.0])]


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_labels_have_names_and_colours_and_say_where_they_come_from(tmp_path: Path, version: Any) -> None:
    path = tmp_path / "mask.zarr"
    write_ome_zarr(mask_of(labels(30, 40)), path, version=version)
    told = attributes(path)
    colours = {one["label-value"]: one["rgba"] for one in told["image-label"]["colors"]}
    assert colours == {0: [10, 20, 30, 255], 1: [200, 100, 0, 255], 2: [0, 0, 255, 255], 254: [255, 0, 255, 255],
                       255: [0, 0, 0, 0]}  # fmt: skip
    names = {one["label-value"]: one["class"] for one in told["image-label"]["properties"]}
    assert names == {0: "background", 1: "nucleus", 2: "other", 254: "failed", 255: "nodata"}
    assert told["tilesseg_provenance"] == PROVENANCE
    assert "tilesseg" not in told


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_a_mask_on_the_earth_keeps_its_crs_and_transform(tmp_path: Path, version: Any) -> None:
    grid = Grid(700, 500, (10.0, 0.0, 5e5, 0.0, -10.0, 5.6e6), CRS.from_epsg(32632).to_wkt(), "metre", 1.0)
    data, path = labels(700, 500), tmp_path / "mask.zarr"
    write_ome_zarr(mask_of(data, grid), path, version=version)
    is_valid(path, version)
    assert places(path)[:2] == [([10.0, 10.0], [0.0, 0.0]), ([20.0, 20.0], [5.0, 5.0])]
    assert attributes(path)["multiscales"][0]["axes"][0] == {"name": "y", "type": "space", "unit": "meter"}
    source = open_source(str(path))
    grids = [replace(one.grid, crs=grid.crs) for one in (source, *source.levels, open_source(str(path / "1")))]
    assert grids == [grid, grid.coarsen(2), grid.coarsen(4), grid.coarsen(2)]
    assert CRS.from_wkt(str(source.grid.crs)) == CRS.from_epsg(32632)
    pixels = source.read(grid.window)
    np.testing.assert_array_equal(pixels.values[0], data)
    assert pixels.valid.all()


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_what_was_written_is_read_again_where_it_was(tmp_path: Path, version: Any) -> None:
    data, grid = np.zeros((5000, 300), np.uint8), slide(5000, 300, 0.499, x=7.0, y=3.0)
    data[:3, :] = 255  # whole chunks of one value, and of the fill value, are stored, too
    path = tmp_path / "mask.zarr"
    write_ome_zarr(mask_of(data, grid), path, version=version, threads=2)
    source = open_source(str(path))
    assert source.grid == grid
    pixels = source.read(grid.window)
    assert pixels.valid.all()
    np.testing.assert_array_equal(pixels.values[0], data)
    assert next(level.grid for level in source.levels) == grid.coarsen(2)


def test_stored_levels_are_copied_where_they_are_those_wanted(tmp_path: Path) -> None:
    data = labels(1000, 600)
    asked: list[int] = []

    def level(number: int, pixels: np.ndarray) -> MaskLevel:
        def read(window: Window) -> np.ndarray:
            asked.append(number)
            return pixels[window.slices()]

        return MaskLevel(pixels.shape, read)

    one = halve_mode(data)
    levels = (level(1, one), level(2, halve_mode(one)))
    path = tmp_path / "mask.zarr"
    write_ome_zarr(mask_of(data, levels=levels), path)
    assert set(asked) == {1, 2}
    asked.clear()
    write_ome_zarr(mask_of(data, levels=levels), path, overviews="nearest")
    assert not asked
    np.testing.assert_array_equal(stored(path, 1), data[::2, ::2])


def test_each_shard_is_written_once_and_windows_stay_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wide = np.zeros((2100, 9000), np.uint8)
    windows: list[Window] = []

    def read(window: Window) -> np.ndarray:
        windows.append(window)
        return wide[window.slices()]

    kept: list[tuple[str, tuple[Any, ...]]] = []
    setitem = zarr.Array.__setitem__

    def counted(self: Any, place: Any, value: Any) -> None:
        kept.append((self.path or str(self.store_path), tuple((one.start, one.stop) for one in place)))
        setitem(self, place, value)

    monkeypatch.setattr(zarr.Array, "__setitem__", counted)
    write_ome_zarr(replace(mask_of(wide), read=read), tmp_path / "mask.zarr", version="0.5")
    assert len(kept) == len(set(kept))
    assert max(window.area for window in windows) <= 2048 * 2048
    assert sum(window.area for window in windows) == wide.size
    array = zarr.open_array(str(tmp_path / "mask.zarr/0"))
    assert array.shards == (2048, 2048)
    for _, ((top, _), (left, _)) in kept:
        assert top % 2048 == left % 2048 == 0


def test_a_product_of_ours_is_replaced_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "mask.zarr"
    write_ome_zarr(mask_of(labels(300, 300)), path)
    again = labels(40, 40)
    write_ome_zarr(mask_of(again), path, version="0.4")
    np.testing.assert_array_equal(stored(path, 0), again)
    assert not (path / "zarr.json").exists()
    foreign = image(tmp_path / "image.zarr")
    before = hashes(foreign)
    for refuse in (check_ome_zarr, write_ome_zarr):
        with pytest.raises(FormatError, match="that tilesseg did not write lies there"):
            refuse(mask_of(again), foreign)
    assert hashes(foreign) == before


def test_a_writer_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "mask.zarr"
    write_ome_zarr(mask_of(labels(30, 30)), path)
    before = hashes(tmp_path)

    def read(window: Window) -> np.ndarray:
        raise OSError(28, "No space left on device")

    with pytest.raises(FormatError, match="No space left"):
        write_ome_zarr(replace(mask_of(labels(30, 30)), read=read), path)
    assert hashes(tmp_path) == before
    home = image(tmp_path / "image.zarr")
    before = hashes(tmp_path)
    with pytest.raises(FormatError, match="No space left"):
        write_ome_zarr(replace(mask_of(labels(701, 903)), read=read), home / "labels" / "n", beside="n")
    assert hashes(tmp_path) == before
    assert not (home / "labels").exists()


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_labels_beside_an_image_have_its_levels_and_change_nothing_else(tmp_path: Path, version: str) -> None:
    home = image(tmp_path / "image.zarr", version)
    before, data, identity = hashes(home), labels(701, 903), open_source(str(home)).identity()
    path = home / "labels" / "nuclei"
    mask = mask_of(data, slide(701, 903, 0.25))
    check_ome_zarr(mask, path, beside="nuclei", version=None)
    written = write_ome_zarr(mask, path, beside="nuclei")
    assert written == (path, home / "labels" / (".zattrs" if version == "0.4" else "zarr.json"))
    after = hashes(home)
    assert {name: after[name] for name in before} == before
    assert all(name.startswith("labels/") for name in set(after) - set(before))
    np.testing.assert_array_equal(stored(path, 0), data)
    assert [stored(path, k).shape for k in range(3)] == [(701, 903), (350, 451), (175, 225)]
    for k in (1, 2):
        below, here = stored(path, k - 1), stored(path, k)
        np.testing.assert_array_equal(here, halve_mode(below)[: here.shape[0], : here.shape[1]])
    assert places(path) == [([0.25 * 2**k] * 2, []) for k in range(3)]
    assert attributes(path)["image-label"]["source"] == {"image": "../../"}
    is_valid(path, version)
    is_valid(home, version)
    assert open_source(str(home)).identity() == identity


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_a_viewer_finds_the_labels_by_their_image(tmp_path: Path, version: str) -> None:
    home = image(tmp_path / "image.zarr", version)
    path = home / "labels" / "nuclei"
    data = labels(701, 903)
    write_ome_zarr(mask_of(data, slide(701, 903, 0.25)), path, beside="nuclei")
    write_ome_zarr(mask_of(data, slide(701, 903, 0.25)), path, beside="nuclei")  # replaced, listed once
    write_ome_zarr(mask_of(data, slide(701, 903, 0.25)), home / "labels" / "more", beside="more")
    assert attributes(home / "labels")["labels"] == ["nuclei", "more"]
    nodes = read_by_ome_zarr_py(home)
    found = {node.zarr.basename(): node for node in nodes}
    assert {"nuclei", "more"} <= set(found)
    assert found["nuclei"].metadata["color"][254] == [1.0, 0.0, 1.0, 1.0]
    np.testing.assert_array_equal(np.asarray(found["nuclei"].data[0]), data)
    assert len(read_by_ngff_zarr(home).images) == 3


def test_labels_of_larger_pixels_lie_on_the_image_by_their_own_scale(tmp_path: Path) -> None:
    home = image(tmp_path / "image.zarr", shape=(1400, 1400), translation=(3.0, 5.0))
    native = open_source(str(home)).native
    mask = mask_of(labels(350, 350), native.coarsen(4), image=native)
    path = home / "labels" / "coarse"
    write_ome_zarr(mask, path, beside="coarse")
    assert places(path) == [([1.0, 1.0], [3.375, 5.375]), ([2.0, 2.0], [3.875, 5.875])]
    write_ome_zarr(mask, path, beside="coarse", resolution="image")
    assert places(path) == [([0.25 * 2**k] * 2, [3.0, 5.0]) for k in range(3)]
    assert stored(path, 2).shape == (350, 350)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_labels_keep_the_images_axes_of_length_one(tmp_path: Path, version: str) -> None:
    home = image(tmp_path / "image.zarr", version, shape=(300, 310), axes="tczyx", lead=(1, 2, 1))
    data, path = labels(300, 310), home / "labels" / "n"
    write_ome_zarr(mask_of(data, slide(300, 310, 0.25)), path, beside="n")
    assert [one["name"] for one in attributes(path)["multiscales"][0]["axes"]] == ["t", "z", "y", "x"]
    assert stored(path, 0).shape == (1, 1, 300, 310)
    np.testing.assert_array_equal(stored(path, 0)[0, 0], data)
    is_valid(path, version)
    source = open_source(str(path))
    np.testing.assert_array_equal(source.read(source.grid.window).values[0], data)


@pytest.mark.parametrize(("factor", "third"), [(4, (43, 56)), (3, (77, 100))])
def test_levels_of_any_ratio_are_matched(tmp_path: Path, factor: int, third: tuple[int, int]) -> None:
    home = image(tmp_path / "image.zarr", shape=(701, 903), levels=1)
    told = json.loads((home / "zarr.json").read_text())
    datasets = told["attributes"]["ome"]["multiscales"][0]["datasets"]
    for k in (1, 2):
        side = [701 // factor**k, 903 // factor**k]
        made = zarr.create_array(str(home / f"s{k}"), shape=(2, *side), dtype="uint16", chunks=(1, 256, 256))
        made[...] = 7
        scale = {"type": "scale", "scale": [1.0, 0.25 * factor**k, 0.25 * factor**k]}
        datasets.append({"path": f"s{k}", "coordinateTransformations": [scale]})
    (home / "zarr.json").write_text(json.dumps(told))
    data, path = labels(701, 903), home / "labels" / "n"
    write_ome_zarr(mask_of(data, slide(701, 903, 0.25)), path, beside="n")
    assert stored(path, 2).shape == third
    height, width = stored(path, 1).shape
    if factor == 4:
        expected = halve_mode(halve_mode(data))[:height, :width]
    else:
        rows, columns = ((2 * np.arange(n) + 1) * full // (2 * n) for n, full in ((height, 701), (width, 903)))
        expected = data[rows[:, None], columns]
    np.testing.assert_array_equal(stored(path, 1), expected)


def test_consolidated_metadata_of_an_image_stay_as_they_are(tmp_path: Path) -> None:
    for version in ("0.4", "0.5"):
        home = image(tmp_path / f"{version}.zarr", version)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            zarr.consolidate_metadata(str(home))
        before = hashes(home)
        write_ome_zarr(mask_of(labels(701, 903), slide(701, 903, 0.25)), home / "labels" / "n", beside="n")
        after = hashes(home)
        assert {name: after[name] for name in before} == before
        assert zarr.open_group(str(home), mode="r")["s0"].shape == (2, 701, 903)
        assert "n" in {node.zarr.basename() for node in read_by_ome_zarr_py(home)}


def test_a_consolidated_list_of_labels_does_not_hide_the_new_ones(tmp_path: Path) -> None:
    home = image(tmp_path / "image.zarr")
    mask = mask_of(labels(701, 903), slide(701, 903, 0.25))
    write_ome_zarr(mask, home / "labels" / "one", beside="one")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        zarr.consolidate_metadata(str(home / "labels"))
    write_ome_zarr(mask, home / "labels" / "two", beside="two")
    assert sorted(zarr.open_group(str(home / "labels"), mode="r").group_keys()) == ["one", "two"]


Change = Callable[[Path], Any]


def no_ome(home: Path) -> None:
    shutil.rmtree(home)
    zarr.create_group(str(home))


@pytest.mark.parametrize(
    ("change", "options", "words"),
    [
        (no_ome, {}, "a group without multiscales"),
        (shutil.rmtree, {}, "no such Zarr"),
        (lambda home: None, {"version": "0.4"}, "is OME-Zarr 0.5, and version 0.4"),
        (lambda home: (home / "labels" / "n").mkdir(parents=True), {}, "that tilesseg did not write lies there"),
        (lambda home: zarr.create_group(str(home / "labels"), attributes={"ome": {"labels": 3}}), {}, "labels is 3"),
    ],
)
def test_what_takes_no_labels_is_refused_before_the_first_tile(
    tmp_path: Path, change: Change, options: dict[str, Any], words: str
) -> None:
    home = image(tmp_path / "image.zarr")
    change(home)
    mask = replace(mask_of(labels(701, 903), slide(701, 903, 0.25)), paths=(str(home),))
    for refuse in (check_ome_zarr, write_ome_zarr):
        with pytest.raises(FormatError, match=words) as caught:
            refuse(mask, home / "labels" / "n", beside="n", **options)
        assert "\n" not in str(caught.value)


def test_images_of_another_size_of_several_planes_and_remote_ones_are_refused(tmp_path: Path) -> None:
    home, mask = image(tmp_path / "image.zarr"), mask_of(labels(70, 90), slide(70, 90, 0.25))
    with pytest.raises(FormatError, match="has 701 × 903 pixels, and the mask is of an image of 70 × 90"):
        check_ome_zarr(mask, home / "labels" / "n", beside="n")
    stack = image(tmp_path / "stack.zarr", shape=(70, 90), axes="czyx", lead=(2, 5), levels=1)
    with pytest.raises(FormatError, match="z has a length of 5"):
        check_ome_zarr(mask, stack / "labels" / "n", beside="n")
    with pytest.raises(FormatError, match="not in the local file system"):
        check_ome_zarr(
            replace(mask, paths=("s3://bucket/image.zarr",)), Path("s3://bucket/image.zarr/labels/n"), beside="n"
        )
    with pytest.raises(FormatError, match="no place for labels"):
        check_ome_zarr(mask, home / "labels" / "..", beside="..")


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = image(tmp_path / "image.zarr")
    monkeypatch.setattr(os, "access", lambda folder, mode: False)
    with pytest.raises(FormatError, match="no write permission in"):
        check_ome_zarr(mask_of(labels(701, 903), slide(701, 903)), home / "labels" / "n", beside="n")
    with pytest.raises(FormatError, match="no write permission in"):
        check_ome_zarr(mask_of(labels(70, 90)), tmp_path / "mask.zarr", version="0.5")


def test_a_collection_says_which_image_takes_the_labels(tmp_path: Path) -> None:
    folder = tmp_path / "all.zarr"
    zarr.create_group(str(folder), zarr_format=2, attributes={"bioformats2raw.layout": 3})
    image(folder / "0", "0.4", shape=(70, 90))
    mask = mask_of(labels(70, 90), slide(70, 90, 0.25))
    with pytest.raises(
        FormatError, match=f"is a collection of images; give an image of it as the scene, as {folder / '0'}"
    ):
        check_ome_zarr(mask, folder / "labels" / "n", beside="n")
    check_ome_zarr(mask, folder / "0" / "labels" / "n", beside="n")


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_scores_are_an_image_with_a_channel_for_each_class(tmp_path: Path, version: Any) -> None:
    data = RNG.integers(0, 251, (3, 600, 530)).astype(np.uint8)
    data[:, :40] = 255
    data[1, 100:140] = 254
    scores = Scores(
        slide(600, 530, 1.0, x=2.0), lambda k, window: data[(k, *window.slices())], ("a", "b", "c"), PROVENANCE,
        image=slide(1200, 1060, 0.5, x=2.0),
    )  # fmt: skip
    path = tmp_path / "scores.zarr"
    check_ome_zarr(scores, path, version=version)
    assert write_ome_zarr_scores(scores, path, version=version) == (path,)
    is_valid(path, version)
    np.testing.assert_array_equal(stored(path, 0), data)
    for k in (1, 2):
        expected = np.stack([halve_mean(plane) for plane in stored(path, k - 1)])
        np.testing.assert_array_equal(stored(path, k), expected)
    assert places(path)[:2] == [([1.0, 1.0, 1.0], [0.0, 0.25, 2.25]), ([1.0, 2.0, 2.0], [0.0, 0.75, 2.75])]
    assert open_source(str(path)).bands == ("a", "b", "c")
    (node, *_) = read_by_ome_zarr_py(path)
    assert node.metadata["channel_names"] == ["a", "b", "c"]
    assert [one.data.shape for one in read_by_ngff_zarr(path).images] == [(3, 600, 530), (3, 300, 265), (3, 150, 133)]


def test_labels_are_written_beside_the_real_image_in_its_own_version(shared_data: Path, tmp_path: Path) -> None:
    home = tmp_path / "cardiomyocyte.zarr"
    shutil.copytree(shared_data / "microscopy/ome_zarr/cardiomyocyte_v04.zarr", home)
    for folder in (home, *home.rglob("*")):
        folder.chmod(0o755 if folder.is_dir() else 0o644)
    source = open_source(str(home), Opening())
    dapi = source.select([source.bands.index("DAPI")])
    pixels = dapi.read(dapi.grid.window)
    data = (pixels.values[0] > 300).astype(np.uint8)
    mask = Mask(dapi.grid, lambda w: data[w.slices()], CLASSES, PROVENANCE, image=dapi.native, paths=(str(home),))
    before, path = hashes(home), home / "labels" / "found"
    check_ome_zarr(mask, path, beside="found", version=None)
    write_ome_zarr(mask, path, beside="found")
    after = hashes(home)
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"labels/.zattrs"}
    assert {name for name in after if name not in before} == {n for n in after if n.startswith("labels/found/")}
    assert attributes(home / "labels")["labels"] == ["nuclei", "found"]
    told, own = attributes(path)["multiscales"][0], attributes(home)["multiscales"][0]
    assert told["axes"] == own["axes"][1:]
    for label, dataset in zip(told["datasets"], own["datasets"], strict=True):
        (scale,), (theirs,) = label["coordinateTransformations"], dataset["coordinateTransformations"]
        assert scale["scale"] == theirs["scale"][1:]
        assert stored(path, label["path"]).shape == stored(home, dataset["path"]).shape[1:]
    is_valid(path, "0.4")
    nodes = {node.zarr.basename(): node for node in read_by_ome_zarr_py(home)}
    np.testing.assert_array_equal(np.asarray(nodes["found"].data[0])[0], data)
    refused = home / "labels" / "nuclei"
    with pytest.raises(FormatError, match="that tilesseg did not write lies there"):
        check_ome_zarr(mask, refused, beside="nuclei")


def test_the_default_is_the_newer_version() -> None:
    assert writer_module.DEFAULT_VERSION == "0.5"
