"""Laws of the loader: the same patches whoever reads; values as a run gives them; errors name their scene."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from labelled_arrays import ArrayScene, array_scene, sampler_of

from tilesseg.errors import SourceError
from tilesseg.models.normalisation import Normalisation
from tilesseg.raster.window import Window
from tilesseg.training.patch_loader import AHEAD, PatchLoader, TrainingBatch
from tilesseg.training.patch_sampling import Geometry

ALL = {"turns": True, "scale": 0.25, "brightness": 0.3, "gamma": 0.3, "noise": 0.05}


def scenes() -> list[ArrayScene]:
    rng = np.random.default_rng(3)
    made = []
    for number in range(2):
        truth = rng.choice(np.array([0, 1, 2, 255], np.uint8), (70 + 20 * number, 90))
        made.append(array_scene(f"scene-{number}", truth, rng.random(truth.shape) < 0.9))
    return [replace(scene, fill=-1.0, normalisation=Normalisation((50.0,), (20.0,))) for scene in made]


def loader(*, sampling: dict[str, Any] | None = None, shrink: int = 0, **augment: Any) -> PatchLoader:
    made = scenes()
    options = {"batch": 6, **(sampling or {})}
    sampler = sampler_of(made, classes=3, geometry=Geometry(16, shrink), sampling=options, augment=augment)
    return PatchLoader(made, sampler)


def by_draw(batches: Iterator[TrainingBatch]) -> dict[tuple[int, Any], tuple[bytes, bytes]]:
    return {
        (batch.step, draw): (values.numpy().tobytes(), labels.numpy().tobytes())
        for batch in batches
        for draw, values, labels in zip(batch.draws, batch.values, batch.labels, strict=True)
    }


def test_batches_have_the_promised_shapes_and_steps() -> None:
    found = list(loader(shrink=4, **ALL).batches(3, 5))
    assert [batch.step for batch in found] == [3, 4, 5]
    for batch in found:
        assert (batch.values.shape, batch.values.dtype) == ((6, 1, 16, 16), torch.float32)
        assert (batch.labels.shape, batch.labels.dtype) == ((6, 12, 12), torch.uint8)


@pytest.mark.parametrize("readers", [1, 5])
def test_any_number_of_readers_gives_the_same_patches_in_the_same_order(readers: int) -> None:
    one, several = (loader(sampling={"readers": count}, **ALL) for count in (2, readers))
    assert [*by_draw(one.batches(1, 6)).items()] == [*by_draw(several.batches(1, 6)).items()]


def test_two_processes_get_the_patches_that_one_gets() -> None:
    alone = by_draw(loader(**ALL).batches(1, 3))
    shared = [by_draw(loader(**ALL).batches(1, 3, rank=rank, world=2)) for rank in (0, 1)]
    assert [len(part) for part in shared] == [9, 9]
    assert {**shared[0], **shared[1]} == alone


def test_a_training_that_goes_on_gets_the_patches_that_it_would_have_had() -> None:
    whole, late = by_draw(loader(**ALL).batches(1, 6)), by_draw(loader(**ALL).batches(4, 6))
    assert late == {key: value for key, value in whole.items() if key[0] >= 4}


def test_without_changes_a_patch_is_the_normalised_window() -> None:
    """Valid pixels by (value − 50) ÷ 20, invalid ones as their fill is normalised, labels of the pixels predicted."""
    made = loader(shrink=6)
    for batch in made.batches(1, 4):
        for draw, values, labels in zip(batch.draws, batch.values.numpy(), batch.labels.numpy(), strict=True):
            raw, valid, truth = made.scenes[draw.scene].read_raw(draw.window)  # type: ignore[arg-type]
            assert np.array_equal(values, (np.asarray(raw, np.float32) - 50) / 20)
            assert np.all(values[:, ~valid] == np.float32(-51) / 20)
            assert np.array_equal(labels, truth[3:-3, 3:-3])
            assert np.all(truth[~valid] == 255)


def test_labels_stay_with_their_pixels_through_every_change() -> None:
    """Values are 10 × the class: whatever is turned and read at another size, the nearest class fits the value."""
    truth = np.kron(np.random.default_rng(1).integers(0, 3, (8, 8)), np.ones((12, 12))).astype(np.uint8)
    scene = ArrayScene("a", (10 * truth).astype(np.float32)[None], truth)
    sampler = sampler_of([scene], classes=3, geometry=Geometry(24, 8), augment={"turns": True, "scale": 0.3})
    for batch in PatchLoader([scene], sampler).batches(1, 6):
        inner = batch.values.numpy()[:, 0, 4:-4, 4:-4] / 10
        known = batch.labels.numpy() != 255
        assert known.any()
        off = np.abs(inner - batch.labels.numpy())[known]
        assert np.mean(off < 0.51) > 0.95, "corners between three classes apart"
        assert np.mean(off < 1e-6) > 0.5


def test_stains_change_before_normalisation_and_leave_invalid_pixels() -> None:
    truth = np.zeros((40, 40), np.uint8)
    values = np.random.default_rng(0).integers(30, 250, (3, 40, 40)).astype(np.uint8)
    valid = np.ones(truth.shape, np.bool_)
    valid[:, :7] = False
    scene = ArrayScene("a", values, truth, valid, Normalisation((0.0,) * 3, (255.0,) * 3), fill=9.0)
    sampler = sampler_of([scene], classes=2, augment={"stain": 0.3})
    for batch in PatchLoader([scene], sampler).batches(1, 3):
        for draw, changed in zip(batch.draws, batch.values.numpy(), strict=True):
            raw, ok, _ = scene.read_raw(draw.window)
            assert np.allclose(changed[:, ~ok], 9 / 255)
            assert not np.allclose(changed[:, ok], raw[:, ok] / 255, atol=0.01)
            assert changed.min() >= 0
            assert changed.max() <= 1.0001


@dataclass(frozen=True)
class Damaged(ArrayScene):
    def read_raw(self, window: Window) -> Any:
        raise SourceError("cannot read a.tif: window 3; repair the file")


def test_what_cannot_be_read_names_its_scene() -> None:
    made = [scenes()[0], Damaged("broken", *[getattr(scenes()[1], key) for key in ("values", "truth", "valid")])]
    sampler = sampler_of(made, classes=3, sampling={"batch": 6})
    with pytest.raises(SourceError, match=r"^scene broken: cannot read a\.tif: window 3; repair the file$"):
        list(PatchLoader(made, sampler).batches(1, 20))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("patches")]


@dataclass(frozen=True)
class Counting(ArrayScene):
    reads: list[Window] = None  # type: ignore[assignment]

    def read_raw(self, window: Window) -> Any:
        self.reads.append(window)
        return super().read_raw(window)


def test_no_more_is_read_ahead_than_some_batches_and_a_loader_that_is_left_ends() -> None:
    scene = Counting("a", scenes()[0].values, scenes()[0].truth, reads=[])
    sampler = sampler_of([scene], classes=3, sampling={"batch": 4, "readers": 3})
    batches = PatchLoader([scene], sampler).batches(1, 1000)
    next(batches)
    batches.close()
    assert len(scene.reads) <= 4 * (AHEAD + 1)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("patches")]
