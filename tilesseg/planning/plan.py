"""The plan: a job with every choice made that its scenes share. Plain data, stored, reused when a run goes on.

What the user wrote is compared on resume, what `auto` became is not decided again. So a resumed run gives the
bytes that the uninterrupted one would have given. What is decided of one scene is its `ScenePlan`, made when its turn
comes; see `scenes` and `planning`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, TypeAdapter

from tilesseg.errors import JobError, ModelError, StoreError
from tilesseg.formats.stac.stac_items import split_member
from tilesseg.models.bundle import Bundle, find_bundle, verify_weights
from tilesseg.models.load import choose_for
from tilesseg.models.runtime_choice import NATIVE, Choice
from tilesseg.models.spec import ModelSpec
from tilesseg.models.unet.unet_shapes import margin_of
from tilesseg.planning.machine import NO_MACHINE, Machine
from tilesseg.planning.patch_speed import PatchSpeed
from tilesseg.planning.scene_plan import ScenePlan
from tilesseg.version import __version__

if TYPE_CHECKING:
    from tilesseg.planning.job import Job
    from tilesseg.planning.scene_list import Scene


FORMAT = 5
PLAN_FILE = "plan.json"


@dataclass(frozen=True)
class Plan:
    """Everything about a job that is decided before its first scene."""

    asked: dict[str, Any]
    """What the user wrote, as far as the mask depends on it."""
    model: str
    """The model's reference, as a worker finds it."""
    model_sha256: str
    spec: ModelSpec
    device: str
    engine_threads: int
    slots: int
    """Tiles at the same time, for which cores are chosen."""
    scores: tuple[int, ...] = ()
    """Score channels that are stored beside the mask."""
    choice: Choice = NATIVE
    """Runtime and precision."""
    compile: bool = False
    """Whether torch compiles the network before the first tile."""
    parallel_batches: Annotated[int, Field(alias="lanes")] = 1
    """Number of batches that a worker process computes at the same time; `lanes` in stored plans."""
    speeds: tuple[PatchSpeed, ...] = ()
    """What was measured on the machine that computes; empty where patches are not chosen by it."""
    version: str = __version__
    format: int = FORMAT

    @property
    def score_classes(self) -> tuple[str, ...]:
        """Names of the classes whose scores are stored."""
        return tuple(self.spec.score_names[channel] for channel in self.scores)

    @cached_property
    def _key(self) -> str:
        decided = [self.format, self.asked, self.device, self.engine_threads, self.slots, *self._arithmetic]
        return hashlib.sha256(json.dumps(decided, sort_keys=True).encode()).hexdigest()

    def key(self, scene: Scene) -> str:
        """Names what was asked of a scene: a stored plan of another key was made for something else."""
        asked = json.dumps([self._key, scene.paths, scene.mpp, scene.input], sort_keys=True, default=str)
        return hashlib.sha256(asked.encode()).hexdigest()

    def fingerprint(self, scene: ScenePlan) -> str:
        """Names exactly what a scene's mask is made from: input, network, normalisation, tiling, blending, scores."""
        made_from = {
            "format": self.format,
            "model": [self.model_sha256, *self._arithmetic],
            "scores": self.scores,
            "scene": _SCENE.dump_python(scene, mode="json", exclude={"stage", "decode_factor", "notes"}),
        }
        return hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()

    @property
    def _arithmetic(self) -> tuple[str, str, bool]:
        """What rounds a network's scores in its own way."""
        return self.choice.runtime, self.choice.precision, self.compile

    @property
    def engine(self) -> str:
        """Runtime and precision, and why, for people."""
        runtime = "the model's own" if self.choice.runtime == "own" else self.choice.runtime
        words = ", ".join([runtime, self.choice.precision, *(["compiled"] if self.compile else [])])
        return f"{words}: {self.choice.why}" if self.choice.why else words

    def to_json(self) -> Any:
        return _PLAN.dump_python(self, mode="json", by_alias=True)


_PLAN: TypeAdapter[Plan] = TypeAdapter(Plan)
_SCENE: TypeAdapter[ScenePlan] = TypeAdapter(ScenePlan)


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
        return _PLAN.validate_python(data)
    except ValueError as error:
        raise StoreError(f"{where}: {PLAN_FILE} is damaged ({' '.join(str(error).split())[:200]})") from None


def scene_to_json(scene: ScenePlan) -> Any:
    """A scene's plan as `plan.json` in its folder holds it."""
    return _SCENE.dump_python(scene, mode="json")


def parse_scene_plan(data: Any, *, where: Path) -> ScenePlan:
    """A stored plan of a scene.

    Raises:
        StoreError: it is damaged.
    """
    try:
        return _SCENE.validate_python(data)
    except ValueError as error:
        problem = " ".join(str(error).split())[:200]
        raise StoreError(f"{where}: {PLAN_FILE} is damaged ({problem}); delete {where} to do the scene again") from None


