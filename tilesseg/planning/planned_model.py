"""The model of a plan, loaded as the plan says, and refused where the file has changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tilesseg.errors import ModelError
from tilesseg.models.bundle import find_bundle
from tilesseg.models.load import load_model
from tilesseg.planning.plan import Plan

if TYPE_CHECKING:
    from tilesseg.models.load import Model


def load_planned(plan: Plan) -> Model:
    """The network of a plan as it is computed.

    Raises:
        ModelError: it is not the one that the plan was made with, or cannot be loaded.
    """
    bundle = find_bundle(plan.model)
    if bundle.sha256 != plan.model_sha256:
        raise ModelError(
            f"model {plan.model} has sha256 {bundle.sha256[:12]}… here and {plan.model_sha256[:12]}… in the plan; "
            "give every worker the same bundle"
        )
    return load_model(
        bundle,
        device=plan.device,
        threads=plan.engine_threads,
        engine=plan.choice.runtime,
        precision=plan.choice.precision,
        compiled=plan.compile,
        parallel_batches=plan.parallel_batches,
    )
