"""The board: figures and maps follow from events alone, and stay small whatever the job."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pretended import CORE, done, failed, planned, refused, story, tiles_of

from tilesseg.events import (
    ProductWritten,
    RegionFailed,
    RegionStaged,
    RunFinished,
    RunStarted,
    SceneFinished,
    ScenePlanned,
)
from tilesseg.inference import worker_phases as phases
from tilesseg.monitoring.dashboard.page_text import header
from tilesseg.monitoring.live.run_board import FAILURES, FORGET_EVERY, RunBoard
from tilesseg.monitoring.live.scene_board import (
    DONE,
    FAILED,
    IMPORTANT_FIRST,
    KEPT_FINISHED,
    STATES,
    WAITING,
    SceneBoard,
    coarsened,
)
from tilesseg.monitoring.live.worker_board import STRETCHES, WORKERS, WorkerBoard


def told(*events: object, every: float = 1.0) -> RunBoard:
    """A board that was told the events, one a second."""
    board = RunBoard("runs/a")
    for number, event in enumerate(events):
        board.take(event, 1000.0 + number * every)  # type: ignore[arg-type]
    return board


def test_a_map_says_of_each_tile_what_was_last_told_of_it() -> None:
    board = told(
        RunStarted(1, job="a"),
        planned("a", 2, 3),
        done("a", "r000-c000"),
        done("a", "r000-c001", patches=0),
        done("a", "r000-c002", attempts=2),
        failed("a", "r001-c000", "the disk is on fire"),
    )
    lines = board.to_json("a", busy={("a", "r001-c001"): "predicting", ("b", "r001-c002"): "reading"})["map"]["lines"]
    assert lines == ["#s+", "!p·"]
    facts = board.scenes["a"].facts(3, board.workers.names)
    assert (facts.worker, facts.error) == ("node1:17", "the disk is on fire")
    assert board.scenes["a"].facts(0, board.workers.names).patches == 9


def test_done_and_failed_tiles_are_not_said_to_be_worked_on_again_but_a_failed_one_may_be() -> None:
    scene = told(RunStarted(1), planned("a", 1, 2), done("a", "r000-c000"), failed("a", "r000-c001")).scenes["a"]
    busy = {"r000-c000": "writing", "r000-c001": "reading"}
    assert [STATES[state] for state in scene.states_with(busy).ravel()] == ["done", "reading"]


def test_tiles_of_an_earlier_run_are_done_without_being_counted_twice() -> None:
    board = told(RunStarted(1), planned("a", 2, 2, done=2))
    board.mark_done_before("a", ["r000-c000", "r000-c001", "not a tile"])
    counts = board.scenes["a"].counts({})
    assert (counts["done"], counts["waiting"], board.done, board.tiles) == (2, 2, 2, 4)


@pytest.mark.parametrize("name", ["r900-c000", "r000-c900", "nonsense", "", "r-1-c0", "r00x-c001"])
def test_a_tile_without_a_place_in_the_map_is_counted_and_not_drawn(name: str) -> None:
    board = told(RunStarted(1), planned("a", 2, 2), done("a", name))
    assert board.scenes["a"].done == 1
    assert board.scenes["a"].counts({})["waiting"] == 4


def test_names_of_tiles_and_their_places_agree() -> None:
    scene = SceneBoard(planned("a", 3, 5), when=0.0)
    assert [scene.place(tile) for tile in tiles_of(planned("a", 3, 5))] == list(range(15))
    assert [scene.tile_at(place) for place in range(15)] == tiles_of(planned("a", 3, 5))


def test_totals_of_a_job_are_those_of_its_events() -> None:
    events = list(story([planned("a", 4, 5), planned("b", 2, 2)], bad=["r001-c001"]))
    data = told(*events).to_json()
    assert data["tiles"] == {"planned": 24, "done": 22, "failed": 2, "skipped": 0, "retried": 0}
    assert data["pixels"] == {"planned": 24 * CORE**2, "done": 22 * CORE**2}
    assert data["scenes"] == {"waiting": 0, "running": 0, "complete": 0, "failed": 2, "refused": 0}
    assert data["seconds"]["predict"] == pytest.approx(22 * 0.7)
    assert (data["state"], data["eta_seconds"], data["failure_count"]) == ("finished with failures", 0.0, 2)


def test_every_kind_of_failure_is_listed_with_its_reason() -> None:
    board = told(
        RunStarted(3),
        planned("a"),
        RegionStaged("a", "r0", 1, 1.0),
        RegionFailed("a", "r1", 1, "cannot be read"),
        failed("a"),
        refused("c"),
        ProductWritten("a", "a.tif", 1.0),
        SceneFinished("a", "failed products", problem="no room"),
    )
    assert [(each.scene, each.what) for each in board.failures] == [
        ("a", "copy of r1"),
        ("a", "r000-c001"),
        ("c", "scene refused"),
        ("a", "products"),
    ]
    assert (board.scenes["a"].copied, board.refused) == (2, 1)


def test_time_left_counts_scenes_that_are_not_planned_yet_like_those_that_are() -> None:
    board = told(RunStarted(4, finished=1), planned("a", 2, 5))
    assert board.pace.eta is None
    for number, tile in enumerate(tiles_of(planned("a", 2, 5))[:5]):
        board.take(done("a", tile, wall=1.0), 1002.0 + number)
    assert board.pace.left == 25 * CORE**2  # five of this one, ten of each of the two to come
    assert board.pace.eta == pytest.approx(board.pace.left / 1e6 / board.pace.rate)
    board.tick(1100.0)
    assert board.pace.eta is None  # nothing has ended in the window


def test_a_driver_that_says_nothing_or_leaves_is_told_from_one_that_finishes() -> None:
    board = told(RunStarted(1))
    board.last_message = 1000.0
    assert board.state == "running"
    board.tick(1040.0)
    assert board.state == "silent"
    board.leave(1041.0)
    assert board.state == "stopped"
    assert told(RunStarted(1), RunFinished(0, 0, 0, 1.0)).state == "finished"


def test_a_run_that_ended_with_failures_has_their_colour_and_not_that_of_success() -> None:
    board = told(RunStarted(1), planned("a", 1, 1), failed("a", "r000-c000"), RunFinished(0, 1, 0, 1.0))
    assert board.state == "finished with failures"
    assert 'class="state failures"' in header(board)
    assert 'class="state finished"' in header(told(RunStarted(1), RunFinished(0, 0, 0, 1.0)))


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 60), st.randoms(use_true_random=False))
def test_a_square_of_a_coarser_map_has_the_most_important_state_of_its_tiles(
    rows: int, columns: int, most: int, random: object
) -> None:
    states = np.array([[random.randrange(len(STATES)) for _ in range(columns)] for _ in range(rows)], np.uint8)  # type: ignore[attr-defined]
    coarse, factor = coarsened(states, most)
    assert coarse.size <= most
    for (row, column), state in np.ndenumerate(coarse):
        part = states[row * factor : (row + 1) * factor, column * factor : (column + 1) * factor]
        assert state == min(part.ravel(), key=IMPORTANT_FIRST.index)


def test_a_coarse_square_is_done_only_when_all_of_its_tiles_are() -> None:
    states = np.full((100, 100), DONE, np.uint8)
    states[50, 50], states[0, 0] = WAITING, FAILED
    coarse, _ = coarsened(states, 100)
    assert sorted(coarse.ravel().tolist())[:2] == [WAITING, DONE]
    assert coarse[0, 0] == FAILED


def test_tiles_of_a_worker_at_the_same_time_have_slots_of_their_own() -> None:
    worker, spans = WorkerBoard(0), [(0.0, 3.0), (1.0, 4.0), (3.0, 5.0), (4.0, 6.0), (2.0, 7.0)]
    assert [worker.slot(*span) for span in spans] == [0, 1, 0, 1, 2]


def test_a_board_of_100_000_tiles_stays_small_and_does_not_grow_with_the_scenes_that_ended() -> None:
    board = told(RunStarted(100_001, job="large"))
    tracemalloc.start()
    big = planned("big", 250, 400)
    board.take(big, 1000.0)
    for number, tile in enumerate(tiles_of(big)[:30_000]):
        board.take(done("big", tile, worker=f"node{number % 5000}:1"), 1000.0 + number)
    used = []
    for number in range(6000):
        if number % 3000 == 0:
            used.append(tracemalloc.get_traced_memory()[0])
        name, state = f"s{number:06d}", "complete" if number % 3 else "failed tiles"
        board.take(ScenePlanned(name, 1, 0, 1, shape=(9, 9), core=(9, 9)), 2e5 + number)
        if number % 3 == 0:
            board.take(failed(name, "r000-c000"), 2e5 + number)
        board.take(SceneFinished(name, state), 2e5 + number)
    used.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    assert used[0] < 15e6 and used[2] - used[1] < 100_000, used
    assert (
        len(board.workers.timeline) == STRETCHES
        and len(board.failures) == FAILURES
        and len(board.workers.by_name) <= WORKERS
    )
    assert len([scene for scene in board.scenes.values() if scene.state == "complete"]) <= KEPT_FINISHED + FORGET_EVERY
    assert board.failure_count == 2000
    assert len(str(board.to_json())) < 300_000


def test_what_a_thread_works_on_is_in_the_table_for_as_long_as_it_does() -> None:
    phases.enter("read")  # of no tile
    with phases.working("a", "r000-c000"):
        assert [row[:3] for row in phases.table()] == [["a", "r000-c000", "reading"]]
        phases.enter("predict")
        assert phases.table()[0][2] == "predicting"
        phases.enter("write")
        assert phases.table()[0][2] == "writing"
    assert phases.table() == []


def test_a_process_that_is_no_worker_announces_nothing() -> None:
    assert not phases.announce()
