"""A result is under its name whole or not at all, whoever else writes it at the same time."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import zarr
from numpy.typing import NDArray

from tilesseg.atomic_write import published, scratch_folder
from tilesseg.formats.geotiff.writer import utm_grid, write_image
from tilesseg.formats.ome_zarr import write_ome_zarr
from tilesseg.formats.writer import Mask
from tilesseg.raster.grid import Grid
from tilesseg.raster.window import Window

PARTS = 50


def write_slowly(text: str, barrier: Any, *, target: Path, folder: bool, rounds: int) -> None:
    """Write a result in parts, all writers at the same time."""
    for _ in range(rounds):
        with published(target, folder=folder) as temporary:
            if folder:
                temporary.mkdir()
            for number in range(PARTS):
                if number % 20 == 0:
                    barrier.wait(30)
                with (temporary / str(number) if folder else temporary).open("a") as file:
                    file.write(text)


def content(target: Path) -> set[str]:
    """Texts of a result, of which a whole one has `PARTS` times the same."""
    if target.is_dir():
        return {"".join(sorted((target / str(number)).read_text() for number in range(PARTS)))}
    return {target.read_text()}


def as_threads(work: Callable[[str, Any], None]) -> None:
    barrier = threading.Barrier(2)
    problems: list[BaseException] = []

    def guarded(text: str) -> None:
        try:
            work(text, barrier)
        except BaseException as error:
            problems.append(error)
            barrier.abort()

    threads = [threading.Thread(target=guarded, args=(text,)) for text in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems


def as_processes(work: Callable[[str, Any], None]) -> None:
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(2)
    processes = [context.Process(target=work, args=(text, barrier)) for text in "ab"]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]


@pytest.mark.parametrize("folder", [False, True], ids=["file", "folder"])
@pytest.mark.parametrize("run", [as_threads, as_processes])
def test_two_who_write_one_target_never_meet_in_one_temporary_path(run: Any, folder: bool, tmp_path: Path) -> None:
    target = tmp_path / "result"
    run(partial(write_slowly, target=target, folder=folder, rounds=20))
    assert content(target) <= {"a" * PARTS, "b" * PARTS}
    assert [path.name for path in tmp_path.iterdir()] == ["result"]


def test_a_reader_finds_a_whole_file_at_any_moment(tmp_path: Path) -> None:
    target = tmp_path / "result"
    target.write_text("a" * PARTS)
    writer = threading.Thread(
        target=write_slowly,
        args=("b", threading.Barrier(1)),
        kwargs={"target": target, "folder": False, "rounds": 50},
    )
    writer.start()
    while writer.is_alive():
        assert target.read_text() in ("a" * PARTS, "b" * PARTS)
    writer.join()
    assert target.read_text() == "b" * PARTS


@pytest.mark.parametrize("folder", [False, True], ids=["file", "folder"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("before", [False, True], ids=["first", "again"])
def test_of_a_failure_nothing_is_left_and_the_old_result_stays(
    error: BaseException, folder: bool, before: bool, tmp_path: Path
) -> None:
    target = tmp_path / "result"
    if before:
        write_slowly("a", threading.Barrier(1), target=target, folder=folder, rounds=1)
    with pytest.raises(type(error)), published(target, folder=folder) as temporary:
        temporary.mkdir() if folder else temporary.write_text("half")
        raise error
    assert list(tmp_path.iterdir()) == ([target] if before else [])
    assert not before or content(target) == {"a" * PARTS}


def test_an_existing_folder_can_be_left_as_it_is(tmp_path: Path) -> None:
    """Of two processes that make one store, the second must not replace what the first has filled meanwhile."""
    target = tmp_path / "result"
    with pytest.raises(OSError, match="not empty"), published(target, folder=True, replace=False) as temporary:
        temporary.mkdir()
        (temporary / "0").write_text("b")
        as_threads(lambda _, barrier: write_slowly("a", barrier, target=target, folder=True, rounds=1))
    assert content(target) == {"a" * PARTS} and list(tmp_path.iterdir()) == [target]


def test_a_scratch_folder_is_gone_afterwards(tmp_path: Path) -> None:
    with scratch_folder(tmp_path / "result") as first:
        (first / "part").write_text("x")
        assert first.parent == tmp_path and first.name.startswith(".")
    with pytest.raises(ValueError), scratch_folder(tmp_path / "result") as second:
        (second / "part").write_text("x")
        raise ValueError
    assert os.listdir(tmp_path) == []


def meeting(pixels: NDArray[np.uint8], barrier: Any, *, height: int = 64) -> Iterator[NDArray[np.uint8]]:
    """Rows of a raster `(y, x)`, each taken by both writers before either goes on."""
    for y in range(0, len(pixels), height):
        barrier.wait(30)
        yield pixels[y : y + height]


def write_geotiff(text: str, barrier: Any, *, target: Path) -> None:
    pixels = np.full((256, 256), ord(text), np.uint8)
    write_image(
        target,
        grid=utm_grid((256, 256), resolution=1.0),
        rows=(rows[None] for rows in meeting(pixels, barrier)),
        names=["a"],
        dtype="uint8",
    )


def write_label_image(text: str, barrier: Any, *, target: Path) -> None:
    def read(window: Window) -> NDArray[np.uint8]:
        barrier.wait(30)
        return np.full(window.shape, ord(text), np.uint8)

    write_ome_zarr(Mask(Grid(2048, 4096), read, (), {}), target)


def labels_of(path: Path) -> set[int]:
    if path.suffix == ".zarr":
        return set(np.unique(zarr.open_array(str(path / "0"), mode="r")[:]).tolist())
    with rasterio.open(path) as file:
        return set(np.unique(file.read()).tolist())


@pytest.mark.parametrize("run", [as_threads, as_processes])
@pytest.mark.parametrize(("write", "name"), [(write_geotiff, "a.tif"), (write_label_image, "a.zarr")])
def test_two_writers_of_one_product_leave_one_of_the_two_whole(write: Any, name: str, run: Any, tmp_path: Path) -> None:
    run(partial(write, target=tmp_path / name))
    assert labels_of(tmp_path / name) in ({ord("a")}, {ord("b")})
    assert os.listdir(tmp_path) == [name]
