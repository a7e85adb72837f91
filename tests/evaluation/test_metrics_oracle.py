"""Figures against those of torchmetrics, another library's."""

from __future__ import annotations

import numpy as np
import pytest

from tilesseg.raster.calibration import score_histogram
from tilesseg.raster.metrics import accuracy, confusion, dice, iou, kappa, precision, recall

torchmetrics = pytest.importorskip("torchmetrics", reason="the oracle torchmetrics (extra dev) is not installed")


def test_figures_are_those_of_torchmetrics() -> None:
    import torch
    from torchmetrics.functional import classification as others

    draw = np.random.default_rng(0)
    truth = draw.integers(0, 4, (60, 70)).astype(np.uint8)
    mask = np.where(draw.random((60, 70)) < 0.6, truth, draw.integers(0, 4, (60, 70))).astype(np.uint8)
    matrix, pair = confusion(truth, mask, 4), (torch.from_numpy(mask).long(), torch.from_numpy(truth).long())
    common = {"num_classes": 4, "average": None}
    assert dice(matrix) == pytest.approx(others.multiclass_f1_score(*pair, **common).numpy(), abs=1e-6)
    assert iou(matrix) == pytest.approx(others.multiclass_jaccard_index(*pair, **common).numpy(), abs=1e-6)
    assert precision(matrix) == pytest.approx(others.multiclass_precision(*pair, **common).numpy(), abs=1e-6)
    assert recall(matrix) == pytest.approx(others.multiclass_recall(*pair, **common).numpy(), abs=1e-6)
    assert kappa(matrix) == pytest.approx(float(others.multiclass_cohen_kappa(*pair, num_classes=4)), abs=1e-6)
    micro = others.multiclass_accuracy(*pair, num_classes=4, average="micro")
    assert accuracy(matrix) == pytest.approx(float(micro), abs=1e-6)
    assert (matrix[:, :4] == others.multiclass_confusion_matrix(*pair, num_classes=4).numpy()).all()


def test_the_histogram_gives_the_log_loss_of_torch() -> None:
    import torch

    from tilesseg.raster.calibration import cross_entropy

    draw = np.random.default_rng(1)
    first = draw.integers(1, 250, (40, 50)).astype(np.uint8)
    truth = draw.integers(0, 2, (40, 50)).astype(np.uint8)
    stored = np.stack([first, 250 - first])
    histogram = np.stack([score_histogram(truth, stored[label], label) for label in (0, 1)])
    logs = torch.log(torch.from_numpy(stored / 250))[None]
    expected = torch.nn.functional.nll_loss(logs, torch.from_numpy(truth).long()[None])
    assert cross_entropy(histogram) == pytest.approx(float(expected))
