"""The contract of a model as a job uses it: its spec, what its trial shows, and the notes about both.

A model whose layers see the whole patch states a margin in vain: `blend: auto` takes gaussian for it, and `crop` is
refused by name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tilesseg.doubts import doubt
from tilesseg.errors import JobError, ModelError
from tilesseg.models.bundle import FOREIGN, find_bundle
from tilesseg.models.trial.model_trial import Trial, try_model
from tilesseg.models.unet.unet_shapes import margin_of

if TYPE_CHECKING:
    from tilesseg.models.bundle import Bundle
    from tilesseg.models.spec import ModelSpec


def try_contract(bundle: Bundle) -> Trial | None:
    """Trial of a bundle; None for one that needs none. Where no runtime here reads it, the first worker tries it.

    Raises:
        ModelError: the file cannot be loaded, or does not do what its spec says.
    """
    if bundle.spec.engine not in FOREIGN:
        return None
    trial = try_model(bundle)
    if trial is not None and trial.refusal:
        raise ModelError(trial.refusal)
    return trial


def try_reference(reference: str) -> Trial | None:
    """Trial of the model that a plan names, in this process.

    Raises:
        ModelError: see `try_contract`.
    """
    return try_contract(find_bundle(reference))


def contract_for(spec: ModelSpec, blend: str, trial: Trial | None) -> ModelSpec:
    """Spec as a job uses it: with `blend: auto`, one without the margin that no width of it could keep."""
    if blend == "auto" and spec.margin is not None and trial is not None and not trial.bounded:
        return spec.model_copy(update={"margin": None})
    return spec


def contract_notes(spec: ModelSpec, blend: str, trial: Trial | None) -> tuple[str, ...]:
    """Notes about a model that go with every scene: the doubts of its trial."""
    if trial is None:
        return ()
    problem = trial.margin_problem(spec)
    if problem is None or blend == "crop" or (blend == "auto" and trial.bounded):
        return trial.doubts  # crop is refused with the problem
    return (*trial.doubts, doubt("margin-too-small", problem.partition(";")[0]))


def check_crop(bundle: Bundle, trial: Trial | None) -> None:
    """Refuse crop where it would not give the result of whole-image inference.

    Raises:
        JobError: a layer sees the whole patch.
        ModelError: the margin that the spec states is below the measured one.
    """
    spec, hazards = bundle.spec, tuple[str, ...]()
    if spec.unet:
        needed = margin_of(spec.unet)
    else:
        from tilesseg.models.crop_safety.receptive_field import receptive_field

        measured = receptive_field(spec, bundle.weights_path)
        needed, hazards = measured.margin or 0, measured.hazards
    if hazards:
        raise JobError(
            f"model {spec.name} states a margin of {spec.margin}, and it has {', '.join(hazards)}, which see the whole "
            "patch, so that crop is not exact; take blend: gaussian"
        )
    if spec.margin is None or spec.margin < needed:
        raise ModelError(
            f"model {spec.name} states a margin of {spec.margin}, and its receptive half-width is {needed}; "
            "correct margin in its model.yaml"
        )
    problem = trial and trial.margin_problem(spec)
    if problem:
        raise ModelError(problem)
