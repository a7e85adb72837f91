"""The plan: a job with every choice made that its scenes share. Plain data, stored, reused when a run goes on.

On resume the user's own choices are compared with the stored ones, and what `auto` became is not decided again. So a
resumed run gives the bytes that the uninterrupted one would have given. Choices for one scene are its `ScenePlan`,
made when the scene's turn comes; see `planning.scene_plan`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from tilesseg.errors import JobError, ModelError, StoreError, joined_lines
from tilesseg.formats.stac.stac_items import split_member
from tilesseg.models.averaging import Averaged, Computing
from tilesseg.models.bundle import Bundle, find_bundle, verify_weights
from tilesseg.models.load import choose_for, load_model
from tilesseg.models.runtime_choice import NATIVE, VARIES, Choice, varies
from tilesseg.models.spec import ModelSpec
from tilesseg.models.trial.model_trial import Trial
from tilesseg.paths import absolute, place, unsigned
from tilesseg.planning.ensemble import Member, common_contract
from tilesseg.planning.machine import NO_MACHINE, Compute, Machine
from tilesseg.planning.model_contract import contract_for, contract_notes, try_contract
from tilesseg.version import __version__

if TYPE_CHECKING:
    from tilesseg.models.load import Model
    from tilesseg.planning.job import Job
    from tilesseg.planning.scene_list import Scene


FORMAT = 5
RULES = 2
"""Number of the rules by which validity and statistics of a scene are decided; plans without a number have rules 1. A
run goes on by the rules of its plan alone, for a mask by two rules would be neither."""
PLAN_FILE = "plan.json"


@dataclass(frozen=True)
class Plan:
    """Everything about a job that is decided before its first scene."""

    asked: dict[str, Any]
    """The user's own choices, as far as the mask depends on them."""
    model: str
    """Reference of the model that is valid in any worker process."""
    model_sha256: str
    spec: ModelSpec
    """Contract of the model; of an ensemble, or with turns, the contract that holds for all, see `common_contract`."""
    compute: Compute
    """Decisions about computing the network; in the stored plan they stand beside its other keys."""
    scores: tuple[int, ...] = ()
    """Score channels that are stored beside the mask."""
    version: str = __version__
    format: int = FORMAT
    trial: Trial | None = None
    """Trial of a foreign network; None for one that needs none."""
    notes: tuple[str, ...] = ()
    """Notes about the model, for every scene."""
    rules: int = 1
    turns: int = 1
    """Number of turns and mirrors of each patch whose scores are averaged."""
    members: tuple[Member, ...] = ()
    """Models of an ensemble, the first of which is `model`; empty where there is one model."""

    @property
    def predictions(self) -> int:
        """Number of predictions of each patch: turns × models."""
        return self.turns * max(1, len(self.members))

    @property
    def averages(self) -> list[Any]:
        """Everything about averaging that the mask depends on; empty where nothing is averaged."""
        made_from = [member.made_from for member in self.members[1:]]
        return [self.turns, made_from] if self.predictions > 1 else []

    @property
    def specs(self) -> tuple[ModelSpec, ...]:
        """Spec of each model."""
        return tuple(member.spec for member in self.members) or (self.spec,)

    @property
    def needs_scene(self) -> bool:
        """Whether a model is normalised by statistics of the scene."""
        return any(spec.normalise.needs_scene for spec in self.specs)

    @property
    def models(self) -> tuple[tuple[str, str, Trial | None], ...]:
        """Reference, SHA-256 and trial of each model."""
        several = tuple((member.model, member.sha256, member.trial) for member in self.members)
        return several or ((self.model, self.model_sha256, self.trial),)

    @property
    def untried(self) -> tuple[str, ...]:
        """References of foreign models that no runtime could try where the job was planned."""
        return tuple(model for model, _, trial in self.models if trial is not None and not trial.tried)

    @property
    def averaged(self) -> str:
        """Number of turns and models of each patch, for people; empty where nothing is averaged."""
        turns = [f"turns {self.turns}"] if self.turns > 1 else []
        return " × ".join([*turns, *([f"models {len(self.members)}"] if self.members else [])])

    @property
    def choices(self) -> tuple[Choice, ...]:
        """Runtime and precision of each model."""
        return tuple(member.choice for member in self.members) or (self.compute.choice,)

    @property
    def sha256s(self) -> tuple[str, ...]:
        """SHA-256 of each model."""
        return tuple(sha256 for _, sha256, _ in self.models)

    @property
    def score_classes(self) -> tuple[str, ...]:
        """Names of the classes whose scores are stored."""
        return tuple(self.spec.score_names[channel] for channel in self.scores)

    @cached_property
    def _key(self) -> str:
        compute = self.compute
        machine = compute.device, compute.engine_threads, compute.slots, *compute.arithmetic
        decided = [self.format, self.rules, self.asked, *machine, *self.averages]
        return hashlib.sha256(json.dumps(decided, sort_keys=True).encode()).hexdigest()

    def key(self, scene: Scene) -> str:
        """Hash of the job's choices for a scene: a stored scene plan of another key was made for something else."""
        asked = json.dumps(
            [self._key, [*map(unsigned, scene.paths)], scene.mpp, scene.input], sort_keys=True, default=str
        )
        return hashlib.sha256(asked.encode()).hexdigest()

    @property
    def engine(self) -> str:
        """Runtime, precision and the reason for them, for people; with a clause where the last bits may change."""
        compute = self.compute
        kinds = [(each.spec.engine, each.choice.runtime) for each in self.members]
        kinds = kinds or [(self.spec.engine, compute.choice.runtime)]
        changing = any(varies(*kind, compute.device, compiled=compute.compile) for kind in kinds)
        words = compute.engine
        if self.members:
            engines = [(each.spec.name, replace(compute, choice=each.choice).engine) for each in self.members]
            words = "; ".join(f"{name}: {engine}" for name, engine in engines)
        return f"{words}; {VARIES}" if changing else words

    def to_json(self) -> Any:
        """The plan as `plan.json` holds it."""
        data = _PLAN.dump_python(self, mode="json", by_alias=True)
        compute = data.pop("compute")
        return {**data, **compute}


