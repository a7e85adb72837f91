"""Laws of the pictures: they show the steps, the fixed samples and the worst patches, the same after a resume."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from training_fakes import tiny_spec
from training_scenes import SIDE, materials

from tilesseg.errors import StoreError
from tilesseg.formats.open import open_source
from tilesseg.raster.window import Window
from tilesseg.training.distributed import Processes
from tilesseg.training.losses import loss_function
from tilesseg.training.patch_loader import TrainingBatch
from tilesseg.training.patch_sampling import PatchDraw
from tilesseg.training.train_network import train_network
from tilesseg.training.train_spec import Loss
from tilesseg.training.training_pictures import TrainingPictures, draw_curve, sample_window, stacked
from tilesseg.training.worst_patches import NUMBER, keep_worst, patch_losses

FAST = {"optimise": {"steps": 6, "ema": 0.9}, "stop": {"every": 3}, "threads": 1}


def pixels(path: Path) -> np.ndarray:
    source = open_source(str(path))
    return np.asarray(source.read(source.grid.window).values)


def coloured(picture: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    return np.argwhere((picture == np.array(colour, np.uint8)[:, None, None]).all(0))


# ------------------------------------------------------------------ worst patches


@pytest.mark.parametrize("channels", [1, 3])
def test_the_loss_of_a_patch_is_that_of_a_batch_of_it_alone(channels: int) -> None:
    torch.manual_seed(0)
    scores, labels = torch.randn(4, channels, 8, 8), torch.randint(0, max(channels, 2), (4, 8, 8))
    labels[:, :3] = 255
    labels[3] = 255
    alone = [loss_function(Loss(kind="ce"))(scores[i : i + 1], labels[i : i + 1]).item() for i in range(4)]
    assert patch_losses(scores, labels).tolist() == pytest.approx(alone, rel=1e-5)
    assert alone[3] == 0


def test_the_worst_are_kept_with_their_step_and_number_whatever_their_order() -> None:
    losses = torch.rand(12, 4, generator=torch.Generator().manual_seed(1))
    kept: list[list[float]] = []
    for step, row in enumerate(losses):
        kept = keep_worst(kept, row, step, Processes())
    expected = sorted(((float(loss), s, i) for s, row in enumerate(losses) for i, loss in enumerate(row)), reverse=True)
    assert [tuple(row) for row in kept] == expected[:NUMBER]


def test_a_process_names_its_patches_by_their_number_in_the_step() -> None:
    kept = keep_worst([], torch.tensor([3.0, 2.0, 1.0]), 7, replace(Processes(), rank=1, world=2))
    assert kept == [[3.0, 7, 1], [2.0, 7, 3], [1.0, 7, 5]]


def test_after_a_resume_the_worst_are_those_of_the_whole_training(tmp_path: Path) -> None:
    """The interrupted one dies in step 5, between two validations, and goes on from its checkpoint of step 3."""
    whole, broken = (tiny_spec(tmp_path / name, **FAST) for name in ("whole", "broken"))
    train_network(whole, materials(whole, tmp_path))

    made = materials(broken, tmp_path)
    batches = made.loader.batches

    def dying(first: int, last: int, *, rank: int = 0, world: int = 1):  # type: ignore[no-untyped-def]
        for batch in batches(first, last, rank=rank, world=world):
            if batch.step == 5:
                raise RuntimeError("dies")
            yield batch

    made.loader.batches = dying  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="dies"):
        train_network(broken, made)
    train_network(broken, materials(broken, tmp_path))
    for name in ("worst/worst.csv", "worst/01.png", "samples/000003.png", "samples/000006.png", "curve.png"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "broken" / name).read_bytes(), name
    table = (tmp_path / "whole" / "worst" / "worst.csv").read_text()
    rows = list(csv.DictReader(table.splitlines()))
    assert len(rows) == 3 * 4 and {int(row["step"]) for row in rows} == {4, 5, 6}  # of the steps since step 3
    losses = [float(row["loss"]) for row in rows]
    assert losses == sorted(losses, reverse=True)


# ------------------------------------------------------------------ pictures


class Draws:
    """A loader that says where its patches lie."""

    scenes = (type("Scene", (), {"name": "north"})(),)

    def batches(self, first: int, last: int, *, rank: int = 0, world: int = 1):  # type: ignore[no-untyped-def]
        values = torch.full((1, 1, 16, 16), float(rank))
        labels = torch.full((1, 16, 16), rank % 2, dtype=torch.uint8)
        labels[:, :4] = 255
        yield TrainingBatch(first, values, labels, (PatchDraw(0, Window(8 * rank, 0, 16, 16), 0, 0),))


class Bright(torch.nn.Module):
    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return torch.cat([-torch.ones_like(values), torch.ones_like(values)], 1)


def test_a_worst_patch_is_shown_as_image_truth_and_prediction_and_placed_in_its_scene(tmp_path: Path) -> None:
    spec = materials(tiny_spec(tmp_path / "run"), tmp_path).spec
    drawn = TrainingPictures(tmp_path, spec, (), Draws(), 4, torch.device("cpu"))
    drawn.draw(Bright(), step=9, worst=[[2.5, 9, 2], [1.5, 8, 1]], losses=[(1, 1.0)], scores=[])
    assert sorted(path.name for path in (tmp_path / "worst").iterdir()) == ["01.png", "02.png", "worst.csv"]
    first = pixels(tmp_path / "worst" / "01.png")
    image, truth, found = first[:, :, :16], first[:, :, 24:40], first[:, :, 48:]
    assert image.shape == truth.shape == found.shape == (3, 16, 16)
    assert (truth[:, :4] == 96).all() and (truth[:, 4:] == 0).all() and (found == 255).all()
    rows = (tmp_path / "worst" / "worst.csv").read_text().splitlines()
    assert rows[1] == "01.png,2.5000,9,2,north,16,0,16,16"
    drawn.draw(Bright(), step=10, worst=[], losses=[(1, 1.0)], scores=[])
    assert [path.name for path in (tmp_path / "worst").iterdir()] == ["worst.csv"]  # the old ones are gone
    assert not (tmp_path / "samples").exists()  # nothing validates


def test_samples_stay_the_same_windows_and_lie_in_the_part(tmp_path: Path) -> None:
    spec = materials(tiny_spec(tmp_path / "run"), tmp_path).spec
    areas = [Window(0, 512, 300, 400), Window(512, 0, 1024, 1024)]
    chosen = [sample_window(areas, number, spec) for number in range(8)]
    assert chosen == [sample_window(areas, number, spec) for number in range(8)]
    assert len(set(chosen)) == 8
    assert all(any(area.intersect(window) == window for area in areas) for window in chosen)


def test_a_part_that_holds_one_sample_alone_is_shown_once(tmp_path: Path) -> None:
    made = materials(tiny_spec(tmp_path / "run"), tmp_path)
    drawn = TrainingPictures(tmp_path, made.spec, made.validation, Draws(), 4, torch.device("cpu"))
    drawn.draw(Bright(), step=9, worst=[], losses=[(1, 1.0)], scores=[])
    assert pixels(tmp_path / "samples" / "000009.png").shape == (3, SIDE, 3 * SIDE + 2 * 8)


def test_a_curve_shows_each_step_its_mean_and_each_score() -> None:
    picture = draw_curve([(step, 1.0 + step % 2) for step in range(1, 101)], [(50, 0.5), (100, 1.0)])
    assert picture.shape == (3, 560, 900) and picture.dtype == np.uint8
    assert len(coloured(picture, (181, 181, 181))) >= 90
    means = {int(y) for y, x in coloured(picture, (34, 34, 34)) if 100 < x < 800 and 100 < y < 490}
    marks = {(int(y), int(x)) for y, x in coloured(picture, (209, 73, 91))}
    bottom, top, right = 500, 72, 840
    assert max(means) - min(means) < 30 and abs(np.mean([*means]) - (bottom - 0.75 * (bottom - top))) < 15
    assert (top, right) in marks and (round((bottom + top) / 2), round(80 + 760 * 49 / 99)) in marks


def test_a_curve_of_nothing_and_of_a_spike_is_drawn() -> None:
    assert draw_curve([], []).shape == (3, 560, 900)
    spiked = draw_curve([(1, 1e6), *((step, 1.0) for step in range(2, 1001))], [])
    rows = [int(y) for y, x in coloured(spiked, (34, 34, 34)) if 100 < x < 800 and 74 < y < 490]
    assert max(rows, default=0) < 120  # the rest is not flattened to the axis


def test_pictures_of_several_sizes_are_padded_with_white() -> None:
    dark = np.zeros((3, 4, 4), np.uint8)
    joined = stacked([dark, np.zeros((3, 2, 6), np.uint8)], axis=2)
    assert joined.shape == (3, 4, 4 + 8 + 6) and (joined[:, 2:, 12:] == 255).all() and (joined[:, :, 4:12] == 255).all()


def test_a_picture_that_cannot_be_written_is_refused_in_one_line(tmp_path: Path) -> None:
    spec = materials(tiny_spec(tmp_path / "run"), tmp_path).spec
    (tmp_path / "file").write_text("in the way")
    drawn = TrainingPictures(tmp_path / "file", spec, (), Draws(), 4, torch.device("cpu"))
    with pytest.raises(StoreError, match=r"cannot write .*curve.png: .*; make room and run"):
        drawn.draw(Bright(), step=1, worst=[], losses=[(1, 1.0)], scores=[])
