"""OME-Zarr as a source: which image, which plane, where it lies, and what an absent chunk means."""

from __future__ import annotations

import json
import pickle
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, ShardingCodec, ZstdCodec

from tilesseg.errors import SourceError
from tilesseg.formats.detect import format_of
from tilesseg.formats.open import open_source
from tilesseg.formats.reading.image import Image
from tilesseg.formats.reading.open_options import Opening
from tilesseg.raster.grid import Grid
from tilesseg.raster.window import Window

RNG = np.random.default_rng(5)
KINDS = {"t": "time", "c": "channel", "z": "space", "y": "space", "x": "space"}
NAMES = ["DAPI", "", "GFP"]


def steps(scale: list[float], translation: list[float] | None = None) -> list[dict[str, Any]]:
    moved = [] if translation is None else [{"type": "translation", "translation": translation}]
    return [{"type": "scale", "scale": scale}, *moved]


def write(
    path: Path,
    data: list[np.ndarray],
    axes: str = "cyx",
    *,
    version: str = "0.5",
    unit: str | None = "micrometer",
    scale: float = 0.5,
    translation: tuple[float, float] | None = None,
    centred: bool = False,
    channels: list[str] | None = None,
    chunk: int = 32,
    more: dict[str, Any] | None = None,
    array: dict[str, Any] | None = None,
) -> str:
    """An image whose level k has pixels 2^k times as large."""
    datasets = []
    for k, _ in enumerate(data):
        lead = [1.0] * (len(axes) - 2)
        first = translation or (0.0, 0.0)
        moved = [at + ((2**k - 1) / 2 * scale if centred else 0) for at in first]
        told = [0.0] * len(lead) + moved if translation or centred else None
        datasets.append({"path": str(k), "coordinateTransformations": steps([*lead, *[scale * 2**k] * 2], told)})
    named = [{"name": n, "type": KINDS[n], **({"unit": unit} if unit and n in "zyx" else {})} for n in axes]
    ome: dict[str, Any] = {"multiscales": [{"name": "it", "axes": named, "datasets": datasets, **(more or {})}]}
    if channels is not None:
        ome["omero"] = {"channels": [{"label": name} for name in channels]}
    if version == "0.4":
        ome["multiscales"][0]["version"] = "0.4"
    form = 2 if version == "0.4" else 3
    attributes = ome if version == "0.4" else {"ome": {"version": "0.5", **ome}}
    group = zarr.create_group(str(path), zarr_format=form, attributes=attributes)
    for k, level in enumerate(data):
        chunks = tuple(min(chunk, n) if axis >= level.ndim - 2 else 1 for axis, n in enumerate(level.shape))
        made = group.create_array(
            str(k), shape=level.shape, dtype=level.dtype, **{"chunks": chunks, **(array or {})},
            config={"write_empty_chunks": True},
        )  # fmt: skip
        made[...] = level
    return str(path)


def noise(*shape: int, dtype: str = "uint16") -> np.ndarray:
    return RNG.integers(1, 200, shape).astype(dtype)


def opened(path: Any, **options: Any) -> Image:
    source = open_source(str(path), Opening(**options))
    assert isinstance(source, Image)
    return source


def refused(path: Any, words: str, **options: Any) -> None:
    with pytest.raises(SourceError, match=words) as caught:
        open_source(str(path), Opening(**options))
    assert "\n" not in str(caught.value)