_PLAN: TypeAdapter[Plan] = TypeAdapter(Plan)


def parse_plan(data: Any, *, where: Path) -> Plan:
    """A stored plan.

    Raises:
        StoreError: it was written by another format of tilesseg, or is damaged.
    """
    if data is None:
        raise StoreError(f"{where} is no run directory: it holds no {PLAN_FILE}; give the folder of a run")
    if not isinstance(data, dict):
        raise StoreError(f"{where}: {PLAN_FILE} is damaged (it is a {type(data).__name__}); start in a new directory")
    if data.get("format") != FORMAT:
        raise StoreError(
            f"{where} was planned in format {data.get('format')} and this is tilesseg {__version__} with format "
            f"{FORMAT}; finish it with the version that began it, or start in a new directory"
        )
    try:
        return _PLAN.validate_python({**data, "compute": data})
    except ValueError as error:
        problem = joined_lines(error)[:200]
        raise StoreError(f"{where}: {PLAN_FILE} is damaged ({problem}); start in a new directory") from None


def plan_job(job: Job, machine: Machine | None, *, stored: Plan | None = None) -> Plan:
    """Decide what all scenes share, or go on from the stored plan. No image is opened.

    Args:
        job: the job.
        machine: the machine that will compute; `auto` values are decided for it. None where the machine is not known
            yet: such a plan shows whether the job can work, and is not to be stored.
        stored: plan of a run that goes on; its decisions are kept.

    Raises:
        TilessegError: the job cannot work, or differs from the job that the stored plan was made for.
    """
    bundles = [find_bundle(model) for model in job.models]
    for bundle in bundles:
        verify_weights(bundle)
    specs = [bundle.spec for bundle in bundles]
    spec, turns = common_contract(specs, turns=job.tiling.turns), job.tiling.turns
    asked = _asked(job, bundles, spec)
    if stored is not None:
        _check_rules(stored, where=job.output.dir)
        _compare(stored.asked, asked, where=job.output.dir)
    trials, blend = [try_contract(bundle) for bundle in bundles], job.tiling.blend
    kept = [contract_for(spec, blend, trial) for spec, trial in zip(specs, trials, strict=True)]
    notes = [contract_notes(spec, blend, trial) for spec, trial in zip(specs, trials, strict=True)]
    if stored is not None:
        compute, members = stored.compute, stored.members
    else:
        choices = [_choice(job, bundle, machine) for bundle in bundles]
        compute = _compute(job, choices, machine)
        members = tuple(map(_member, job.models, bundles, choices, trials)) if len(bundles) > 1 else ()
    return Plan(
        asked=asked,
        model=anywhere(job.models[0]),
        model_sha256=bundles[0].sha256,
        spec=stored.spec if stored else common_contract(kept, turns=turns),
        trial=trials[0],
        notes=tuple(dict.fromkeys(note for some in notes for note in some)),
        compute=compute,
        scores=_kept_scores(job.output.scores, spec),
        rules=RULES,
        turns=turns,
        members=members,
    )


def _member(model: str, bundle: Bundle, choice: Choice, trial: Trial | None) -> Member:
    return Member(anywhere(model), bundle.sha256, bundle.spec, choice, trial)


def with_trial(plan: Plan, trial: Trial | None, blend: str) -> Plan:
    """A plan with the trial that a worker has made: no runtime reads the network where the job is planned."""
    spec, notes = contract_for(plan.spec, blend, trial), contract_notes(plan.spec, blend, trial)
    return replace(plan, spec=spec, trial=trial, notes=notes)


def _check_rules(stored: Plan, *, where: str) -> None:
    """Refuse to go on with a plan of other rules.

    Raises:
        StoreError: an earlier or later version of tilesseg made the plan.
    """
    if stored.rules != RULES:
        raise StoreError(
            f"the run in {where} was planned by rules {stored.rules} for valid pixels and statistics, and this is "
            f"tilesseg {__version__} with rules {RULES}; finish it with the version that began it, or start in a new "
            "directory"
        )


