"""Figures of all runs of a scheduler as Prometheus metrics, on its own `/metrics`."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import REGISTRY, Collector

from tilesseg.monitoring.dashboard.boards import Boards
from tilesseg.monitoring.live.run_board import RunBoard

Sample = tuple[tuple[str, ...], float]
Samples = Callable[[RunBoard], Iterable[Sample]]

_registered: list[Any] = []
_lock = threading.Lock()


class BoardCollector(Collector):
    """Reader of the boards for Prometheus. The label `scene` stands for scenes that run, or are among the last."""

    def __init__(self, boards: Boards) -> None:
        self._boards = boards

    def describe(self) -> Iterable[Metric]:
        """No metrics beforehand: the registry need not know the names."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """All metrics of all boards; where two runs have the same job, those of the later run."""
        self._boards.tick()
        boards = {board.job: board for board in self._boards.by_run.values() if board.began}
        for name, help_text, labels, samples in GAUGES:
            yield _filled(GaugeMetricFamily(name, help_text, labels=["job", *labels]), boards, samples)
        for name, help_text, labels, samples in COUNTERS:
            yield _filled(CounterMetricFamily(name, help_text, labels=["job", *labels]), boards, samples)


def add_collector(boards: Boards) -> BoardCollector:
    """Put a scheduler's boards into the registry of this process, in place of those of an earlier scheduler."""
    collector = BoardCollector(boards)
    with _lock:
        while _registered:
            REGISTRY.unregister(_registered.pop())
        REGISTRY.register(collector)
        _registered.append(collector)
    return collector


def remove_collector(collector: BoardCollector | None) -> None:
    """Take a collector out of the registry, if it is still there."""
    with _lock:
        if collector is not None and collector in _registered:
            _registered.remove(collector)
            REGISTRY.unregister(collector)


def _filled(family: Any, boards: dict[str, RunBoard], samples: Samples) -> Metric:
    for job, board in boards.items():
        for labels, value in samples(board):
            family.add_metric([job, *labels], value)
    metric: Metric = family
    return metric


def _tiles(board: RunBoard) -> Iterator[Sample]:
    for name, scene in board.scenes.items():
        yield (name, "waiting"), max(0, scene.tiles - scene.done - scene.failed)
        yield (name, "done"), scene.done - scene.skipped - scene.retried
        yield (name, "skipped"), scene.skipped
        yield (name, "retried"), scene.retried
        yield (name, "failed"), scene.failed


def _scenes(board: RunBoard) -> Iterator[Sample]:
    return (((state,), count) for state, count in board.scene_counts().items())


def _all_pixels(board: RunBoard) -> Iterator[Sample]:
    yield (), board.done_pixels


def _pixels(board: RunBoard) -> Iterator[Sample]:
    return (((name,), scene.done_pixels) for name, scene in board.scenes.items())


def _seconds(board: RunBoard) -> Iterator[Sample]:
    return (((name, part), spent) for name, scene in board.scenes.items() for part, spent in scene.seconds.items())


def _work(board: RunBoard) -> Iterator[Sample]:
    return (((name,), scene.work_factor) for name, scene in board.scenes.items())


def _rate(board: RunBoard) -> Iterator[Sample]:
    yield (), 0.0 if board.ended is not None else board.pace.rate


def _eta(board: RunBoard) -> Iterator[Sample]:
    eta = 0.0 if board.ended is not None else board.pace.eta
    if eta is not None:
        yield (), eta


def _peaks(board: RunBoard) -> Iterator[Sample]:
    return (((name,), worker.peak_mb * 1e6) for name, worker in board.workers.by_name.items())


GAUGES: tuple[tuple[str, str, list[str], Samples], ...] = (
    ("tilesseg_tiles", "Tiles by state", ["scene", "state"], _tiles),
    ("tilesseg_scenes", "Scenes by state", ["state"], _scenes),
    ("tilesseg_rate_mpx_per_second", "Mpx/s of the tiles that ended lately", [], _rate),
    ("tilesseg_eta_seconds", "Seconds left at this rate", [], _eta),
    ("tilesseg_work_factor", "Predicted pixels / scene pixels", ["scene"], _work),
    ("tilesseg_worker_peak_bytes", "Largest resident memory of a worker so far", ["worker"], _peaks),
)
COUNTERS: tuple[tuple[str, str, list[str], Samples], ...] = (
    ("tilesseg_job_pixels", "Pixels of finished tiles, of all scenes", [], _all_pixels),
    ("tilesseg_pixels", "Pixels of finished tiles", ["scene"], _pixels),
    ("tilesseg_seconds", "Seconds of tiles by part of the work", ["scene", "part"], _seconds),
)
