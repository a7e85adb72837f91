"""A foreign model is true to its spec, or one right line says in what it is not: the same line in every engine.

`foreign_models` makes the files: more than a hundred, of 45 kinds, as TorchScript, programs of torch.export and ONNX.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from foreign_models import KINDS, VARIANTS, write_model

from tilesseg.doubts import codes_of
from tilesseg.errors import ModelError, TilessegError
from tilesseg.models.bundle import Bundle, find_bundle
from tilesseg.models.load import load_model
from tilesseg.models.runtime_choice import KINDS as RUNTIMES
from tilesseg.models.trial import model_trial
from tilesseg.models.trial.model_trial import Trial, make_trial, try_model
from tilesseg.planning.model_contract import check_crop, contract_for, contract_notes, try_contract

pytest.importorskip("onnxruntime")
FILES = [(name, kind) for name, variant in VARIANTS.items() for kind in variant.kinds]
FEW = (
    "list", "two-outputs", "softmax-inside", "sigmoid-inside", "argmax", "binary-inside", "channels-last", "quarter",
    "instances", "uint8", "pooled-margin", "margin-0", "foreground-boundary",
)  # fmt: skip
"""Variants that are always tried in every kind of file and in OpenVINO, which compiles each of their shapes."""


def cases(files: list[tuple[str, str]], *, quick: Callable[[str, str], bool]) -> list[Any]:
    return [pytest.param(*file, marks=() if quick(*file) else pytest.mark.slow) for file in files]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    place = tmp_path_factory.mktemp("models")
    return cache(lambda name, kind: write_model(place / f"{name}-{kind}", name, kind))


def said(bundle: Bundle, runtime: str) -> tuple[str | None, Trial | None]:
    """Refusal of loading or of the trial, and the trial."""
    try:
        trial = make_trial(bundle, runtime)  # type: ignore[arg-type]
    except ModelError as error:
        return str(error), None
    return trial.refusal, trial


def hold_to_its_variant(name: str, folder: Path, runtime: str) -> None:
    variant, bundle = VARIANTS[name], find_bundle(folder)
    refusal, trial = said(bundle, runtime)
    if variant.refused:
        assert refusal is not None and re.search(re.escape(variant.refused), refusal), refusal
        assert "\n" not in refusal and refusal.count("; ") >= 1
        return
    assert refusal is None and trial is not None
    assert codes_of(trial.doubts) == tuple(sorted(variant.doubts))
    if variant.crop:
        with pytest.raises(TilessegError, match=variant.crop):
            check_crop(bundle, trial)
    elif bundle.spec.margin is not None:
        check_crop(bundle, trial)


@pytest.mark.parametrize(
    ("name", "kind"),
    cases(FILES, quick=lambda name, kind: name in FEW or (kind == "onnx") or name.startswith("margin")),
)
def test_a_foreign_file_runs_or_gets_the_line_of_its_kind(written, name, kind):
    hold_to_its_variant(name, written(name, kind), RUNTIMES[kind][0])


@pytest.mark.parametrize(
    ("name", "kind"),
    cases([file for file in FILES if file[1] != "exported"], quick=lambda name, kind: name in FEW and kind == "onnx"),
)
def test_openvino_says_of_a_foreign_file_what_its_own_runtime_says(written, name, kind):
    pytest.importorskip("openvino")
    folder = written(name, kind)
    native, _ = said(find_bundle(folder), RUNTIMES[kind][0])
    refusal, _ = said(find_bundle(folder), "openvino")
    if kind == "onnx" or VARIANTS[name].refused is None:
        hold_to_its_variant(name, folder, "openvino")
    else:  # what OpenVINO cannot convert, a plan tries in PyTorch
        assert (refusal is None) == (native is None)


def test_a_plan_tries_a_model_once_and_the_cache_answers_then(written, monkeypatch, tmp_path):
    monkeypatch.setenv("TILESSEG_CACHE", str(tmp_path))
    bundle = find_bundle(written("pooled", "torchscript"))
    made = []
    monkeypatch.setattr(model_trial, "make_trial", lambda *given: made.append(1) or make_trial(*given))
    first, second = try_model(bundle), try_model(bundle)
    assert first == second and len(made) == 1 and first is not None and first.tried
    (path,) = (tmp_path / "trials").iterdir()
    path.write_text("{ damaged")
    assert try_model(bundle) == first and len(made) == 2


def test_where_no_runtime_reads_a_file_its_layers_are_known_and_a_worker_tries_it(written, monkeypatch, tmp_path):
    monkeypatch.setenv("TILESSEG_CACHE", str(tmp_path))
    monkeypatch.setattr(model_trial, "_runtime", lambda bundle: None)
    trial = try_model(find_bundle(written("pooled-margin", "onnx")))
    assert trial is not None and not trial.tried and codes_of(trial.doubts) == ("sees-whole-patch",)
    assert contract_for(find_bundle(written("pooled-margin", "onnx")).spec, "auto", trial).margin is None
    assert not list(tmp_path.iterdir())


def test_our_own_unet_is_not_tried(monkeypatch):
    monkeypatch.setattr(model_trial, "make_trial", None)
    assert try_contract(find_bundle("landscape")) is None


@pytest.mark.parametrize("kind", KINDS)
def test_auto_takes_gaussian_for_a_layer_that_sees_the_whole_patch_and_keeps_a_true_margin(written, kind):
    seeing, true = (find_bundle(written(name, kind)) for name in ("normed-margin", "margin-3"))
    assert contract_for(seeing.spec, "auto", try_contract(seeing)).margin is None
    assert contract_for(seeing.spec, "crop", try_contract(seeing)).margin == 16
    assert contract_for(true.spec, "auto", try_contract(true)).margin == 3


def test_a_margin_that_is_too_small_is_refused_with_crop_and_noted_without(written):
    bundle = find_bundle(written("margin-0", "onnx"))
    trial = try_contract(bundle)
    assert contract_for(bundle.spec, "auto", trial).margin == 0  # so auto takes crop, and is refused with what to state
    assert codes_of(contract_notes(bundle.spec, "gaussian", trial)) == ("margin-too-small",)
    assert contract_notes(bundle.spec, "crop", trial) == contract_notes(bundle.spec, "auto", trial) == ()


def test_what_is_refused_would_have_been_wrong(written):
    """Sigmoid twice: every pixel becomes class 1. This is what the line prevents."""
    model = load_model(written("sigmoid-inside", "onnx"), engine="onnxruntime", precision="fp32")
    patches = np.random.default_rng(0).random((2, 3, 64, 64), np.float32)
    assert (model.predict(patches) >= 0.5).all() and not (model.raw(patches) >= 0.5).all()