def _choice(job: Job, bundle: Bundle, machine: Machine | None) -> Choice:
    """Runtime and precision of a model; its own runtime in fp32 where the machine is not known yet.

    Raises:
        ModelError: the machine lacks the runtime or precision that the job names, or the network does not run in it.
    """
    engine = "torch" if job.compile else job.engine
    return choose_for(bundle, machine.able, engine, job.precision) if machine else NATIVE


def _compute(job: Job, choices: Sequence[Choice], machine: Machine | None) -> Compute:
    """Decide about computing networks of the chosen runtimes on a machine."""
    there = machine or NO_MACHINE
    own = "own" in {choice.runtime for choice in choices}
    return Compute(
        device=there.device,
        engine_threads=there.engine_threads,
        slots=there.slots,
        choice=choices[0],
        compile=job.compile,
        parallel_batches=there.parallel_batches if there.device == "cpu" and not own and not job.compile else 1,
    )


def load_planned(plan: Plan) -> Computing:
    """The network of a plan, loaded as the plan says; of an ensemble, or with turns, the mean of all.

    Raises:
        ModelError: a file is not the one that the plan was made with, or cannot be loaded.
    """
    compute = plan.compute
    if not plan.members:
        model = _load(plan.model, plan.model_sha256, compute.choice, compute)
        return model if plan.turns == 1 else Averaged(plan.spec, (model,), plan.turns)
    models = tuple(_load(each.model, each.sha256, each.choice, compute) for each in plan.members)
    return Averaged(plan.spec, models, plan.turns)


def _load(model: str, sha256: str, choice: Choice, compute: Compute) -> Model:
    """A model by its reference, compared with its planned hash.

    Raises:
        ModelError: see `load_planned`.
    """
    bundle = find_bundle(model)
    if bundle.sha256 != sha256:
        raise ModelError(
            f"model {model} has sha256 {bundle.sha256[:12]}… here and {sha256[:12]}… in the plan; "
            "give every worker the same bundle"
        )
    return load_model(
        bundle,
        device=compute.device,
        threads=compute.engine_threads,
        engine=choice.runtime,
        precision=choice.precision,
        compiled=compute.compile,
        parallel_batches=compute.parallel_batches,
    )


def _asked(job: Job, bundles: Sequence[Bundle], spec: ModelSpec) -> dict[str, Any]:
    wanted = job.model_dump(mode="json", include={"engine", "precision", "compile", "input", "tiling"})
    del wanted["input"]["stage"]  # the mask does not depend on it
    if job.tiling.turns == 1:
        del wanted["tiling"]["turns"]  # runs of earlier versions, which have no turns, go on
    if job.input.tissue not in ("auto", "none"):
        wanted["input"]["tissue"] = unsigned(absolute(job.input.tissue))
    wanted["output"] = {"scores": _kept_names(job.output.scores, spec)}
    models = [{"name": bundle.spec.name, "sha256": bundle.sha256} for bundle in bundles]
    wanted["model"] = models[0] if len(models) == 1 else models
    wanted["cluster"] = {"engine_threads": job.cluster.engine_threads, "device": job.cluster.device}
    return wanted


def _kept_scores(wanted: bool | tuple[str, ...], spec: ModelSpec) -> tuple[int, ...]:
    """The score channels to store.

    Raises:
        JobError: the model gives no score of that name.
    """
    if isinstance(wanted, bool):
        return tuple(range(spec.score_channels)) if wanted else ()
    for name in wanted:
        if name not in spec.score_names:
            raise JobError(
                f"output.scores names {name}, and {spec.name} gives scores of {', '.join(spec.score_names)}; "
                "choose among these"
            )
    return tuple(spec.score_names.index(name) for name in dict.fromkeys(wanted))


def _kept_names(wanted: bool | tuple[str, ...], spec: ModelSpec) -> str:
    return ", ".join(spec.score_names[channel] for channel in _kept_scores(wanted, spec)) or "none"


def _compare(stored: dict[str, Any], asked: dict[str, Any], *, where: str) -> None:
    changes = list(differences(_with_turns(stored), _with_turns(asked)))
    if changes:
        raise StoreError(
            f"the run in {where} was planned differently: {'; '.join(changes)}; give the old value again, or "
            "another run directory"
        )


def _with_turns(asked: dict[str, Any]) -> dict[str, Any]:
    """Choices with the number of turns, which is left out of them where it is 1."""
    return {**asked, "tiling": {"turns": 1, **asked.get("tiling", {})}}


def differences(stored: Mapping[str, Any], asked: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """Differences between two trees of plain data, one sentence each."""
    for key in sorted({*stored, *asked}):
        old, new, place = stored.get(key), asked.get(key), f"{path}.{key}".strip(".")
        if isinstance(old, dict) and isinstance(new, dict):
            yield from differences(old, new, place)
        elif old != new:
            yield f"{place} was {old} and is {new} now"


def anywhere(reference: str) -> str:
    """A path that means the same file from any working directory; any other reference unchanged."""
    at = place(reference)
    return absolute(at.text) if at.kind != "file" or os.path.exists(split_member(at.text)[0]) else at.text
