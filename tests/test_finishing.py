"""Laws of what workers make for products: coarser levels equal to halving the whole mask, whoever makes them."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tilesseg import cluster, finishing
from tilesseg.errors import FormatError
from tilesseg.executors import Executor, SerialExecutor, ThreadExecutor
from tilesseg.finishing import FinishWork, Part, with_levels, with_pieces
from tilesseg.formats import Mask
from tilesseg.grid import Grid
from tilesseg.job import Cluster
from tilesseg.pyramid import halve_mode, level_shapes
from tilesseg.store import Store
from tilesseg.store_levels import StoredLevels
from tilesseg.tiling import Tiling, blend_lattice
from tilesseg.window import Window

Labels = NDArray[np.uint8]
SHAPES = [(1, 1), (256, 256), (257, 1), (1, 1300), (513, 300), (1009, 701), (1024, 512)]


@pytest.fixture(scope="module", params=["serial", "threads", pytest.param("dask", marks=pytest.mark.cluster)])
def executor(request: pytest.FixtureRequest) -> Iterator[Executor]:
    kind: Any = {"serial": "serial", "threads": "threads", "dask": "local"}[request.param]
    with cluster.connect(Cluster(kind=kind, workers=2, threads=2), "cpu") as executor:
        yield executor


@pytest.fixture(autouse=True)
def _small_regions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finishing, "REGION", 128)  # the client cuts: workers see no more than windows


def random_labels(shape: tuple[int, int], seed: int = 0) -> Labels:
    rng = np.random.default_rng(seed)
    coarse = rng.choice(np.array([0, 1, 2, 254, 255], np.uint8), (shape[0] // 3 + 1, shape[1] // 3 + 1))
    return np.kron(coarse, np.ones((3, 3), np.uint8))[: shape[0], : shape[1]]


def stored(folder: Path, labels: Labels, *, shard: int = 64, chunk: int = 32) -> tuple[Mask, Store]:
    store = Store(folder)
    store.create(shape=labels.shape, shard=shard, chunk=chunk, fingerprint="f")  # type: ignore[arg-type]
    band = store.band(Window(0, 0, *labels.shape))
    band.write(labels)
    return Mask(Grid(*labels.shape), store.read, (), {}), store


def read_all(mask: Mask) -> list[Labels]:
    return [level.read(Window(0, 0, *level.shape)) for level in mask.levels]


def break_a_shard(store: Store) -> None:
    shard = next(file for file in sorted((store.folder / "mask.zarr" / "c").rglob("*")) if file.is_file())
    shard.write_bytes(b"torn")


@pytest.mark.parametrize("shape", SHAPES)
def test_each_level_is_the_mode_of_the_one_below(shape: tuple[int, int], executor: Executor, tmp_path: Path) -> None:
    labels = random_labels(shape)
    mask, store = stored(tmp_path / "scene", labels)
    with with_levels(mask, store, executor) as prepared:
        assert [level.shape for level in prepared.levels] == list(level_shapes(shape)[1:])
        for level in read_all(prepared):
            labels = halve_mode(labels)
            np.testing.assert_array_equal(level, labels)


def test_levels_are_made_while_tiles_are(executor: Executor, tmp_path: Path) -> None:
    """A scene is finished while the next one's tiles are on their way."""
    labels = random_labels((600, 500))
    answers = []
    for number in executor.map(abs, range(12), lost=lambda item, reason: item):
        answers.append(number)
        if len(answers) in (1, 7):
            mask, store = stored(tmp_path / f"scene{number}", labels)
            with with_levels(mask, store, executor) as prepared:
                np.testing.assert_array_equal(read_all(prepared)[0], halve_mode(labels))
    assert sorted(answers) == list(range(12))


def test_a_part_that_fails_is_told_in_one_line_and_nothing_is_left(executor: Executor, tmp_path: Path) -> None:
    mask, store = stored(tmp_path / "scene", random_labels((700, 500)))
    break_a_shard(store)
    before = sorted(store.folder.rglob("*"))
    with (
        pytest.raises(FormatError, match=r"^scene: 1 of \d+ parts .* level 1") as refusal,
        with_levels(mask, store, executor),
    ):
        pytest.fail("there are no levels to work with")
    assert "\n" not in str(refusal.value)
    assert sorted(store.folder.rglob("*")) == before