def change(path: str, edit: Any) -> None:
    """Edit the attributes of a group of 0.5."""
    file = Path(path) / "zarr.json"
    told = json.loads(file.read_text())
    edit(told["attributes"]["ome"])
    file.write_text(json.dumps(told))


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("axes", ["yx", "cyx", "zyx", "tyx", "czyx", "tcyx", "tzyx", "tczyx"])
def test_any_legal_set_of_axes_gives_the_plane_that_is_asked_for(tmp_path: Path, axes: str, version: str) -> None:
    lengths = {"t": 2, "c": 3, "z": 4, "y": 70, "x": 50}
    data = noise(*(lengths[axis] for axis in axes))
    path = write(tmp_path / "a.zarr", [data], axes, version=version)
    chosen = {axis: lengths[axis] - 1 for axis in "tz" if axis in axes}
    expected = data[tuple(chosen.get(axis, slice(None)) for axis in axes)].reshape(-1, 70, 50)
    source = opened(path, **chosen)
    pixels = source.read(source.grid.window)
    np.testing.assert_array_equal(pixels.values, expected)
    assert pixels.valid.all()
    for axis in chosen:
        rest = {key: value for key, value in chosen.items() if key != axis}
        refused(path, f"{axis} has a length of {lengths[axis]}", **rest)
        refused(path, f"{axis} 9 is requested, the image has 0 to {lengths[axis] - 1}", **{**rest, axis: 9})
    again = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(again.read(Window(3, 4, 20, 10)).values, expected[:, 3:23, 4:14])


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_bands_are_the_channels_by_their_labels(tmp_path: Path, version: str) -> None:
    data = noise(3, 40, 50)
    source = opened(write(tmp_path / "a.zarr", [data], channels=NAMES, version=version))
    assert source.bands == ("DAPI", None, "GFP")
    np.testing.assert_array_equal(source.select([2, 0]).read(source.grid.window).values, data[[2, 0]])
    other = opened(write(tmp_path / "b.zarr", [data], channels=["one"], version=version))
    assert other.bands == (None,) * 3
    assert "omero names 1 channels, the image has 3" in other.describe()["notes"][0]


def test_places_are_in_micrometres_and_levels_share_the_corner(tmp_path: Path) -> None:
    data = [noise(81, 103), noise(41, 52), noise(20, 26)]
    for name, centred in (("plain", False), ("centred", True)):
        path = write(
            tmp_path / f"{name}.zarr", data, "yx", unit="millimeter", scale=0.0005, translation=(0.02, 0.01),
            centred=centred,
        )  # fmt: skip
        source = opened(path)
        assert source.grid == Grid(81, 103, (0.5, 0.0, 10.0, 0.0, 0.5, 20.0), None, "micrometre", 1e-6)
        assert source.native == source.grid
        assert [level.grid.resolution for level in source.levels] == [(1.0, 1.0), (2.0, 2.0)]
        assert [level.grid.shape for level in source.levels] == [(41, 52), (20, 26)]
        assert {level.grid.to_world(0, 0) for level in source.levels} == {(10.0, 20.0)}
        assert source.describe()["notes"] == []
    coarse = opened(path, level=1)
    assert coarse.grid == source.levels[0].grid
    assert coarse.native == source.grid
    assert [level.grid for level in coarse.levels] == [source.levels[1].grid]
    np.testing.assert_array_equal(coarse.read(coarse.grid.window).values[0], data[1])
    refused(path, "level 3 is requested, the image has 0 to 2", level=3)


def test_transformations_of_all_levels_come_after_those_of_one(tmp_path: Path) -> None:
    more = {"coordinateTransformations": steps([2.0, 4.0], [1.0, 3.0])}
    source = opened(write(tmp_path / "a.zarr", [noise(30, 40)], "yx", more=more, translation=(10.0, 20.0)))
    assert source.grid.transform == (2.0, 0.0, 83.0, 0.0, 1.0, 21.0)


