"""Scale: nothing that the driver or the scheduler holds grows with the tiles, and the model says what is measured."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from benchmarks.scale import fit, scale
from benchmarks.scale.device import Costs, SimulatedWork
from benchmarks.scale.model import Overheads, Trouble, beats, simulate

NONE = Overheads(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, latency=0.0)


def work(seconds: float, tiles: int, **costs: Any) -> SimulatedWork:
    return SimulatedWork(Costs.of_tile(seconds, **costs), tiles)


@pytest.mark.cluster
@pytest.mark.slow
def test_the_scheduler_never_knows_more_tasks_than_a_window_and_what_is_on_its_way() -> None:
    found = scale.measure(8, 0.0, tiles=1000, scene_count=5)
    assert found.tiles == 1000
    assert found.window == 16
    assert 0 < found.known <= 2 * found.window


@pytest.mark.cluster
@pytest.mark.slow
def test_a_measured_run_answers_for_every_tile_of_every_scene_and_wastes_little() -> None:
    found = scale.measure(16, 0.5, tiles=16 * 12, scene_count=4)
    assert (found.tiles, found.items) == (192, 200)
    assert found.efficiency <= 1.0
    assert found.efficiency > 0.5  # 0.95 on a machine of its own; see docs/scale.md


def test_a_feed_holds_a_tile_of_the_scene_in_hand_in_less_than_two_hundred_bytes() -> None:
    found = scale.feed_memory(10_000)
    assert found["tiles"] == 10_000
    assert found["bytes"] < 200 * 10_000


def test_a_straight_line_is_found_in_samples_of_memory() -> None:
    samples = [scale.Sample(n, 10**8 + 7 * n, 10**8) for n in range(0, 1000, 100)]
    assert scale.bytes_per_tile(samples, "driver") == pytest.approx(7)
    assert scale.bytes_per_tile(samples, "scheduler") == pytest.approx(0, abs=1e-6)


def test_a_tile_takes_as_long_on_average_as_its_device_says() -> None:
    simulated = work(2.0, 4000, spread=0.3)
    times = [simulated.costs.tile("a", name) for name in simulated.names("a")]
    assert sum(times) / len(times) == pytest.approx(2.0, rel=0.02)
    assert 1.4 <= min(times) <= max(times) <= 2.6


def test_on_paper_one_worker_without_overheads_is_always_busy() -> None:
    found = simulate(1, work(1.0, 50), scene_count=2, overheads=NONE)
    assert found.tiles == 100
    assert found.efficiency == pytest.approx(1.0)


def test_on_paper_workers_that_share_out_evenly_are_always_busy() -> None:
    found = simulate(16, work(1.0, 160, spread=0.0), overheads=NONE)
    assert found.efficiency == pytest.approx(1.0)


def test_on_paper_what_one_process_does_for_each_tile_bounds_the_rate() -> None:
    driver = simulate(64, work(0.01, 20_000), overheads=replace(NONE, driver_item=2e-3))
    scheduler = simulate(64, work(0.01, 20_000), overheads=replace(NONE, scheduler_item=2e-3))
    for found in (driver, scheduler):
        assert found.tiles / found.wall == pytest.approx(500, rel=0.02)
    assert driver.driver_busy == pytest.approx(1.0, abs=0.02)
    assert scheduler.scheduler_busy == pytest.approx(1.0, abs=0.02)


def test_on_paper_cores_that_are_shared_bound_the_rate_too() -> None:
    found = simulate(64, work(0.0, 20_000), overheads=replace(NONE, worker_item=4e-3, cores=2))
    assert found.tiles / found.wall == pytest.approx(500, rel=0.02)


def test_on_paper_every_tile_is_done_although_workers_die() -> None:
    found = simulate(32, work(10.0, 1000), scene_count=4, trouble=Trouble(life=600.0, seed=3))
    assert found.tiles == 4000
    assert found.deaths > 10
    assert found.deaths <= found.repeated <= 2 * found.deaths
    assert found.efficiency < simulate(32, work(10.0, 1000), scene_count=4).efficiency


def test_on_paper_products_are_written_beside_the_tiles_of_other_scenes() -> None:
    one = simulate(8, work(1.0, 80, products=8.0), scene_count=1)
    many = simulate(8, work(1.0, 80, products=8.0), scene_count=20)
    assert one.efficiency < 0.8  # seven workers have nothing to do while the eighth writes
    assert many.efficiency > 0.95


def test_overheads_are_found_again_in_runs_that_were_made_of_them() -> None:
    true = Overheads(2e-3, 0.5e-3, 1e-3, 0.8e-3, 5e-4, 1e-3, 2e-4)
    rows = [made_of(true, workers=w, tiles=n, batches=b) for w, n, b in RUNS]
    found = fit.fit(rows)
    for name in (
        "driver_batch",
        "driver_item",
        "scheduler_batch",
        "scheduler_item",
        "scheduler_beat",
        "worker_item",
        "worker_beat",
    ):
        assert getattr(found, name) == pytest.approx(getattr(true, name), rel=1e-3), name


RUNS = [(1, 40, 44), (4, 300, 290), (16, 1000, 700), (64, 4000, 900), (64, 20_000, 800), (256, 9000, 2000)]


def made_of(true: Overheads, *, workers: int, tiles: int, batches: int) -> dict[str, Any]:
    wall, items = tiles / workers, tiles + 8
    told = beats(workers) * wall
    return {
        "workers": workers, "tiles": tiles, "scenes": 4, "batches": batches, "wall": wall,
        "driver_cpu": batches * true.driver_batch + items * true.driver_item,
        "scheduler_cpu": batches * true.scheduler_batch + items * true.scheduler_item + told * true.scheduler_beat,
        "worker_cpu": items * true.worker_item + told * true.worker_beat,
    }  # fmt: skip
