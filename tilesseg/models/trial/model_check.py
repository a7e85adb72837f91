"""Check of a model by its runtimes here: `tilesseg models check`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tilesseg.errors import ModelError
from tilesseg.models.bundle import Bundle, find_bundle, verify_weights
from tilesseg.models.crop_safety.receptive_field import receptive_field
from tilesseg.models.hardware import able
from tilesseg.models.runtime_choice import KINDS, Runtime
from tilesseg.models.trial.model_trial import Trial, make_trial


@dataclass(frozen=True, slots=True)
class ModelCheck:
    """Result of a check."""

    bundle: Bundle
    refusals: dict[str, str | None]
    """Refusal of each runtime that reads the file; None of one in which it does what its spec says."""
    doubts: tuple[str, ...]
    crop: str
    """Sentence about `blend: crop`."""
    margin_true: bool
    """Whether nothing shows that the stated margin is too small."""

    @property
    def usable(self) -> bool:
        """Whether a runtime here computes the model as its spec says, with a margin that is true."""
        return None in self.refusals.values() and self.margin_true


def check_model(reference: str | Path) -> ModelCheck:
    """Check a model: in each runtime that is installed here, by a trial that is made now.

    Raises:
        ModelError: there is no such model, it is damaged, or nothing here reads it.
    """
    bundle = find_bundle(reference)
    verify_weights(bundle)
    refusals: dict[str, str | None] = {}
    first: Trial | None = None
    for runtime in _runtimes(bundle):
        try:
            trial = make_trial(bundle, runtime)
        except ModelError as error:
            refusals[runtime] = str(error)
        else:
            refusals[runtime] = trial.refusal
            first = first or (None if trial.refusal else trial)
    crop, margin_true = _crop(bundle, first)
    return ModelCheck(bundle, refusals, first.doubts if first else (), crop, margin_true)


def _runtimes(bundle: Bundle) -> tuple[Runtime, ...]:
    """Runtimes here that read the file.

    Raises:
        ModelError: there are none.
    """
    if bundle.spec.engine not in KINDS:
        return ("own",)
    here = able("cpu").runtimes
    found = tuple(runtime for runtime in KINDS[bundle.spec.engine] if runtime in here)
    if not found:
        raise ModelError(
            f"nothing here reads {bundle.spec.engine}; install one of {', '.join(KINDS[bundle.spec.engine])}"
        )
    return found


def _crop(bundle: Bundle, trial: Trial | None) -> tuple[str, bool]:
    """Sentence about `blend: crop`, and whether nothing shows that the stated margin is too small."""
    spec = bundle.spec
    if spec.margin is None:
        return "crop: no margin is stated, so patches are blended", True
    measured = receptive_field(spec, bundle.weights_path)
    hazards = measured.hazards or (trial.hazards if trial else ())
    if hazards:
        return f"crop: refused, for {', '.join(hazards)} see the whole patch; auto takes gaussian", True
    if measured.margin is not None and measured.margin > spec.margin:
        return f"crop: refused, for margin is {spec.margin} and the network needs {measured.margin}; set margin", False
    problem = trial.margin_problem(spec) if trial else None
    if problem:
        return f"crop: refused, for {problem}", False
    return f"crop: the margin of {spec.margin} is wide enough, as far as it was tried", True