def test_a_level_that_lies_elsewhere_or_is_of_another_size_is_told(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zarr", [noise(80, 100), noise(40, 50), noise(20, 25)], "yx")

    def edit(ome: Any) -> None:
        ome["multiscales"][0]["datasets"][1]["coordinateTransformations"] = steps([1.0, 1.0], [0.0, 2.0])
        ome["multiscales"][0]["datasets"][2]["coordinateTransformations"] = steps([4.0, 4.0])

    change(path, edit)
    source = opened(path)
    assert "level 2 is left out: 20 × 25 pixels, and by its scale 10 × 12.5" in source.describe()["notes"]
    displaced = opened(path, level=1).describe()["notes"][0]
    assert displaced.startswith("level 1 is 1.75 of its pixels away from the finest one")


def test_without_a_unit_pixels_are_the_unit_and_that_is_said(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zarr", [noise(30, 40), noise(15, 20)], "yx", unit=None, translation=(1.0, 2.0))
    source = opened(path)
    assert source.grid == Grid(30, 40, (1.0, 0.0, 4.0, 0.0, 1.0, 2.0))
    assert source.levels[0].grid == Grid(15, 20, (2.0, 0.0, 4.0, 0.0, 2.0, 2.0))
    assert source.describe()["notes"] == [
        "axes y and x have no unit of length (none): the scale of 0.5 is not taken as a size"
    ]
    sized = open_source(path, Opening(mpp=0.25))
    assert sized.grid == Grid(30, 40, (0.25, 0.0, 1.0, 0.0, 0.25, 0.5), None, "micrometre", 1e-6)


def test_scale_and_offset_of_the_opening_apply_on_every_level(tmp_path: Path) -> None:
    data = [noise(2, 40, 50), noise(2, 20, 25)]
    source = opened(write(tmp_path / "a.zarr", data), scale=0.5, offset=3.0)
    for one, values in zip((source, *source.levels), data, strict=True):
        np.testing.assert_array_equal(one.read(one.grid.window).values, (values * 0.5 + 3).astype(np.float32))


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_pixels_of_an_absent_chunk_are_nodata_where_asked_and_no_others(tmp_path: Path, version: str) -> None:
    data = noise(2, 70, 90)
    path = write(tmp_path / "a.zarr", [data], version=version)
    array = zarr.open_array(f"{path}/0", mode="r")
    (Path(path) / "0" / array.metadata.encode_chunk_key((1, 1, 0))).unlink()
    source = opened(path, missing="nodata")
    hole = np.zeros((70, 90), bool)
    hole[32:64, :32] = True
    for bands, expected in (([0, 1], ~hole), ([1], ~hole), ([0], np.ones_like(hole))):
        pixels = source.select(bands).read(source.grid.window)
        np.testing.assert_array_equal(pixels.valid, expected)
        np.testing.assert_array_equal(pixels.values[:, pixels.valid], data[bands][:, pixels.valid])
    window = Window(20, 10, 30, 40)
    np.testing.assert_array_equal(source.read(window).valid, ~hole[window.slices()])


def test_an_absent_chunk_of_another_plane_is_not_minded(tmp_path: Path) -> None:
    data = noise(2, 5, 40, 50)
    path = write(tmp_path / "a.zarr", [data], "tzyx", array={"chunks": (1, 2, 40, 50)})
    (Path(path) / "0/c/1/1/0/0").unlink()
    for t, z in ((0, 0), (0, 3), (1, 1), (1, 4)):
        pixels = opened(path, t=t, z=z, missing="nodata").read(Window(0, 0, 40, 50))
        assert pixels.valid.all()
        np.testing.assert_array_equal(pixels.values[0], data[t, z])
    for z in (2, 3):
        assert not opened(path, t=1, z=z, missing="nodata").read(Window(0, 0, 40, 50)).valid.any()


def test_channels_in_one_chunk_are_absent_together(tmp_path: Path) -> None:
    data = noise(3, 70, 90)
    path = write(tmp_path / "a.zarr", [data], array={"chunks": (2, 32, 32)})
    (Path(path) / "0/c/0/0/0").unlink()
    source = opened(path, missing="nodata")
    assert not source.select([0]).read(Window(0, 0, 32, 32)).valid.any()
    assert not source.select([1]).read(Window(0, 0, 32, 32)).valid.any()
    pixels = source.select([2]).read(source.grid.window)
    assert pixels.valid.all()
    np.testing.assert_array_equal(pixels.values[0], data[2])


def test_a_chunk_absent_in_a_shard_is_nodata_where_asked(tmp_path: Path) -> None:
    for where in ("start", "end"):
        folder = tmp_path / where
        path = write(folder, [noise(100, 130)], "yx")
        shutil.rmtree(f"{path}/0")
        sharding = ShardingCodec(
            chunk_shape=(32, 32), codecs=[BytesCodec(), ZstdCodec()], index_location=where,
            index_codecs=[BytesCodec(), Crc32cCodec()],
        )  # fmt: skip
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            array = zarr.create(
                store=f"{path}/0", shape=(100, 130), chunks=(64, 64), dtype="uint16", codecs=[sharding], fill_value=0,
                zarr_format=3,
            )  # fmt: skip
        array[:32, :32] = 5  # one chunk of a shard of four
        array[64:, 64:128] = 6  # a whole shard
        source = opened(path, missing="nodata")
        expected = np.zeros((100, 130), bool)
        expected[:32, :32] = expected[64:100, 64:128] = True
        np.testing.assert_array_equal(source.read(source.grid.window).valid, expected)


def test_an_image_without_any_chunk_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zarr", [noise(70, 90), noise(35, 45)], "yx")
    shutil.rmtree(f"{path}/1/c")
    source = opened(path)
    assert source.levels == ()
    assert "level 1 is left out" in source.describe()["notes"][0]
    shutil.rmtree(f"{path}/0/c")
    refused(path, "0 of its 9 chunks are stored")


def test_a_damaged_chunk_is_an_error_and_never_pixels(tmp_path: Path) -> None:
    for version in ("0.4", "0.5"):
        path = write(tmp_path / f"{version}.zarr", [noise(70, 90)], "yx", version=version)
        array = zarr.open_array(f"{path}/0", mode="r")
        file = Path(path) / "0" / array.metadata.encode_chunk_key((0, 1))
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
        source = opened(path)
        assert source.read(Window(32, 0, 30, 90)).valid.all()
        with pytest.raises(SourceError, match="cannot read rows 0–9"):
            source.read(Window(0, 0, 10, 90))


@pytest.mark.parametrize("left", [0, 9, 16, 1000, -1])
@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_a_chunk_by_blosc_that_ends_early_is_refused_before_it_is_undone(
    tmp_path: Path, version: str, left: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    blosc = {"compressors": BloscCodec(cname="lz4")} if version == "0.5" else {}  # of 0.4 it is what zarr takes
    data = noise(70, 90)
    path = write(tmp_path / "a.zarr", [data], "yx", version=version, array=blosc)
    source, array = opened(path), zarr.open_array(f"{path}/0", mode="r")
    np.testing.assert_array_equal(source.read(source.grid.window).values[0], data)
    file = Path(path) / "0" / array.metadata.encode_chunk_key((0, 1))
    file.write_bytes(file.read_bytes()[:left])
    monkeypatch.setattr(zarr.Array, "__getitem__", lambda *_: pytest.fail("it was undone"))
    with pytest.raises(SourceError, match=rf"cannot read rows 0–9.*{file.name} has \d+ bytes of the \d+ of its chunk"):
        opened(path).read(Window(0, 0, 10, 90))


def test_a_fill_value_among_the_attributes_is_nodata(tmp_path: Path) -> None:
    data = noise(40, 50)
    data[:3] = 65535
    path = write(tmp_path / "a.zarr", [data], "yx", array={"attributes": {"_FillValue": 65535}})
    source = opened(path)
    np.testing.assert_array_equal(source.read(source.grid.window).valid, data != 65535)


def test_identity_is_the_metadata_of_what_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zarr", [noise(40, 50), noise(20, 25)], "yx")
    source = opened(path)
    assert set(source.identity()) == {f"{path}/zarr.json", f"{path}/0/zarr.json"}
    assert all(source.identity().values())
    assert source.describe()["files"][0]["mask"] == "all pixels valid"
    assert opened(path, missing="nodata").describe()["files"][0]["mask"] == "chunks that are not stored"


def test_one_of_several_images_is_chosen_by_number_or_name(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zarr", [noise(40, 50), noise(20, 25)], "yx")

    def edit(ome: Any) -> None:
        only = ome["multiscales"][0]
        second = {**only, "name": "small", "datasets": only["datasets"][1:]}
        ome["multiscales"].append(second)

    change(path, edit)
    assert opened(path).describe()["notes"] == [
        "the first of 2 multiscales is read: it, small; series chooses another one"
    ]
    assert opened(path, series="small").grid.shape == opened(path, series=1).grid.shape == (20, 25)
    refused(path, "series 2 is requested, the image has 0 to 1", series=2)
    refused(path, "series large is requested, the image has it, small", series="large")


@pytest.mark.parametrize("listed", [False, True])
@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_an_image_of_a_collection_has_to_be_chosen(tmp_path: Path, version: str, listed: bool) -> None:
    folder, form = tmp_path / "all.zarr", 2 if version == "0.4" else 3

    def told(**facts: Any) -> dict[str, Any]:
        return facts if version == "0.4" else {"ome": {"version": "0.5", **facts}}

    zarr.create_group(str(folder), zarr_format=form, attributes=told(**{"bioformats2raw.layout": 3}))
    refused(folder, "a collection by bioformats2raw without an image")
    for k in (0, 1, 10):
        write(folder / str(k), [noise(40 + k, 50)], "yx", version=version, more={"name": f"scene {k}"})
    if listed:
        zarr.create_group(str(folder / "OME"), zarr_format=form, attributes=told(series=["1", "10"]))
        refused(folder, r"2 images, of which 1 is read; give series, one of 1 \(scene 1\), 10 \(scene 10\)")
        assert opened(folder, series=0).grid.height == 41
    else:
        refused(folder, r"3 images, of which 1 is read; .* one of 0 \(scene 0\), 1 \(scene 1\), 10 \(scene 10\)")
        assert opened(folder, series=2).grid.height == 50
    assert opened(folder, series="scene 10").grid.height == opened(folder, series="10").grid.height == 50
    assert opened(folder / "1").grid.height == 41


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_plates_wells_and_labels_are_refused_with_their_images(tmp_path: Path, version: str) -> None:
    form = 2 if version == "0.4" else 3

    def group(path: Path, **facts: Any) -> Path:
        attributes = facts if version == "0.4" else {"ome": {"version": "0.5", **facts}}
        zarr.create_group(str(path), zarr_format=form, attributes=attributes)
        return path

    plate = group(tmp_path / "p.zarr", plate={"wells": [{"path": "B/03"}, {"path": "B/04"}]})
    well = group(plate / "B/03", well={"images": [{"path": "0"}, {"path": "1"}]})
    labels = group(plate / "B/03/0/labels", labels=["nuclei"])
    refused(plate, f"a plate, not an image; open one of its 2: {plate}/B/03/0, {plate}/B/03/1")
    refused(well, f"a well, not an image; open one of its 2: {well}/0, {well}/1")
    refused(labels, f"a group of labels, not an image; open one of its 1: {labels}/nuclei")


def test_a_level_alone_still_opens_as_a_zarr(tmp_path: Path) -> None:
    data = noise(2, 40, 50)
    path = write(tmp_path / "a.zarr", [data])
    assert format_of(path) == "ome-zarr"
    assert format_of(f"{path}/0") == "zarr"
    source = opened(f"{path}/0")
    np.testing.assert_array_equal(source.read(source.grid.window).values, data)


def set_version(ome: Any) -> None:
    ome["version"] = "0.6"


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (set_version, "OME-Zarr version 0.6, not 0.4 or 0.5"),
        (lambda ome: ome.update(multiscales=[]), "its multiscales are empty"),
        (lambda ome: ome.update(multiscales=["a"]), "'a' where an image is expected"),
        (lambda ome: ome["multiscales"][0].update(datasets=[]), "its datasets are empty"),
        (
            lambda ome: ome["multiscales"][0].update(axes=["y", "x"]),
            r"axes \['y', 'x'\], not a list of axes",
        ),
        (lambda ome: ome["multiscales"][0]["axes"][0].update(name="v"), "axes v, x, not y and x and at most one each"),
        (
            lambda ome: ome["multiscales"][0]["axes"].append({"name": "z", "type": "space"}),
            "not 3 finite numbers",
        ),
        (lambda ome: ome["multiscales"][0]["datasets"][0].update(path="gone"), "no such Zarr"),
        (lambda ome: ome["multiscales"][0]["datasets"][0].update(path="."), "a group, not an array"),
        (
            lambda ome: ome["multiscales"][0]["datasets"][0].update(coordinateTransformations=steps([0.0, 1.0])),
            "not 2 finite numbers above 0",
        ),
        (
            lambda ome: ome["multiscales"][0]["datasets"][0].update(coordinateTransformations=[{"type": "affine"}]),
            "a transformation affine",
        ),
    ],
)
def test_metadata_that_cannot_be_understood_are_refused(tmp_path: Path, edit: Any, words: str) -> None:
    path = write(tmp_path / "a.zarr", [noise(40, 50)], "yx")
    change(path, edit)
    refused(path, words)


def test_values_that_cannot_be_segmented_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zarr", [np.zeros((40, 50), np.complex64)], "yx")
    refused(path, "data type complex64")
    refused(write(tmp_path / "b.zarr", [noise(40, 50)], "yx"), "scale is inf", scale=np.inf)


def test_pixels_and_names_are_those_that_ome_zarr_py_reads(tmp_path: Path) -> None:
    from ome_zarr.io import parse_url
    from ome_zarr.reader import Reader

    data = [noise(3, 80, 100), noise(3, 40, 50)]
    for version in ("0.4", "0.5"):
        path = write(tmp_path / f"{version}.zarr", data, version=version, channels=["a", "b", "c"], centred=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            location = parse_url(path)
            assert location is not None
            (node, *_) = list(Reader(location)())
        source = opened(path)
        for one, theirs in zip((source, *source.levels), node.data, strict=True):
            np.testing.assert_array_equal(one.read(one.grid.window).values, np.asarray(theirs))
        assert list(source.bands) == node.metadata["channel_names"]


def test_real_and_hostile_stores(shared_data: Path) -> None:
    real = shared_data / "microscopy/ome_zarr/cardiomyocyte_v04.zarr"
    source = opened(real)
    assert source.bands == ("DAPI", "nanog", "Lamin B1")
    assert source.grid == Grid(1080, 1280, (0.65, 0.0, 0.0, 0.0, 0.65, 0.0), None, "micrometre", 1e-6)
    assert [level.grid.resolution for level in source.levels] == [(1.3, 1.3), (2.6, 2.6)]
    expected = zarr.open_array(str(real / "1"), mode="r")[0, 0]
    pixels = source.select([0]).read(source.grid.window)
    assert pixels.valid.all()
    np.testing.assert_array_equal(pixels.values[0], expected)
    for name in ("fmt2d_v04.zarr", "fmt2d_v05.zarr"):
        assert opened(shared_data / "microscopy/ome_zarr" / name).grid == Grid(64, 64)
    refused(shared_data / "hostile/zarr/image-02.zarr", "its multiscales are empty")
    refused(shared_data / "hostile/zarr/cardiomyocyte_level0_missing.zarr", "0 of its 3 chunks are stored")
