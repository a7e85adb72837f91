"""The parts of the page that are text: header, legend, split of the time, workers, failures. Everything is escaped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from itertools import islice
from typing import Any

from tilesseg.events import account
from tilesseg.monitoring.dashboard.palette import PART_COLOURS, STATE_COLOURS
from tilesseg.monitoring.humanize import counted, span
from tilesseg.monitoring.live.run_board import Board
from tilesseg.monitoring.live.scene_board import SceneBoard

ROWS = 100
"""Failures that are listed."""
WORKERS = 32
"""Workers that are listed."""
STATE_WORDS = {"silent": "no word from the driver"}


def header(board: Board | None) -> str:
    """Job, how far, how fast, how long."""
    if board is None:
        return "<div class='head'><h1>tilesseg</h1><span class='quiet'>no run has begun on this scheduler</span></div>"
    scenes = board.scene_counts()
    ended = scenes["complete"] + scenes["failed"] + scenes["refused"]
    share = _share(board)
    wrong = f"<b class='wrong'>{counted(board.failure_count, 'failure')}</b>" if board.failure_count else ""
    elapsed = (board.ended or board.now) - board.began if board.began else None
    figures = [
        ("scenes", f"{ended:,} / {board.asked:,}", _about_scenes(scenes)),
        ("tiles", f"{board.done + board.failed:,} / {board.tiles:,}", "of the scenes planned so far"),
        ("Mpx/s", f"{board.rate:.2f}", f"over {board.window:.0f} s" if board.ended is None else "all in all"),
        ("time left", span(board.eta), f"after {span(elapsed)}")
        if board.ended is None
        else ("time", span(elapsed), "in all"),
        ("work factor", f"{board.work_factor:.2f}" if board.work_factor else "–", "predicted ÷ scene pixels"),
    ]
    boxes = "".join(
        f"<div class='figure'><b>{value}</b><i>{name}</i><u>{hint}</u></div>" for name, value, hint in figures
    )
    state = STATE_WORDS.get(board.state, board.state)
    return (
        f"<div class='head'><div class='name'><h1>{escape(board.job or 'job')}</h1>"
        f"<span class='state {'failures' if 'failures' in board.state else board.state}'>{state}</span> {wrong}"
        f"<div class='quiet'>{escape(board.run)}</div></div>{boxes}</div>"
        f"<div class='bar'><div style='width:{share:.2f}%'></div></div>"
    )


def legend(scene: SceneBoard | None, busy: Mapping[str, str], factor: int) -> str:
    """What the colours of the map mean, with the tiles of each."""
    if scene is None:
        return "<div class='legend quiet'>no scene is planned yet</div>"
    keys = "".join(
        f"<span><i style='background:{STATE_COLOURS[state]}'></i>{state} <b>{count:,}</b></span>"
        for state, count in scene.counts(dict(busy)).items()
    )
    note = f" · each square stands for up to {factor} × {factor} tiles" if factor > 1 else ""
    copied = f" · {scene.copied:,} / {scene.regions:,} regions copied" if scene.regions else ""
    height, width = scene.shape
    return (
        f"<div class='legend'><div class='title'><b>{escape(scene.name)}</b> <span class='quiet'>{scene.state} · "
        f"{scene.done + scene.failed:,} / {scene.tiles:,} tiles · {width:,} × {height:,} px · "
        f"work factor {scene.work_factor:.2f}{copied}{note}</span></div>{keys}</div>"
    )


def split(seconds: Mapping[str, float]) -> str:
    """Where the time of the tiles went, as one bar, and what was done beside."""
    own, beside = account(seconds)
    total = sum(own.values())
    if total <= 0:
        return "<div class='split quiet'>no tile is done yet</div>"
    parts = [(part, spent / total) for part, spent in own.items() if spent > 0]
    bar = "".join(
        f"<div style='width:{share * 100:.2f}%;background:{PART_COLOURS.get(part, '#d5d8dc')}'></div>"
        for part, share in parts
    )
    keys = "".join(
        f"<span><i style='background:{PART_COLOURS.get(part, '#d5d8dc')}'></i>"
        f"{escape(part)} <b>{share * 100:.0f} %</b></span>"
        for part, share in parts
    )
    others = ", ".join(f"{part} {spent / total * 100:.0f} %" for part, spent in beside.items() if spent > 0)
    keys += f"<span class='quiet'>at the same time: {others}</span>" if others else ""
    return f"<div class='split'><div class='stack'>{bar}</div><div class='legend'>{keys}</div></div>"


def workers(board: Board, said: Mapping[str, dict[str, Any]]) -> str:
    """A line for each worker: what it does, what it did, its memory now and at most."""
    tables = {str(table.get("worker")): table for table in said.values()}
    names = [*tables, *(name for name in reversed(board.workers) if name not in tables)]
    largest = max([1.0, *(_memory(board, name, tables.get(name))[2] for name in names)])
    rows = "".join(_worker_row(board, name, tables.get(name), largest) for name in names[:WORKERS])
    more = f"<div class='quiet'>and {len(names) - WORKERS:,} more</div>" if len(names) > WORKERS else ""
    head = "<tr><th>worker</th><th>tiles</th><th>now</th><th>memory: now, peak</th></tr>"
    return f"<table class='workers'>{head}{rows}</table>{more}"


def failures(board: Board) -> str:
    """What went wrong, the latest first."""
    if not board.failure_count:
        return "<div class='quiet'>nothing has failed</div>"
    rows = "".join(
        f"<tr><td>{span(failed.when - board.began)}</td><td>{escape(failed.scene)}</td><td>{escape(failed.what)}</td>"
        f"<td class='reason'>{escape(failed.reason)}</td><td>{escape(failed.worker)}</td></tr>"
        for failed in islice(reversed(board.failures), ROWS)
    )
    more = f"<div class='quiet'>and {board.failure_count - ROWS:,} more</div>" if board.failure_count > ROWS else ""
    head = "<tr><th>at</th><th>scene</th><th>what</th><th>reason</th><th>worker</th></tr>"
    return f"<table class='failures'>{head}{rows}</table>{more}"


def _share(board: Board) -> float:
    """How far the whole is, in percent of its pixels."""
    if board.ended is not None and not board.stopped:
        return 100.0
    behind = board.done_pixels + board.failed_pixels
    return 100 * behind / max(1.0, behind + board.left)


def _about_scenes(counts: Mapping[str, int]) -> str:
    return " · ".join(f"{count:,} {state}" for state, count in counts.items() if count) or "none"


def _memory(board: Board, name: str, table: Mapping[str, Any] | None) -> tuple[float, float, float]:
    """Bytes of a worker now, at most so far, and the largest it may have (or had)."""
    found = board.workers.get(name)
    now, limit = (float(table.get("memory", 0)), float(table.get("limit", 0))) if table else (0.0, 0.0)
    peak = max(now, found.peak_mb * 1e6 if found else 0.0)
    return now, peak, max(limit, peak)


def _worker_row(board: Board, name: str, table: Mapping[str, Any] | None, largest: float) -> str:
    found, (now, peak, _) = board.workers.get(name), _memory(board, name, table)
    doing = _doing(table.get("tiles", ())) if table else "gone"
    failed = f" <b class='wrong'>+{found.failed}</b>" if found and found.failed else ""
    bars = (
        f"<div class='peak' style='width:{100 * peak / largest:.1f}%'></div>"
        f"<div class='now' style='width:{100 * now / largest:.1f}%'></div>"
    )
    return (
        f"<tr><td>{escape(name)}</td><td>{found.tiles if found else 0:,}{failed}</td><td class='doing'>{doing}</td>"
        f"<td><div class='memory'>{bars}</div> {now / 1e9:.2f}, {peak / 1e9:.2f} GB</td></tr>"
    )


def _doing(tiles: Iterable[Any]) -> str:
    words = [
        f"<div><i style='background:{STATE_COLOURS.get(phase, '#bbb')}'></i>"
        f"<span title='{escape(scene)}'>{escape(scene)}</span>{escape(tile)}, {seconds:.0f} s</div>"
        for scene, tile, phase, seconds in islice(tiles, 4)
    ]
    return "".join(words) or "idle"
