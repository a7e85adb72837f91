"""What the measurements say of the overheads, and whether the model says what was measured."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import nnls

from benchmarks.scale.device import Costs, SimulatedWork
from benchmarks.scale.model import Overheads, Simulated, beats, simulate

CORES = 2
"""Of the machine of the measurements."""


def load(path: Path) -> dict[str, Any]:
    """What was measured."""
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def of_figures(figures: dict[str, Any]) -> Overheads:
    """The overheads that all measured runs together show."""
    return fit([*figures["efficiency"], *([figures["memory"]] if "memory" in figures else [])])


def fit(rows: Sequence[dict[str, Any]]) -> Overheads:
    """Processor times as sums of what a message, an item and a heartbeat take, by least squares ≥ 0."""
    items = np.array([row["tiles"] + 2 * row["scenes"] for row in rows], float)
    batches = np.array([row["batches"] for row in rows], float)
    beats_told = np.array([beats(row["workers"]) * row["wall"] for row in rows])
    walls = np.array([row["wall"] for row in rows])
    driver = _solve([batches, items, walls], [row["driver_cpu"] for row in rows])
    scheduler = _solve([batches, items, beats_told, walls], [row["scheduler_cpu"] for row in rows])
    told = [k for k, row in enumerate(rows) if row.get("worker_cpu")]
    worker = _solve([items[told], beats_told[told]], [rows[k]["worker_cpu"] for k in told]) if told else [1e-3, 0.0]
    return Overheads(
        driver_batch=driver[0],
        driver_item=driver[1],
        scheduler_batch=scheduler[0],
        scheduler_item=scheduler[1],
        scheduler_beat=scheduler[2],
        worker_item=worker[0],
        worker_beat=worker[1],
        idle=driver[2] + scheduler[3],
    )


def _solve(columns: Sequence[Any], totals: Sequence[float]) -> list[float]:
    """Every row weighs the same, however long it ran."""
    wanted = np.array(totals)
    matrix = np.stack(columns, axis=1) / wanted[:, None]
    return [float(value) for value in nnls(matrix, np.ones(len(wanted)))[0]]


def again(row: dict[str, Any], overheads: Overheads) -> Simulated:
    """A measured run, on paper, on as many cores as others left of the machine."""
    from dataclasses import replace

    cores = max(0.5, CORES - row["others"])
    work = SimulatedWork(Costs.of_tile(row["seconds"]), row["tiles"] // row["scenes"])
    shared = replace(overheads, cores=cores)
    return simulate(row["workers"], work, scene_count=row["scenes"], threads=row["threads"], overheads=shared)


def compare(rows: Sequence[dict[str, Any]], overheads: Overheads) -> list[tuple[dict[str, Any], float, float]]:
    """Efficiency of each measured run: measured, and by the model."""
    return [(row, row["ideal"] / row["wall"], again(row, overheads).efficiency) for row in rows]
