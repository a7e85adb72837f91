"""Measure the speed of a network by patch size: in a process of its own, some seconds, once for each machine.

In a process of its own, since a runtime keeps the memory that it has taken. Results are kept in the user's cache
folder; where that is missing or damaged, the network is measured again.
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

from tilesseg.errors import ModelError, OutOfDeviceMemory, StoreError, TilessegError, cannot
from tilesseg.models.download import cache_folder
from tilesseg.models.hardware import able
from tilesseg.models.network import Call, Network, repeated
from tilesseg.models.normalisation import Normalisation
from tilesseg.models.spec import ModelSpec
from tilesseg.planning.job import TilingOptions
from tilesseg.planning.machine import PatchSpeed, fitting
from tilesseg.planning.plan import Plan, load_planned, parse_plan
from tilesseg.planning.recipe import unused_margin
from tilesseg.planning.tile_layout import measured_patches
from tilesseg.planning.tiling_options import batch_of, choose_lattice
from tilesseg.process import HUGE_PAGES, peak_mb
from tilesseg.raster.tiling import Lattice
from tilesseg.store.ledger import read_json, write_json
from tilesseg.version import __version__

SECONDS = 15.0
"""Seconds for all sizes of patch together; a size that would take longer is left out."""
PATIENCE = 180.0
"""Seconds after which the process is ended."""
ENOUGH_MB = 2750.0
"""Largest memory of a worker process in millions of bytes, tiles included, even where it has more."""
USUAL_WIDTH = 8192
"""Usual width of a core, in pixels."""
ROUNDS = 3
"""Largest number of rounds; every size is measured once in each."""
ROUND = 1.0
"""Least number of seconds of a round: in a shorter one a small patch would meet a better moment than a large one."""
KEPT = 64
"""Number of measurements that are kept, the latest."""

_Row = tuple[int, float, float]
"""Fields of a `PatchSpeed` as they are kept."""


def measure(plan: Plan, *, memory: int | None, tiles: int) -> tuple[PatchSpeed, ...]:
    """Speed and memory of the plan's network by patch size, measured on this machine or remembered from before.

    Args:
        plan: plan whose model, device, runtime, precision and engine threads are measured.
        memory: number of bytes that a worker process has; None where that is not known.
        tiles: number of tiles at the same time in each worker process.

    Returns:
        All measured sizes that fit into a worker's memory, by growing patch, and the largest that would fit; none
        where not even the first size could be measured.

    Raises:
        ModelError: the network cannot be loaded, or does not run.
    """
    limit = ENOUGH_MB if memory is None else min(ENOUGH_MB, memory / 1e6)
    path, key = cache_folder() / "speed.json", _key(plan, limit)
    remembered = _remembered(path)
    if key not in remembered:
        remembered[key] = _measured_apart(plan, limit)
        _remember(path, remembered)
    speeds = [PatchSpeed(*row) for row in remembered[key]]
    return fitting(
        speeds,
        lambda speed: speed.memory_mb + tiles * _tile_mb(speed.patch, plan.spec) <= limit,
        step=plan.spec.patch.multiple,
    )


def _key(plan: Plan, limit: float) -> str:
    """Everything that a measurement depends on, as text."""
    tiling, compute = plan.asked["tiling"], plan.compute
    processor, choice = able(compute.device).processor, compute.choice
    cut = [tiling[name] for name in ("overlap", "margin", "blend", "batch")]
    made_of = [plan.model_sha256, *plan.averages, compute.device, processor, choice.runtime, choice.precision]
    return json.dumps(
        [__version__, *made_of, compute.engine_threads, compute.parallel_batches, *cut, bool(plan.scores), round(limit)]
    )


def _remembered(path: Path) -> dict[str, list[_Row]]:
    """Earlier measurements; none where the file is damaged."""
    try:
        data = read_json(path)
        return {key: [(int(p), float(s), float(m)) for p, s, m in rows] for key, rows in (data or {}).items()}
    except (StoreError, AttributeError, TypeError, ValueError):
        return {}


def _remember(path: Path, remembered: dict[str, list[_Row]]) -> None:
    """Keep measurements, but for those with a single size: the machine was too busy."""
    useful = [(key, rows) for key, rows in remembered.items() if len(rows) > 1]
    with suppress(OSError):  # where nothing can be kept, the network is measured again
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, dict(useful[-KEPT:]))


def _tile_mb(patch: int, spec: ModelSpec) -> float:
    """Memory of a tile of the usual width beside the network, in millions of bytes: a row of patches and a copy."""
    pixel = len(spec.bands) * _dtype(spec).itemsize + 1
    return 2 * patch * (USUAL_WIDTH + patch) * pixel / 1e6


def _measured_apart(plan: Plan, limit: float) -> list[_Row]:
    """Measure in a process of its own; sizes that it had measured when it died or was ended count.

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
            "from tilesseg.planning.patch_speed import answer; answer()",
            str(order),
            str(answers),
        ]
        environment = {**HUGE_PAGES, **os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        # ^ a model may bring code that only this process knows where to find
        with suppress(subprocess.TimeoutExpired):  # the sizes measured by then are enough
            done = subprocess.run(command, env=environment, capture_output=True, timeout=PATIENCE, check=False)
            if done.returncode > 0:  # below 0 a signal ended it, as the system does where memory is short
                reason = _last_line(done.stderr)
                raise ModelError(
                    cannot(f"measure model {plan.spec.name}", reason, "state tiling.patch, and nothing is measured")
                )
        lines = [json.loads(line) for line in answers.read_text(encoding="utf-8").splitlines()]
    for line in lines:
        if isinstance(line, str):
            raise ModelError(line)
    last = {int(patch): (int(patch), float(speed), float(taken)) for patch, speed, taken in lines}
    return list(last.values())


def _last_line(stderr: bytes) -> str:
    return (stderr.decode("utf-8", "replace").strip().splitlines() or ["it says nothing"])[-1]


def answer() -> None:
    """Entry point of the process that measures: `argv` names its order and the file for its answers."""
    order, answers = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")), Path(sys.argv[2])
    with answers.open("a", encoding="utf-8", buffering=1) as out:
        try:
            plan = parse_plan(order["plan"], where=answers)
            for speed in by_patch(plan, limit_mb=order["limit_mb"], seconds=order["seconds"]):
                out.write(json.dumps([speed.patch, speed.mpx_per_s, speed.memory_mb]) + "\n")
        except TilessegError as error:
            out.write(json.dumps(str(error)) + "\n")


def by_patch(plan: Plan, *, limit_mb: float, seconds: float) -> Iterator[PatchSpeed]:
    """Measure in this process: by growing patch, until memory or time would be exceeded, and then all sizes in turn.

    The last value of a size counts. In turn, because a machine's speed may change from second to second.

    Args:
        plan: as `measure`.
        limit_mb: memory that this process may take, in millions of bytes.
        seconds: number of seconds for all sizes together, once the model is loaded.

    Raises:
        ModelError: the network cannot be loaded, or does not run.
    """
    spec, tiling = plan.spec, TilingOptions.model_validate(plan.asked["tiling"])
    _, usual = choose_lattice((USUAL_WIDTH, USUAL_WIDTH), spec, tiling)
    network = load_planned(plan).network(_call(plan, usual, labels=usual.exclusive and not plan.scores))
    until, sizes, taken = time.perf_counter() + seconds, list[_Size](), [(0.0, peak_mb())]
    for side in measured_patches(spec, tiling):
        batch = _patches(spec, side, batch_of(tiling.batch, side, plan.compute.device))
        size = _Size(side, batch, plan.compute.parallel_batches)
        left = until - time.perf_counter()
        if _foreseen(taken, size.mpx) > limit_mb or (sizes and size.mpx / sizes[-1].speed > left):
            break
        try:
            size.compile(network, left)
        except OutOfDeviceMemory:  # the sizes before fit
            break
        taken.append((size.mpx, peak_mb()))
        size.memory_mb = taken[-1][1]
        sizes.append(size)
        yield size.result
    for number in range(ROUNDS if len(sizes) > 1 else 0):
        if sum(size.round_seconds for size in sizes) > until - time.perf_counter():
            break
        for size in sizes:
            size.measure(network, again=number > 0)
    yield from (size.result for size in sizes)


@dataclass
class _Size:
    """A size of patch and its measurement so far."""

    side: int
    patches: NDArray[Any]
    """A batch of patches."""
    parallel_batches: int
    seconds: float = inf
    """Seconds of a batch beside its parallel batches, in the quickest round: disturbances add time."""
    memory_mb: float = 0.0

    @property
    def mpx(self) -> float:
        """Predicted pixels of all parallel batches together, in millions."""
        return self.parallel_batches * len(self.patches) * self.side**2 / 1e6

    @property
    def speed(self) -> float:
        return self.mpx / self.seconds

    @property
    def result(self) -> PatchSpeed:
        return PatchSpeed(self.side, round(self.speed, 3), round(self.memory_mb, 1))

    @property
    def batches(self) -> int:
        """Number of batches one after the other in a round."""
        return ceil(ROUND / self.seconds)

    @property
    def round_seconds(self) -> float:
        return self.batches * self.seconds

    def compile(self, network: Network, left: float) -> None:
        """Predict first batches, which take longer, and second ones if there is time."""
        self.seconds = self._compute(network, 1)
        if self.seconds < left / 2:
            self.seconds = self._compute(network, 1)

    def measure(self, network: Network, *, again: bool) -> None:
        """A round: as long for a small patch as for a large one, or it would sooner meet a good moment."""
        seconds = self._compute(network, self.batches)
        self.seconds = min(self.seconds, seconds) if again else seconds

    def _compute(self, network: Network, batches: int) -> float:
        """Seconds of a batch where each thread computes so many, one after the other."""

        def compute(number: int) -> None:
            for _ in range(batches):
                network(self.patches)

        with ThreadPoolExecutor(self.parallel_batches) as pool:
            start = time.perf_counter()
            list(pool.map(compute, range(self.parallel_batches)))
            return (time.perf_counter() - start) / batches


def _foreseen(taken: Sequence[tuple[float, float]], mpx: float) -> float:
    """Memory that a call with so many Mpx will take, by the two before it; 0 for the first two."""
    if len(taken) < 2:
        return 0.0
    (less, low), (more, high) = taken[-2:]
    return high if more <= less else high + (high - low) * max(0.0, mpx - more) / (more - less)


def _call(plan: Plan, lattice: Lattice, *, labels: bool) -> Call:
    """Pre- and post-processing as a usual scene needs it; a scene's own statistics, where needed, are invented."""
    first, *others = map(_normalisation, plan.specs)
    return Call(_dtype(plan.spec), first, labels, unused_margin(lattice, plan.spec), tuple(others))


def _normalisation(spec: ModelSpec) -> Normalisation:
    n = len(spec.bands)
    own = ((0.0,) * n, (1.0,) * n) if spec.normalise.needs_scene else (None, None)
    return spec.normalisation(*own)


def _dtype(spec: ModelSpec) -> np.dtype[Any]:
    """Type of the model's input as its spec states it, or float32 where NumPy has no such type."""
    try:
        return np.dtype(spec.dtype)
    except TypeError:
        return np.dtype(np.float32)


def _patches(spec: ModelSpec, side: int, batch: int) -> NDArray[Any]:
    """Noise, the same in every corner: it takes no more memory than the patches themselves."""
    noise = np.random.default_rng(0).uniform(*spec.input_range, (len(spec.bands), 64, 64)).astype(_dtype(spec))
    return repeated(noise, (batch, len(spec.bands), side, side))
