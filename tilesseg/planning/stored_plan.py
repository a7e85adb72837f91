"""A run directory opened again: its plan and the names of its scenes."""

from __future__ import annotations

from pathlib import Path

from tilesseg.planning.plan import PLAN_FILE, Plan, parse_plan
from tilesseg.planning.scene_list import (
    SCENE_LIST,
    read_scene_list,
)
from tilesseg.store.run_directory import RunDirectory


def _stored_plan(directory: RunDirectory, *, keep: bool = False) -> Plan | None:
    """The plan to go on with, or None where no tile has been done by one and it is not to be kept for others."""
    data = directory.read_json(PLAN_FILE) if directory.path.exists() else None
    if data is None:
        return None
    stored = parse_plan(data, where=directory.path)
    return stored if keep or directory.any_done() else None


def open_run_directory(directory: Path) -> tuple[RunDirectory, Plan]:
    """A run that exists.

    Raises:
        StoreError: this is no run directory.
    """
    run = RunDirectory(directory)
    return run, parse_plan(run.read_json(PLAN_FILE), where=directory)


def scene_names(run: RunDirectory) -> list[str]:
    """Names of all scenes that the job names, in its order."""
    path = run.path / SCENE_LIST
    return [scene.name for scene in read_scene_list(path)] if path.exists() else []
