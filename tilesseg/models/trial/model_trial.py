"""A trial: one network run on small batches, once for each model, and the result kept in the user's cache.

A foreign file is taken at its word by no engine: what it gives for a few patches shows whether its spec is true. Our
own U-Net is known, and is not tried; an engine of the user's own code is tried only where the user asks for it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilesseg.atomic_write import published
from tilesseg.doubts import doubt
from tilesseg.errors import ModelError
from tilesseg.models.bundle import FOREIGN, Bundle
from tilesseg.models.crop_safety.patch_dependence import tiling_hazards
from tilesseg.models.download import cache_folder
from tilesseg.models.load import load_model
from tilesseg.models.network import activate
from tilesseg.models.runtime_choice import KINDS, Runtime
from tilesseg.models.spec import ModelSpec
from tilesseg.models.trial.margin_trial import MarginTrial, share_that_changes, try_margin
from tilesseg.models.trial.trial_batches import Run, first_answers, small_sides
from tilesseg.models.trial.value_checks import shape_refusal, value_doubts, value_refusal
from tilesseg.process import available_cores
from tilesseg.raster.labels import decide

FORMAT = 1
"""Version of a stored trial: an older one is made again."""


@dataclass(frozen=True, slots=True)
class Trial:
    """Result of a trial."""

    refusal: str | None = None
    """Sentence why the network does not do what its spec says; None if nothing shows that."""
    doubts: tuple[str, ...] = ()
    """Notes of doubts, each with its code."""
    hazards: tuple[str, ...] = ()
    """Layers that see the whole patch."""
    tried: bool = True
    """Whether the network was run; False where no runtime here reads it, and only its layers are known."""
    margin: MarginTrial | None = None
    """Findings about the stated margin; None where the spec states none, or a layer sees the whole patch."""

    @property
    def bounded(self) -> bool:
        """Whether `crop` may be exact: no layer sees the whole patch, and no pixel beyond all that was tried."""
        return not self.hazards and (self.margin is None or self.margin.needed is not None or not self.margin.seen)

    def margin_problem(self, spec: ModelSpec) -> str | None:
        """Sentence why `crop` would not be exact; None if nothing shows that."""
        found = self.margin
        if found is None or spec.margin is None:
            return None
        if not found.fits(spec):
            reach = f"at least {found.seen}" if found.needed is None else str(found.needed)
            remedy = "take blend: gaussian" if found.needed is None else f"set margin: {found.needed} in its model.yaml"
            return (
                f"model {spec.name} states a margin of {spec.margin}, and in its trial pixels beyond it change the "
                f"scores: it needs {reach}; {remedy}"
            )
        if found.stride_multiple is not None:
            return (
                f"model {spec.name} states patch.stride_multiple: {spec.patch.stride_multiple}, and in its trial a "
                f"patch that begins elsewhere gives other scores; set patch.stride_multiple: {found.stride_multiple}"
            )
        return None


def try_model(bundle: Bundle) -> Trial | None:
    """Trial of a foreign model, from the cache or made now; None for a model that needs none.

    Raises:
        ModelError: the file cannot be loaded.
    """
    if bundle.spec.engine not in FOREIGN or bundle.weights_path is None:
        return None
    stored = _cached(bundle)
    if stored is not None:
        return stored
    runtime = _runtime(bundle)
    if runtime is None:
        hazards = tiling_hazards(bundle.weights_path)
        return Trial(doubts=tuple(_whole_patch(hazards)), hazards=hazards, tried=False)
    made = make_trial(bundle, runtime)
    _keep(bundle, made)
    return made


def make_trial(bundle: Bundle, runtime: Runtime) -> Trial:
    """Trial made now, on the processor in float32, by a runtime of this machine.

    Raises:
        ModelError: the file cannot be loaded.
    """
    assert bundle.weights_path is not None or runtime == "own"
    spec = bundle.spec
    hazards = tiling_hazards(bundle.weights_path) if bundle.weights_path and spec.engine in FOREIGN else ()
    engine = "auto" if runtime == "own" else runtime
    model = load_model(bundle, device="cpu", threads=min(4, available_cores()), engine=engine, precision="fp32")
    with np.errstate(all="ignore"):  # values far outside of imagery may overflow
        return _tried(spec, model.raw, hazards)


def _tried(spec: ModelSpec, run: Run, hazards: tuple[str, ...]) -> Trial:
    try:
        answers = first_answers(spec, run)
    except ModelError as error:
        return Trial(refusal=str(error), hazards=hazards)
    refusal = shape_refusal(spec, answers, small_sides(spec)[1]) or value_refusal(spec, answers)
    if refusal:
        return Trial(refusal=refusal, hazards=hazards)
    margin = try_margin(spec, run) if spec.margin is not None and not hazards else None
    share = share_that_changes(spec, run, lambda raw: _labels(spec, raw)) if hazards else None
    doubts = [*value_doubts(spec, answers), *_whole_patch(hazards, share)]
    if answers.refused_side is not None:
        doubts.append(
            doubt(
                "patch-sides",
                f"the network refuses patches of {answers.refused_side} px, which its spec allows "
                f"({spec.patch.rule}): state patch.multiple",
            )
        )
    return Trial(doubts=tuple(doubts), hazards=hazards, margin=margin)


def _whole_patch(hazards: tuple[str, ...], share: float | None = None) -> Iterator[str]:
    """Doubt about layers that see the whole patch, with the share of labels that change, if it is known."""
    if hazards:
        size = (
            ""
            if share is None
            else (f": in the trial {share:.1%} of the labels in the middle of a patch change with its outer half")
        )
        layers = ", ".join(hazards)
        text = f"the network has {layers}, which see the whole patch, so a label depends on where patches lie{size}"
        yield doubt("sees-whole-patch", text)


def _labels(spec: ModelSpec, raw: NDArray[Any]) -> NDArray[np.uint8]:
    scores = activate(raw, spec.activation)
    return np.stack([decide(each, spec.decision.threshold) for each in scores])


def _runtime(bundle: Bundle) -> Runtime | None:
    """A runtime of this machine that reads the file, the native one first; None if there is none."""
    from tilesseg.models.hardware import able

    here = able("cpu").runtimes
    return next((runtime for runtime in KINDS[bundle.spec.engine] if runtime in here), None)


def _file(bundle: Bundle) -> Path:
    return cache_folder() / "trials" / f"{bundle.sha256}-{FORMAT}.json"


def _cached(bundle: Bundle) -> Trial | None:
    try:
        data = json.loads(_file(bundle).read_text(encoding="utf-8"))
        margin = data["margin"] and MarginTrial(**data["margin"])
        return Trial(data["refusal"], tuple(data["doubts"]), tuple(data["hazards"]), margin=margin)
    except (OSError, ValueError, KeyError, TypeError):  # missing, or not ours: the trial is made again
        return None


def _keep(bundle: Bundle, trial: Trial) -> None:
    path = _file(bundle)
    with suppress(OSError):  # without a cache the trial is made again
        path.parent.mkdir(parents=True, exist_ok=True)
        with published(path) as partial:
            partial.write_text(json.dumps(asdict(trial)), encoding="utf-8")
