"""Absent is not zero, and zero is not absent: chunks that a Zarr does not store are its fill value, or what is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray

from tilesseg.doubts import code_of
from tilesseg.errors import SourceError
from tilesseg.formats.open import open_source
from tilesseg.formats.reading.open_options import Opening

SHAPE = 70, 90
STORED = np.s_[:, 32:64, :40]
"""Where the image is not the fill value: 2 of its 9 chunks of 32²."""


def write(
    path: Path, *, kind: str, dense: bool, fill: Any = 0, value: Any = None, dtype: str = "uint16", **attributes: Any
) -> str:
    """An image of two channels; `value` is that of the pixels of absent chunks, `fill` in the metadata."""
    values = np.full((2, *SHAPE), (fill or 0) if value is None else value, dtype)
    values[STORED] = np.random.default_rng(4).integers(1, 200, values[STORED].shape)
    version = 2 if kind.endswith("2") else 3
    ome: dict[str, Any] = {}
    if kind.startswith("ome"):
        axes = [{"name": "c", "type": "channel"}, {"name": "y", "type": "space"}, {"name": "x", "type": "space"}]
        steps = [{"type": "scale", "scale": [1.0, 1.0, 1.0]}]
        number = "0.4" if version == 2 else "0.5"
        images = [{"axes": axes, "version": number, "datasets": [{"path": "0", "coordinateTransformations": steps}]}]
        ome = {"multiscales": images} if version == 2 else {"ome": {"version": number, "multiscales": images}}
    group = zarr.create_group(str(path), zarr_format=version, attributes=ome)
    chunks = (2, 32, 32) if "together" in kind else (1, 32, 32)
    shards = {"shards": (1, 64, 64)} if "shards" in kind else {}
    array = group.create_array(
        "0" if ome else "image", shape=values.shape, dtype=dtype, chunks=chunks, fill_value=fill, **shards,
        config={"write_empty_chunks": dense}, attributes=attributes,
    )  # fmt: skip
    array[...] = values
    return str(path)


def pixels(path: str, **options: Any) -> tuple[NDArray[Any], NDArray[np.bool_], NDArray[np.float64], list[str]]:
    source = open_source(path, Opening(**options))
    read = source.read(source.grid.window)
    return read.values, read.valid, source.sample(), source.describe()["notes"]


KINDS = ["ome 3", "ome 2", "ome together 3", "ome shards 3", "plain 3", "plain 2", "plain together 3", "plain shards 3"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("fill", "dtype", "attributes"), [
    (0, "uint16", {}), (7, "uint8", {}), (np.nan, "float32", {}), (0, "uint16", {"_FillValue": 0}),
    (65535, "uint16", {"missing_value": 65535}), (0, "uint16", {"nodata": 5}),
])  # fmt: skip
def test_a_sparse_store_is_read_as_the_dense_store_of_equal_pixels(
    tmp_path: Path, kind: str, fill: Any, dtype: str, attributes: dict[str, Any]
) -> None:
    how = {"kind": kind, "fill": fill, "dtype": dtype, **attributes}
    dense = pixels(write(tmp_path / "dense.zarr", dense=True, **how))
    sparse = pixels(write(tmp_path / "sparse.zarr", dense=False, **how))
    for one, other in zip(dense[:3], sparse[:3], strict=True):
        np.testing.assert_array_equal(one, other)
    nodata = attributes.get("_FillValue", attributes.get("missing_value", attributes.get("nodata", np.nan)))
    declared = np.array_equal(fill, nodata, equal_nan=True)
    expected = np.zeros(SHAPE, bool)
    expected[STORED[1:]] = True
    np.testing.assert_array_equal(sparse[1], expected if declared else np.ones(SHAPE, bool))
    (note,) = [note for note in sparse[3] if "chunks are not stored" in note]
    assert note.startswith("77.8 % of the chunks are not stored: their pixels have the fill value ")
    assert code_of(note) == (None if declared else "absent-chunks")
    assert not any("not stored" in note for note in dense[3])


@pytest.mark.parametrize("kind", ["ome 2", "plain 2"])
def test_chunks_of_an_array_without_a_fill_value_are_zeros_with_a_note(tmp_path: Path, kind: str) -> None:
    """GDAL and zarr-python write arrays like that, and read what they left out as zeros."""
    how = {"kind": kind, "fill": None, "value": 0}
    dense, path = (
        pixels(write(tmp_path / "dense.zarr", dense=True, **how)),
        write(tmp_path / "a.zarr", dense=True, **how),
    )
    for file in Path(path).rglob("0.0.0"):
        file.unlink()
    for file in Path(path).rglob("0/0/0"):
        file.unlink()
    values, valid, sample, notes = pixels(path)
    np.testing.assert_array_equal(values, dense[0])
    np.testing.assert_array_equal(sample, dense[2])
    assert valid.all()
    assert any("the metadata give no fill value: their pixels are 0" in note for note in notes)


@pytest.mark.parametrize("kind", KINDS)
def test_absent_chunks_are_nodata_where_the_user_says_so(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path / "a.zarr", kind=kind, dense=False)
    values, valid, sample, notes = pixels(path, missing="nodata")
    expected = np.zeros(SHAPE, bool)
    expected[32:64, :64] = True
    np.testing.assert_array_equal(valid, expected)
    np.testing.assert_array_equal(np.sort(sample), np.sort(values[:, expected]))
    assert "77.8 % of the chunks are not stored: their pixels are nodata, as input.missing says" in notes
    assert "chunks that are not stored" in open_source(path, Opening(missing="nodata")).describe()["files"][0]["mask"]


def test_absent_chunks_are_the_fill_value_where_the_user_says_so_and_that_is_no_doubt(tmp_path: Path) -> None:
    _, valid, _, notes = pixels(write(tmp_path / "a.zarr", kind="ome 3", dense=False), missing="fill")
    assert valid.all() and not any(map(code_of, notes))


@pytest.mark.parametrize("channel", [0, 1])
@pytest.mark.parametrize("kind", ["ome 3", "plain 3", "ome together 3", "plain together 3"])
def test_the_share_and_the_mask_are_of_the_selected_bands(tmp_path: Path, kind: str, channel: int) -> None:
    path = write(tmp_path / "a.zarr", kind=kind, dense=True)
    (file,) = Path(path).rglob("c/1/0/0" if "together" not in kind else "c/0/0/0")
    file.unlink()
    source = open_source(path, Opening(missing="nodata")).select([channel])
    hit = channel == 1 or "together" in kind
    assert source.read(source.grid.window).valid[:32, :32].all() != hit
    assert source.read(source.grid.window).valid[32:].all()
    assert any("11.1 % of the chunks" in note for note in source.describe()["notes"]) == hit


@pytest.mark.parametrize("kind", ["ome 3", "plain 2"])
def test_a_store_without_any_chunk_is_refused_unless_that_is_said_to_be_its_fill_value(
    tmp_path: Path, kind: str
) -> None:
    path = write(tmp_path / "a.zarr", kind=kind, dense=True)
    for file in [*Path(path).rglob("c/*/*/*"), *Path(path).rglob("?.?.?")]:
        file.unlink()
    with pytest.raises(SourceError, match=r"0 of its 18 chunks are stored; .* \(--missing fill\)"):
        open_source(path)
    assert pixels(path, missing="fill")[1].all()
    assert not pixels(path, missing="nodata")[1].any()


def test_the_option_is_refused_where_no_chunk_can_be_absent(tmp_path: Path) -> None:
    from fakes import write_scene

    path = write_scene(tmp_path / "a.tif", np.ones((1, 8, 8), np.uint8))
    with pytest.raises(SourceError, match="only a Zarr leaves out chunks; leave missing out"):
        open_source(str(path), Opening(missing="fill"))


def test_the_sparse_store_of_a_microscope_is_read_as_its_pixels_say(shared_data: Path) -> None:
    case = shared_data.parent / "cases" / "micro" / "sparse.ome.zarr"
    if not case.exists():
        pytest.skip("the cases of the customer are not beside the checkout")
    values, valid, _, notes = pixels(str(case))
    np.testing.assert_array_equal(values[0], zarr.open_array(str(case / "0"), mode="r")[...])
    assert valid.all() and any("87.5 % of the chunks are not stored" in note for note in notes)