def test_levels_are_gone_afterwards_also_when_the_writer_fails(tmp_path: Path) -> None:
    executor = SerialExecutor()
    mask, store = stored(tmp_path / "scene", random_labels((300, 300)))
    before = sorted(store.folder.rglob("*"))
    with with_levels(mask, store, executor):
        assert (store.folder / "levels" / "1").is_dir()
    with pytest.raises(RuntimeError, match="writer"), with_levels(mask, store, executor):
        raise RuntimeError("the writer fails")
    assert sorted(store.folder.rglob("*")) == before


@pytest.mark.parametrize(("shard", "region"), [(64, 128), (96, 128), (512, 128), (64, 2048)])
def test_every_shard_is_written_once_and_whole(
    shard: int, region: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finishing, "REGION", region)
    written: dict[int, list[Window]] = {}
    write = StoredLevels.write

    def spy(self: StoredLevels, number: int, window: Window, labels: Labels) -> None:
        written.setdefault(number, []).append(window)
        write(self, number, window, labels)

    monkeypatch.setattr(StoredLevels, "write", spy)
    mask, store = stored(tmp_path / "scene", random_labels((1009, 701)), shard=shard, chunk=32)
    with with_levels(mask, store, ThreadExecutor(3)) as prepared:
        for number, level in enumerate(prepared.levels, start=1):
            count = np.zeros(level.shape, int)
            for window in written[number]:
                count[window.slices()] += 1
                assert window.y % shard == 0 and window.x % shard == 0
                assert window.y_stop % shard == 0 or window.y_stop == level.shape[0]
                assert window.x_stop % shard == 0 or window.x_stop == level.shape[1]
            assert (count == 1).all()


def test_levels_of_a_run_that_was_killed_are_made_anew(tmp_path: Path) -> None:
    labels = random_labels((600, 400))
    mask, store = stored(tmp_path / "scene", labels)
    StoredLevels(store.folder / "levels").create([(9, 9), (3, 3), (1, 1)], shard=64, chunk=32)
    with with_levels(mask, store, SerialExecutor()) as prepared:
        np.testing.assert_array_equal(read_all(prepared)[0], halve_mode(labels))
        assert len(list((store.folder / "levels").iterdir())) == len(prepared.levels)


def test_a_part_whose_worker_died_fails_the_product(tmp_path: Path) -> None:
    class Deadly(SerialExecutor):
        def map(self, function: Any, items: Any, *, lost: Any) -> Iterator[Any]:
            return (lost(item, "its worker process died") for item in items)

    mask, store = stored(tmp_path / "scene", random_labels((300, 300)))
    with pytest.raises(FormatError, match="its worker process died"), with_levels(mask, store, Deadly()):
        pytest.fail("there are no levels to work with")
    assert not (store.folder / "levels").exists()


def a_tiling(shape: tuple[int, int]) -> Tiling:
    return Tiling(shape, blend_lattice(64, overlap=16, margin=0, multiple=16), (64, 64), 64)


def write_fake_piece(read: Any, core: Window, path: Path, **_: Any) -> None:
    if core.x:
        assert read(core).shape == core.shape
    path.write_bytes(b"polygons")


def test_polygons_of_every_tile_are_there_for_the_writer_and_gone_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finishing, "resolve", lambda dotted: write_fake_piece)
    mask, store = stored(tmp_path / "scene", random_labels((200, 150)))
    tiling = a_tiling((200, 150))
    before = sorted(store.folder.rglob("*"))
    with with_pieces(mask, store, tiling, ThreadExecutor(2)) as prepared:
        assert len(prepared.pieces) == len(list(tiling)) > 1
        assert all(piece.read_bytes() == b"polygons" for piece in prepared.pieces)
    assert sorted(store.folder.rglob("*")) == before


def test_a_tile_without_polygons_fails_the_product(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise MemoryError("too many\nvertices")

    monkeypatch.setattr(finishing, "resolve", lambda dotted: fail)
    mask, store = stored(tmp_path / "scene", random_labels((200, 150)))
    before = sorted(store.folder.rglob("*"))
    with (
        pytest.raises(FormatError, match="r000-c000: MemoryError: too many vertices; run") as refusal,
        with_pieces(mask, store, a_tiling((200, 150)), SerialExecutor()),
    ):
        pytest.fail("there are no polygons to work with")
    assert "\n" not in str(refusal.value)
    assert sorted(store.folder.rglob("*")) == before


def test_parts_are_names_and_windows_that_travel(tmp_path: Path) -> None:
    work, part = FinishWork(str(tmp_path)), Part("level 1", Window(0, 0, 5, 5), 1)
    assert pickle.loads(pickle.dumps((work, part))) == (work, part)
    assert len(pickle.dumps((work, part))) < 500
