"""Measure how fast a network is by patch size: in a process of its own, some seconds, once for each machine.

In a process of its own, since memory that a runtime has taken it keeps. What was measured is kept in the user's cache
folder; without it, or with a damaged one, it is measured again.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from math import ceil, inf
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilesseg.errors import ModelError, OutOfDeviceMemory, StoreError, TilessegError
from tilesseg.models.download import cache_folder
from tilesseg.models.hardware import able
from tilesseg.models.network import Call, Network, repeated
from tilesseg.models.spec import ModelSpec
from tilesseg.planning.job import TilingOptions
from tilesseg.planning.patch_speed import PatchSpeed, fitting
from tilesseg.planning.plan import Plan, parse_plan
from tilesseg.planning.planned_model import load_planned
from tilesseg.planning.recipe import unused_margin
from tilesseg.planning.tile_layout import measured_patches
from tilesseg.planning.tiling_options import batch_of, choose_lattice
from tilesseg.process import HUGE_PAGES, peak_mb
from tilesseg.raster.tiling import Lattice
from tilesseg.store.ledger import read_json, write_json
from tilesseg.version import __version__

SECONDS = 15.0
"""For all sizes of patch together; one that would take longer is left out."""
PATIENCE = 180.0
"""Seconds after which the process is ended, whatever it does."""
ENOUGH_MB = 2750.0
"""Millions of bytes that a worker process takes at most, tiles and all, however much it has."""
USUAL_WIDTH = 8192
"""Of a core, in pixels."""
ROUNDS = 3
"""In which every size is measured, at most."""
ROUND = 1.0
"""Seconds that a round takes, at least: in a shorter one a small patch would meet a better moment than a large one."""
KEPT = 64
"""Measurements that are remembered, the latest."""

_Row = tuple[int, float, float]
"""A `PatchSpeed` as it is kept."""


def measure(plan: Plan, *, memory: int | None, tiles: int) -> tuple[PatchSpeed, ...]:
    """Speed and memory of the plan's network by patch size, measured on this machine or remembered from before.

    Args:
        plan: whose model, device, runtime, precision and engine threads are measured.
        memory: bytes that a worker process has; None where nobody knows.
        tiles: worked on at the same time in each worker process.

    Returns:
        Those that fit into a worker's memory, by growing patch, and the largest that would; none where not even the
        first one could be measured.

    Raises:
        ModelError: the network cannot be loaded, or does not run.
    """
    limit = ENOUGH_MB if memory is None else min(ENOUGH_MB, memory / 1e6)
    path, key = cache_folder() / "speed.json", _key(plan, limit)
    remembered = _remembered(path)
    if key not in remembered:
        remembered[key] = _measured_apart(plan, limit)
        _remember(path, remembered)
    found = [PatchSpeed(*one) for one in remembered[key]]
    return fitting(
        found,
        lambda one: one.memory_mb + tiles * _tile_mb(one.patch, plan.spec) <= limit,
        step=plan.spec.patch.multiple,
    )


def _key(plan: Plan, limit: float) -> str:
    """Everything that what is measured depends on."""
    tiling, choice = plan.asked["tiling"], plan.choice
    processor = able(plan.device).processor
    cut = [tiling[name] for name in ("overlap", "margin", "blend", "batch")]
    made_of = [plan.model_sha256, plan.device, processor, choice.runtime, choice.precision]
    return json.dumps(
        [__version__, *made_of, plan.engine_threads, plan.parallel_batches, *cut, bool(plan.scores), round(limit)]
    )


def _remembered(path: Path) -> dict[str, list[_Row]]:
    """What was measured before; nothing where the file is damaged."""
    try:
        data = read_json(path)
        return {key: [(int(p), float(s), float(m)) for p, s, m in rows] for key, rows in (data or {}).items()}
    except (StoreError, AttributeError, TypeError, ValueError):
        return {}


def _remember(path: Path, remembered: dict[str, list[_Row]]) -> None:
    """Keep what was measured, unless the machine was too busy to say anything of use."""
    told = [(key, rows) for key, rows in remembered.items() if len(rows) > 1]
    with suppress(OSError):  # where nothing can be kept, it is measured again
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, dict(told[-KEPT:]))


def _tile_mb(patch: int, spec: ModelSpec) -> float:
    """Millions of bytes that a tile of the usual width takes beside the network: a row of patches and one copy."""
    pixel = len(spec.bands) * _dtype(spec).itemsize + 1
    return 2 * patch * (USUAL_WIDTH + patch) * pixel / 1e6


def _measured_apart(plan: Plan, limit: float) -> list[_Row]:
    """Measure in a process of its own; what it had measured when it died or was ended still counts.

    Raises:
        ModelError: the network cannot be loaded, or does not run.
    """
    with TemporaryDirectory(prefix="tilesseg-") as folder:
        order, answers = Path(folder) / "order.json", Path(folder) / "answers.jsonl"
        write_json(order, {"plan": plan.to_json(), "limit_mb": limit, "seconds": SECONDS})
        answers.touch()
        command = [
            sys.executable,
            "-c",
            "from tilesseg.planning.patch_benchmark import answer; answer()",
            str(order),
            str(answers),
        ]
        environment = {**HUGE_PAGES, **os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        # ^ a model may bring code that only this process knows where to find
        with suppress(subprocess.TimeoutExpired):  # what is measured by then is enough
            done = subprocess.run(command, env=environment, capture_output=True, timeout=PATIENCE, check=False)
            if done.returncode > 0:  # below 0 a signal ended it, as the system does where memory is short
                raise ModelError(f"model {plan.spec.name} cannot be measured: {_last_line(done.stderr)}")
        lines = [json.loads(line) for line in answers.read_text(encoding="utf-8").splitlines()]
    for line in lines:
        if isinstance(line, str):
            raise ModelError(line)
    last = {int(patch): (int(patch), float(speed), float(taken)) for patch, speed, taken in lines}
    return list(last.values())


def _last_line(stderr: bytes) -> str:
    return (stderr.decode("utf-8", "replace").strip().splitlines() or ["it says nothing"])[-1]


def answer() -> None:
    """What the process that measures does: `argv` names its order and the file for its answers, sizes or a refusal."""
    order, answers = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")), Path(sys.argv[2])
    with answers.open("a", encoding="utf-8", buffering=1) as out:
        try:
            plan = parse_plan(order["plan"], where=answers)
            for one in by_patch(plan, limit_mb=order["limit_mb"], seconds=order["seconds"]):
                out.write(json.dumps([one.patch, one.mpx_per_s, one.memory_mb]) + "\n")
        except TilessegError as error:
            out.write(json.dumps(str(error)) + "\n")


def by_patch(plan: Plan, *, limit_mb: float, seconds: float) -> Iterator[PatchSpeed]:
    """Measure here and now: by growing patch, until memory or time would not do, and then all in turn.

    What is said last of a size counts. In turn, because a machine's speed may change from second to second.

    Args:
        plan: as `measure`.
        limit_mb: millions of bytes that this process may take.
        seconds: for all sizes together, once the model is loaded.

    Raises:
        ModelError: the network cannot be loaded, or does not run.
    """
    spec, tiling = plan.spec, TilingOptions.model_validate(plan.asked["tiling"])
    _, usual = choose_lattice((USUAL_WIDTH, USUAL_WIDTH), spec, tiling)
    network = load_planned(plan).network(_call(spec, usual, labels=usual.exclusive and not plan.scores))
    until, found, taken = time.perf_counter() + seconds, list[_Size](), [(0.0, peak_mb())]
    for side in measured_patches(spec, tiling):
        one = _Size(side, _patches(spec, side, batch_of(tiling.batch, side, plan.device)), plan.parallel_batches)
        left = until - time.perf_counter()
        if _foreseen(taken, one.mpx) > limit_mb or (found and one.mpx / found[-1].speed > left):
            break
        try:
            one.compile(network, left)
        except OutOfDeviceMemory:  # the sizes before fit
            break
        taken.append((one.mpx, peak_mb()))
        one.memory_mb = taken[-1][1]
        found.append(one)
        yield one.told
    for number in range(ROUNDS if len(found) > 1 else 0):
        if sum(one.round_seconds for one in found) > until - time.perf_counter():
            break
        for one in found:
            one.measure(network, again=number > 0)
    yield from (one.told for one in found)


@dataclass
class _Size:
    """A size of patch, and what is known of it so far."""

    side: int
    patches: NDArray[Any]
    """A batch."""
    parallel_batches: int
    seconds: float = inf
    """That a batch takes in every lane: of the quickest round, for what disturbs takes longer."""
    memory_mb: float = 0.0

    @property
    def mpx(self) -> float:
        """That are predicted when every lane computes a batch."""
        return self.parallel_batches * len(self.patches) * self.side**2 / 1e6

    @property
    def speed(self) -> float:
        return self.mpx / self.seconds

    @property
    def told(self) -> PatchSpeed:
        return PatchSpeed(self.side, round(self.speed, 3), round(self.memory_mb, 1))

    @property
    def batches(self) -> int:
        """In a round, for each lane."""
        return ceil(ROUND / self.seconds)

    @property
    def round_seconds(self) -> float:
        return self.batches * self.seconds

    def compile(self, network: Network, left: float) -> None:
        """Predict a first batch in each lane, which takes longer, and if there is time a second."""
        self.seconds = self._compute(network, 1)
        if self.seconds < left / 2:
            self.seconds = self._compute(network, 1)

    def measure(self, network: Network, *, again: bool) -> None:
        """A round: as long for a small patch as for a large one, or it would sooner meet a good moment."""
        found = self._compute(network, self.batches)
        self.seconds = min(self.seconds, found) if again else found

    def _compute(self, network: Network, batches: int) -> float:
        """Seconds of a batch when every lane computes so many."""

        def lane(number: int) -> None:
            for _ in range(batches):
                network(self.patches)

        with ThreadPoolExecutor(self.parallel_batches) as pool:
            start = time.perf_counter()
            list(pool.map(lane, range(self.parallel_batches)))
            return (time.perf_counter() - start) / batches


def _foreseen(taken: Sequence[tuple[float, float]], mpx: float) -> float:
    """Memory that a call with so many Mpx will take, by the two before it; that of the first is not known."""
    if len(taken) < 2:
        return 0.0
    (less, low), (more, high) = taken[-2:]
    return high if more <= less else high + (high - low) * max(0.0, mpx - more) / (more - less)


def _call(spec: ModelSpec, lattice: Lattice, *, labels: bool) -> Call:
    """A network's ends as a usual scene needs them; its own statistics, where the model wants them, are invented."""
    n = len(spec.bands)
    own = ((0.0,) * n, (1.0,) * n) if spec.normalise.needs_scene else (None, None)
    return Call(_dtype(spec), spec.normalisation(*own), labels, unused_margin(lattice, spec))


def _dtype(spec: ModelSpec) -> np.dtype[Any]:
    """What the model was made for, as far as it says a type that there is."""
    try:
        return np.dtype(spec.dtype)
    except TypeError:
        return np.dtype(np.float32)


def _patches(spec: ModelSpec, side: int, batch: int) -> NDArray[Any]:
    """Noise, the same in every corner: it takes no more memory than the patches themselves."""
    noise = np.random.default_rng(0).uniform(*spec.input_range, (len(spec.bands), 64, 64)).astype(_dtype(spec))
    return repeated(noise, (batch, len(spec.bands), side, side))
