"""What the model says of clusters and jobs that are not at hand: tables for docs/scale.md."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import scale_fit
from scale_device import Costs, SimulatedWork
from scale_model import Overheads, Trouble, simulate
from scale_plot import plot

WORKERS = (1, 4, 16, 64, 256, 1024, 4096)
SECONDS = (0.1, 0.3, 1.0, 3.0, 10.0)
EACH = 40
"""Tiles of each slot."""
PETA = 1e15


@dataclass(frozen=True, slots=True)
class Peta:
    """A petapixel at a core and a rate."""

    core: int
    rate: float
    """Mpx/s of a slot."""

    @property
    def tiles(self) -> float:
        return PETA / self.core**2

    @property
    def seconds(self) -> float:
        """Of a tile."""
        return self.core**2 / self.rate / 1e6

    def days(self, slots: int) -> float:
        return PETA / self.rate / 1e6 / slots / 86400


def curve(overheads: Overheads, seconds: float, *, most: int = 4096) -> list[tuple[int, float]]:
    """Efficiency against workers, each machine on its own."""
    own = replace(overheads, cores=None)
    found = []
    for workers in (w for w in WORKERS if w <= most):
        work = SimulatedWork(Costs.of_tile(seconds), workers * EACH // 4 or 1)
        found.append((workers, simulate(workers, work, scene_count=4, overheads=own).efficiency))
    return found


def show(path: Path) -> None:
    """Print every table."""
    figures = scale_fit.load(path)
    rows, overheads = figures["efficiency"], scale_fit.of_figures(figures)
    print(overheads)
    print("\nmeasured against the model")
    for row, measured, said in scale_fit.compare(rows, overheads):
        print(
            f"{row['workers']:5} × {row['seconds']:.1f} s: measured {measured:.1%}, model {said:.1%}, "
            f"difference {said - measured:+.1%} (others took {row['others']:.1f} cores)"
        )
    print("\nefficiency on machines of their own, 40 tiles a slot\nworkers " + "".join(f"{w:>8}" for w in WORKERS))
    for seconds in SECONDS:
        print(f"{seconds:5} s " + "".join(f"{100 * part:8.1f}" for _, part in curve(overheads, seconds)))
    print("\na million tiles of 3 s in 10,000 scenes")
    for workers in (64, 256, 1024):
        million(workers, overheads)
    print("\nwith troubles: 256 workers, 100,000 tiles of 10 s in 1000 scenes")
    troubles(overheads)
    print("\na petapixel")
    for core in (4096, 8192, 16384):
        for rate in (5.0, 50.0, 300.0):
            one = Peta(core, rate)
            days = ", ".join(f"{slots}: {one.days(slots):.1f}" for slots in (64, 256, 1024, 4096))
            print(f"core {core}: {one.tiles / 1e6:.1f} M tiles of {one.seconds:.1f} s at {rate} Mpx/s; days by {days}")


def million(workers: int, overheads: Overheads) -> None:
    work = SimulatedWork(Costs.of_tile(3.0, plan=0.5, products=5.0), 100)
    found = simulate(workers, work, scene_count=10_000, overheads=replace(overheads, cores=None))
    print(
        f"{workers} workers: {found.wall / 3600:.2f} h, {found.efficiency:.1%}, "
        f"{found.tiles / found.wall:.0f} tiles/s, busy: driver {found.driver_busy:.0%}, "
        f"scheduler {found.scheduler_busy:.0%}"
    )


def troubles(overheads: Overheads) -> None:
    work, own = SimulatedWork(Costs.of_tile(10.0, plan=0.5, products=10.0), 100), replace(overheads, cores=None)
    kinds = {
        "none": Trouble(),
        "1 tile in 100 takes five times as long": Trouble(slow_share=0.01),
        "a worker lives for an hour": Trouble(life=3600.0),
        "a worker lives for ten minutes": Trouble(life=600.0),
    }
    for name, trouble in kinds.items():
        found = simulate(256, work, scene_count=1000, overheads=own, trouble=trouble)
        print(
            f"{name}: {found.efficiency:.1%}, {found.wall:.0f} s, "
            f"{found.deaths} deaths, {found.repeated} items begun again"
        )


def draw(path: Path, folder: Path) -> None:
    """The plots of docs/scale.md, from what was measured."""
    figures = scale_fit.load(path)
    overheads = scale_fit.of_figures(figures)
    lines = {f"{seconds:g} s a tile": [(w, 100 * e) for w, e in curve(overheads, seconds)] for seconds in SECONDS}
    plot(
        folder / "scale-efficiency.svg",
        title="Efficiency against workers by the model, for tiles of 0.1 to 10 seconds",
        x="workers of one thread",
        y="efficiency, %",
        lines=lines,
        ticks=(WORKERS, (0, 20, 40, 60, 80, 95, 100)),
    )
    samples = figures["memory"]["samples"][1:]
    memory = {name: [(one["tiles"], one[name] / 1e6) for one in samples] for name in ("driver", "scheduler")}
    plot(
        folder / "scale-memory.svg",
        title="Resident memory of driver and scheduler against tiles done",
        x="tiles done",
        y="MB",
        lines=memory,
        ticks=((samples[0]["tiles"], 5_000, 10_000, 20_000, 50_000, 100_000), (0, 50, 100, 150, 200, 250)),
    )
