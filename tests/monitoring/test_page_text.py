"""Laws of the texts of the dashboard's page. The oracle is lxml's parser."""

from __future__ import annotations

from typing import Any

import lxml.html
import pytest
from pretended import CORE, done, planned

from tilesseg.events import RunFinished, RunStarted, SceneRefused, TileFailed
from tilesseg.monitoring.dashboard.page_text import failures, header, legend, split, workers
from tilesseg.monitoring.live.run_board import RunBoard

HOSTILE = """<script>alert(1)</script>"'&"""


def board_named(name: str) -> RunBoard:
    """A board of a run in which all that people name is called `name`: job, folder, scene, worker, reason."""
    board = RunBoard(f"runs/{name}")
    events = [
        RunStarted(2, job=name, directory=name, classes=(name,)),
        planned(name, 2, 3),
        done(name, "r000-c000", worker=name, seconds={"predict": 1.0, "read": 0.5, name: 0.2}),
        done(name, "r000-c001", worker="node2:1"),
        TileFailed(name, "r000-c002", CORE**2, name, name),
        SceneRefused(f"b{name}", name),
    ]
    for number, event in enumerate(events):
        board.take(event, 1000.0 + number)
    return board


def texts_of(name: str) -> dict[str, str]:
    board = board_named(name)
    busy = [(name, "r001-c001", "predicting", 2.0), (name, name, name, 3.0)]
    said = {"a": {"worker": name, "memory": 1e9, "limit": 4e9, "tiles": busy}}
    return {
        "header": header(board),
        "legend": legend(board.scenes[name], {"r001-c001": "predicting"}, 4),
        "split": split(board.seconds),
        "workers": workers(board, said),
        "failures": failures(board),
    }


def structure(text: str) -> list[tuple[Any, list[str]]]:
    page = lxml.html.fragment_fromstring(text, create_parent=True)
    return [(element.tag, sorted(element.keys())) for element in page.iter()]


@pytest.mark.parametrize("text", ["header", "legend", "split", "workers", "failures"])
def test_whatever_people_name_things_a_text_has_the_same_elements(text: str) -> None:
    tame, wild = texts_of("tame")[text], texts_of(HOSTILE)[text]
    assert structure(wild) == structure(tame)
    shown = lxml.html.fragment_fromstring(wild, create_parent=True).text_content()
    assert shown.count(HOSTILE) == lxml.html.fragment_fromstring(tame, create_parent=True).text_content().count("tame")
    assert HOSTILE in shown


def test_a_board_without_anything_has_texts_too() -> None:
    assert "no run has begun" in header(None) and "no scene is planned" in legend(None, {}, 1)
    board = RunBoard("runs/a")
    assert "nothing has failed" in failures(board) and "no tile is done" in split({})
    board.take(RunStarted(1, job="a"), 1000.0)
    board.take(RunFinished(0, 0, 0, 1.0), 1001.0)
    assert "finished" in header(board) and "worker" in workers(board, {})