def plan_job(job: Job, machine: Machine | None, *, stored: Plan | None = None) -> Plan:
    """Decide what all scenes share, or go on from the stored plan. No image is opened.

    Args:
        job: what is asked.
        machine: what will compute; `auto` values are decided for it. None where that is not known yet: the plan shows
            whether the job can work, and is not to be stored.
        stored: the plan of a run that goes on; what it decided stays decided.

    Raises:
        TilessegError: the job cannot work, or differs from the one that the stored plan was made for.
    """
    bundle = find_bundle(job.model)
    verify_weights(bundle)
    asked = _asked(job, bundle)
    if stored is not None:
        _compare(stored.asked, asked, where=job.output.dir)
    decided = stored or machine or NO_MACHINE
    choice = _choice(job, bundle, machine, stored)
    shares = decided.device == "cpu" and choice.runtime != "own" and not job.compile
    return Plan(
        asked=asked,
        model=anywhere(job.model),
        model_sha256=bundle.sha256,
        spec=bundle.spec,
        device=decided.device,
        engine_threads=decided.engine_threads,
        slots=decided.slots,
        scores=_kept_scores(job.output.scores, bundle.spec),
        choice=choice,
        compile=job.compile,
        parallel_batches=decided.parallel_batches if shares else 1,
        speeds=stored.speeds if stored else (),
    )


def _choice(job: Job, bundle: Bundle, machine: Machine | None, stored: Plan | None) -> Choice:
    """Runtime and precision: those of the stored plan, those that fit the machine, or none yet.

    Raises:
        ModelError: the machine has not what is asked for, or the network does not run in it.
    """
    if stored is not None:
        return stored.choice
    engine = "torch" if job.compile else job.engine
    return NATIVE if machine is None else choose_for(bundle, machine.able, engine, job.precision)


def _asked(job: Job, bundle: Bundle) -> dict[str, Any]:
    wanted = job.model_dump(mode="json", include={"engine", "precision", "compile", "input", "tiling"})
    del wanted["input"]["stage"]  # the mask does not depend on it
    if job.input.tissue not in ("auto", "none"):
        wanted["input"]["tissue"] = os.path.abspath(job.input.tissue)
    wanted["output"] = {"scores": _kept_names(job.output.scores, bundle.spec)}
    wanted["model"] = {"name": bundle.spec.name, "sha256": bundle.sha256}
    wanted["cluster"] = {"engine_threads": job.cluster.engine_threads, "device": job.cluster.device}
    return wanted


def _kept_scores(asked: bool | tuple[str, ...], spec: ModelSpec) -> tuple[int, ...]:
    """The score channels to store.

    Raises:
        JobError: the model gives no score of that name.
    """
    if isinstance(asked, bool):
        return tuple(range(spec.score_channels)) if asked else ()
    for name in asked:
        if name not in spec.score_names:
            raise JobError(
                f"output.scores names {name}, and {spec.name} gives scores of {', '.join(spec.score_names)}; take these"
            )
    return tuple(spec.score_names.index(name) for name in dict.fromkeys(asked))


def _kept_names(asked: bool | tuple[str, ...], spec: ModelSpec) -> str:
    return ", ".join(spec.score_names[channel] for channel in _kept_scores(asked, spec)) or "none"


def _compare(stored: dict[str, Any], asked: dict[str, Any], *, where: str) -> None:
    found = list(differences(stored, asked))
    if found:
        raise StoreError(
            f"the run in {where} was planned differently: {'; '.join(found)}; give the old value again, or "
            "another run directory"
        )


def differences(stored: Mapping[str, Any], asked: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """What is not the same in two trees of plain data, one sentence each."""
    for key in sorted({*stored, *asked}):
        old, new, place = stored.get(key), asked.get(key), f"{path}.{key}".strip(".")
        if isinstance(old, dict) and isinstance(new, dict):
            yield from differences(old, new, place)
        elif old != new:
            yield f"{place} was {old} and is {new} now"


def check_crop(bundle: Bundle) -> None:
    """Refuse crop where it would not give what whole-image inference gives.

    Raises:
        JobError: a layer sees the whole patch.
        ModelError: the margin that the spec states is below the measured one.
    """
    spec, hazards = bundle.spec, tuple[str, ...]()
    if spec.unet:
        needed = margin_of(spec.unet)
    else:
        from tilesseg.models.crop_safety.receptive_field import receptive_field

        found = receptive_field(spec, bundle.weights_path)
        needed, hazards = found.margin or 0, found.hazards
    if spec.margin is None or spec.margin < needed:
        raise ModelError(
            f"model {spec.name} states a margin of {spec.margin}, and its receptive half-width is {needed}; "
            "correct margin in its model.yaml"
        )
    if hazards:
        raise JobError(
            f"model {spec.name} states a margin of {spec.margin}, and it has {', '.join(hazards)}, which see the whole "
            "patch, so that crop is not exact; take blend: gaussian"
        )


def anywhere(reference: str) -> str:
    """A path that means the same file from any working directory; anything else as it is."""
    here = "://" not in reference and Path(split_member(reference)[0]).exists()
    return os.path.abspath(reference) if here else reference
