"""Which scenes a job names: paths, globs, folders of bands, tables, STAC collections. No image is opened here.

A scene that cannot be read is refused when its turn comes, so that a job of 100,000 scenes begins at once.
"""

from __future__ import annotations

import glob
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from fnmatch import translate
from pathlib import Path
from typing import Any

from tilesseg.errors import JobError, SourceError, StoreError
from tilesseg.formats.stac.scene_name import scene_name
from tilesseg.formats.stac.stac_catalog import find_items
from tilesseg.planning.job import SceneEntry
from tilesseg.planning.scene_csv import read_scene_table
from tilesseg.store.ledger import write_text

_BESIDE = (".aux.xml", ".ovr", ".msk", ".tfw", ".tifw", ".wld", ".jgw", ".j2w", ".prj", ".qml")
"""What lies beside an image and is none: a glob passes over it."""
_LONGEST = 200
"""Bytes of a name: file systems take 255, and products have suffixes."""


SCENE_LIST = "scenes.jsonl"
"""The list of a job's scenes in its run directory."""


@dataclass(frozen=True, slots=True)
class Scene:
    """One input image with its own outputs."""

    name: str
    paths: tuple[str, ...]
    mpp: float | None = None
    """Micrometres per pixel, where the job says it of this scene."""
    priority: int = 0
    """Scenes of a higher number come first."""
    input: dict[str, Any] = field(default_factory=dict)
    """Keys of the section `input` that are different for this scene."""


def find_scenes(asked: str | SceneEntry | Sequence[str | SceneEntry]) -> tuple[Scene, ...]:
    """The scenes that a job names, in order.

    Args:
        asked: a path, a glob, a table, a STAC collection, an entry, or a list of these; see docs/how-to/many-scenes.md.

    Raises:
        JobError: a glob matches nothing, a table or collection cannot be read, or two scenes have one name.
    """
    entries = [asked] if isinstance(asked, str | SceneEntry) else asked
    named: dict[str, Scene] = {}
    for scene in (scene for entry in entries for scene in _expand(entry)):
        other = named.setdefault(scene.name, scene)
        if other is not scene:
            raise JobError(
                f"two scenes are called {scene.name}: {other.paths[0]} and {scene.paths[0]}; give one a name"
            )
        _check_name(scene)
    return tuple(named.values())


def choose_scenes(scenes: Sequence[Scene], *, only: Sequence[str] = (), limit: int | None = None) -> tuple[Scene, ...]:
    """The scenes to work on, in the order in which they come: by priority, else as they are named.

    Args:
        scenes: all of the job.
        only: names, or patterns with `*`, `?` and `[…]`; none is all of them.
        limit: no more than so many, the first ones.

    Raises:
        JobError: a name or pattern that no scene has, or a limit below 1.
    """
    if limit is not None and limit < 1:
        raise JobError(f"a limit of {limit} scenes, at least 1 needed")
    names = dict.fromkeys(scene.name for scene in scenes)
    wanted = {name for one in only for name in _matching(one, names)}
    chosen = [scene for scene in scenes if scene.name in wanted] if only else scenes
    return tuple(sorted(chosen, key=lambda scene: -scene.priority)[:limit])


def write_scene_list(path: Path, scenes: Iterable[Scene]) -> None:
    """Write the scenes as JSON, one a line, whole or not at all; what is as usual is left out."""
    write_text(path, "".join(f"{json.dumps(_to_json(scene), ensure_ascii=False)}\n" for scene in scenes))


def read_scene_list(path: Path) -> tuple[Scene, ...]:
    """Read what `write_scene_list` wrote.

    Raises:
        StoreError: it is not there, or damaged.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError(f"{path} cannot be read as a list of scenes: {error}; run the job again") from None
    return tuple(_from_json(line, where=f"{path}, line {number}") for number, line in enumerate(lines, start=1) if line)


def _expand(entry: str | SceneEntry) -> Iterable[Scene]:
    if isinstance(entry, str):
        return _named_by(entry)
    if not isinstance(entry.image, str):
        return [_of_row(entry)]
    found = [_with(scene, entry) for scene in _named_by(entry.image)]
    if entry.name is None:
        return found
    if len(found) > 1:
        raise JobError(f"{entry.image} names {len(found)} scenes and the name {entry.name} is for one; leave it out")
    return [replace(found[0], name=entry.name)]


def _with(scene: Scene, entry: SceneEntry) -> Scene:
    """A scene with what is said of all scenes of an entry; what its own row of a table says goes before."""
    return replace(
        scene,
        mpp=entry.mpp if scene.mpp is None else scene.mpp,
        priority=scene.priority or entry.priority,
        input={**entry.input, **scene.input},
    )


def _named_by(path: str) -> Iterable[Scene]:
    """The scenes that one path names."""
    remote = "://" in path or path.startswith("/vsi")
    if not remote and any(sign in path for sign in "*?[") and not os.path.exists(path):
        return _globbed(path)
    if path.lower().endswith(".csv") and not remote:
        return map(_of_row, read_scene_table(Path(path)))
    try:
        items = find_items(path)
    except SourceError as error:
        raise JobError(f"scenes: {error}") from None
    return [Scene(scene_name(path), (path,))] if items is None else [Scene(one.name, (one.path,)) for one in items]


def _globbed(pattern: str) -> Iterator[Scene]:
    """An image, or a folder that is one, for each match. A pattern that ends in `**` means files."""
    matches = sorted(path for path in glob.iglob(pattern, recursive=True) if not path.lower().endswith(_BESIDE))
    if os.path.basename(pattern) == "**":
        matches = [path for path in matches if os.path.isfile(path)]
    if not matches:
        raise JobError(f"no image matches {pattern}; 0 files found")
    return (Scene(scene_name(path), (path,)) for path in matches)


def _of_row(entry: SceneEntry) -> Scene:
    """The one scene of a row, or of an entry of several files."""
    paths = (entry.image,) if isinstance(entry.image, str) else entry.image
    return Scene(entry.name or scene_name(paths[0]), paths, entry.mpp, entry.priority, entry.input)


def _check_name(scene: Scene) -> None:
    """Refuse what cannot be a folder's name."""
    name = scene.name
    if not name.strip(". ") or "/" in name or not name.isprintable() or len(name.encode()) > _LONGEST:
        raise JobError(
            f"{scene.paths[0]!r}: {name[:40]!r} cannot be a scene's name, up to {_LONGEST} bytes without / needed; "
            "give it another name"
        )


def _matching(wanted: str, names: Mapping[str, None]) -> list[str]:
    """The names that are meant; a name before a pattern, for names may have brackets."""
    if wanted in names:
        return [wanted]
    matches = re.compile(translate(wanted)).match
    found = [name for name in names if matches(name)]
    if not found:
        close = get_close_matches(wanted, names, n=3)
        shown = f"close to it are {', '.join(close)}" if close else f"the first ones are {', '.join(list(names)[:3])}"
        raise JobError(f"none of {len(names)} scenes is called {wanted}; {shown}")
    return found


def _to_json(scene: Scene) -> dict[str, Any]:
    fields: dict[str, Any] = {"name": scene.name, "paths": scene.paths}
    for key, value in (("mpp", scene.mpp), ("priority", scene.priority), ("input", scene.input)):
        if value:
            fields[key] = value
    return fields


def _from_json(line: str, *, where: str) -> Scene:
    try:
        fields = json.loads(line)
        return Scene(paths=tuple(fields.pop("paths")), **fields)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(f"{where} is damaged ({error}); delete it, and run the job again") from None
