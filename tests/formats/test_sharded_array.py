"""Laws of stored arrays: what we write other people's Zarr reads, and the other way round; damage is told."""

from __future__ import annotations

import os
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray

from tilesseg.errors import StoreError
from tilesseg.formats.zarr.sharded_array import Sharded
from tilesseg.raster.window import Window

SHAPES = [(1, 1), (40, 70), (64, 64), (65, 33), (200, 150)]


def random_bytes(shape: tuple[int, int]) -> NDArray[np.uint8]:
    values = np.random.default_rng(1).integers(0, 9, shape).astype(np.uint8)
    values[: shape[0] // 2, : shape[1] // 2] = 254
    return values


def stored(folder: Path, values: NDArray[np.uint8], planes: int = 0) -> Sharded:
    array = Sharded.create(
        folder,
        values.shape,
        shard=64,
        chunk=16,
        fill=254,
        planes=[planes] if planes else [],  # type: ignore[arg-type]
    )
    for plane in range(max(1, planes)):
        array.write(Window(0, 0, *values.shape), values, plane=(plane,) if planes else ())
    return array


@pytest.mark.parametrize("planes", [0, 2])
@pytest.mark.parametrize("shape", SHAPES)
def test_zarr_python_reads_what_we_write_and_we_read_what_it_writes(
    shape: tuple[int, int], planes: int, tmp_path: Path
) -> None:
    values = random_bytes(shape)
    array = stored(tmp_path / "a.zarr", values, planes)
    theirs = zarr.open_array(tmp_path / "a.zarr", mode="r+")
    np.testing.assert_array_equal(np.asarray(theirs[...]), np.broadcast_to(values, theirs.shape))
    theirs[...] = np.broadcast_to(253 - values, theirs.shape)
    found = Sharded.open(tmp_path / "a.zarr")
    assert found == array
    plane = (planes - 1,) if planes else ()
    np.testing.assert_array_equal(found.read(Window(0, 0, *shape), plane=plane), 253 - values)


def test_every_window_reads_as_the_same_pixels_of_the_whole(tmp_path: Path) -> None:
    values = random_bytes((200, 150))
    array, rng = stored(tmp_path / "a.zarr", values), np.random.default_rng(2)
    for _ in range(50):
        (y, y_stop), (x, x_stop) = (sorted(rng.integers(0, side + 1, 2)) for side in values.shape)
        window = Window.from_bounds(int(y), int(x), int(y_stop), int(x_stop))
        np.testing.assert_array_equal(array.read(window), values[window.slices()])


def test_what_is_all_fill_is_no_file(tmp_path: Path) -> None:
    values = random_bytes((200, 150))
    array = stored(tmp_path / "a.zarr", values)
    files = {path.relative_to(array.folder / "c").as_posix() for path in (array.folder / "c").glob("*/*")}
    assert files == {f"{y}/{x}" for y in range(4) for x in range(3)} - {"0/0"}


@pytest.mark.parametrize("read", [Window(0, 0, 200, 150), Window(70, 20, 90, 60), Window(9, 99, 1, 1)])
def test_blank_windows_read_as_fill_whatever_is_stored(tmp_path: Path, read: Window) -> None:
    values = random_bytes((200, 150))
    blank = (Window(64, 0, 64, 80), Window(90, 64, 30, 86))
    array = replace(stored(tmp_path / "a.zarr", values), blank=blank)
    for window in blank:
        values[window.slices()] = 254
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(array)).read(read), values[read.slices()])


@pytest.mark.parametrize("where", [0, -1, -10, None])
def test_a_damaged_shard_is_told_and_never_read_as_labels(where: int | None, tmp_path: Path) -> None:
    array = stored(tmp_path / "a.zarr", random_bytes((64, 64)))
    path = array.folder / "c" / "0" / "0"
    data = bytearray(path.read_bytes())
    if where is None:
        del data[len(data) // 2 :]
    else:
        data[where] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(StoreError, match=r"c/0/0: the shard is damaged \(.*\); have its tile done again"):
        array.read(Window(0, 0, 64, 64))


def test_a_shard_that_cannot_be_written_whole_leaves_the_one_that_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = random_bytes((64, 64))
    array = stored(tmp_path / "a.zarr", values)

    def fail(self: Path, data: bytes) -> int:
        with open(self, "wb") as file:
            file.write(data[: len(data) // 2])
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(OSError, match="No space"):
        array.write(Window(0, 0, 64, 64), 253 - values)
    np.testing.assert_array_equal(array.read(Window(0, 0, 64, 64)), values)
    assert [path.name for path in (array.folder / "c" / "0").iterdir()] == ["0"]
