"""Scores averaged over turns and models are the same arithmetic in every runtime, whatever it fuses for one model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from fakes import fake_model
from test_engines import OF_TORCH, SIDE, loaded

from tilesseg.models.averaging import Averaged, mean_scores, turned, turned_back
from tilesseg.models.network import Call
from tilesseg.planning.ensemble import common_contract
from tilesseg.raster.labels import decide
from tilesseg.training.synthetic_landscape import landscape


@pytest.mark.parametrize("engine", OF_TORCH)
def test_labels_are_decided_of_the_mean_and_not_in_the_runtime(engine: str) -> None:
    model = loaded(engine=engine, precision="fp32")
    patches = landscape((SIDE, SIDE), 7).bands[None]
    call = Call(patches.dtype, model.spec.normalisation(), labels=True, margin=8)
    scores = model.network(replace(call, labels=False))
    mean = np.mean(
        [turned_back(scores(np.ascontiguousarray(turned(patches, turn))), turn) for turn in range(8)],
        axis=0,
        dtype=np.float64,
    ).astype(np.float32)
    labels = Averaged(model.spec, (model,), 8).network(call)(patches)
    assert labels.dtype == np.uint8 and labels.shape == (1, SIDE - 16, SIDE - 16)
    assert (labels[0] == decide(mean[0])).all()
    assert (labels != model.network(call)(patches)).any(), "turning changes nothing here, so the test shows nothing"


def test_each_member_has_its_own_normalisation_and_leaves_out_its_own_part_of_the_margin() -> None:
    seen: list[Call] = []
    one, other = fake_model("Positional"), fake_model("Positional", patch={"shrink": 4})
    members = [_Watched(model, seen) for model in (one, other)]
    norms = [one.spec.normalisation(), replace(one.spec.normalisation(), subtract=(5.0,))]
    spec = common_contract([one.spec, other.spec])
    network = Averaged(spec, tuple(members)).network(Call(np.dtype(np.uint8), norms[0], True, 3, (norms[1],)))
    assert network(np.zeros((2, 1, 16, 16), np.uint8)).shape == (2, 6, 6)
    assert [(call.normalisation, call.margin, call.labels, call.others) for call in seen] == [
        (norms[0], 5, False, ()),
        (norms[1], 3, False, ()),
    ]


class _Watched:
    def __init__(self, model: Any, seen: list[Call]) -> None:
        self.spec, self._model, self._seen = model.spec, model, seen

    def network(self, call: Call) -> Any:
        self._seen.append(call)
        return self._model.network(call)


def test_scores_of_one_model_that_are_not_finite_are_refused() -> None:
    good, bad = fake_model("Identity"), fake_model("Broken")
    norm = good.spec.normalisation()
    network = Averaged(good.spec, (good, bad), 4).network(Call(np.dtype(np.uint8), norm, True, 0, (norm,)))
    with pytest.raises(ValueError, match="not finite"):
        network(np.full((1, 1, 8, 8), 14, np.uint8))


def test_the_mean_is_of_activated_scores_in_float64() -> None:
    def network(value: float) -> Any:
        return lambda patches: np.full((1, 1, *patches.shape[2:]), value, np.float32)

    networks = [network(1.0), network(2**-24), network(2**-24)]
    mean = mean_scores(networks, np.zeros((1, 1, 2, 2), np.uint8), turns=1)
    assert (mean == np.float32((1 + 2**-23) / 3)).all() and mean.dtype == np.float32
