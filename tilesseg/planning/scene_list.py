"""List of the scenes of a job, from paths, globs, folders of bands, tables and STAC collections. No image is opened.

A scene that cannot be read is refused when its turn comes, so that a job of 100,000 scenes begins at once.
"""

from __future__ import annotations

import glob
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from fnmatch import translate
from pathlib import Path
from typing import Any

from tilesseg.errors import JobError, SourceError, StoreError, cannot, joined_lines
from tilesseg.formats.contained_images import contained_images, images_of
from tilesseg.formats.stac.stac_catalog import find_items
from tilesseg.formats.stac.stac_items import safe_name, scene_name
from tilesseg.paths import folders_of, opened_by_gdal
from tilesseg.planning.job import SceneEntry
from tilesseg.planning.scene_csv import read_scene_table
from tilesseg.store.ledger import write_text

_BESIDE = (".aux.xml", ".ovr", ".msk", ".tfw", ".tifw", ".wld", ".jgw", ".j2w", ".prj", ".qml")
"""Suffixes of files beside an image, which a glob leaves out."""
_LONGEST = 200
"""Largest number of bytes of a name: file systems take 255, and products have suffixes."""


SCENE_LIST = "scenes.jsonl"
"""File of the run directory with the scenes of the job."""


@dataclass(frozen=True, slots=True)
class Scene:
    """One input image with its own outputs."""

    name: str
    paths: tuple[str, ...]
    mpp: float | None = None
    """Micrometres per pixel, where the job states it for this scene."""
    priority: int = 0
    """Rank in the order of work: scenes of a higher number come first."""
    input: dict[str, Any] = field(default_factory=dict)
    """Keys of the section `input` that differ for this scene."""


def find_scenes(
    requested: str | SceneEntry | Sequence[str | SceneEntry], *, besides: Sequence[str] = ()
) -> tuple[Scene, ...]:
    """Scenes that a job names, in the order of the job.

    Args:
        requested: a path, a glob, a table, a STAC collection, an entry, or a list; see docs/how-to/many-scenes.md.
        besides: names of columns of tables that say something else about a scene, and are left out.

    Raises:
        JobError: a glob matches nothing, a table or collection cannot be read, or two scenes have one name.
    """
    entries = [requested] if isinstance(requested, str | SceneEntry) else requested
    named: dict[str, Scene] = {}
    for scene in _told_apart([pair for entry in entries for pair in _expand(entry, besides)]):
        other = named.setdefault(scene.name, scene)
        if other is not scene:
            raise JobError(
                f"two scenes are called {scene.name}: {other.paths[0]} and {scene.paths[0]}; give one another name"
            )
        _check_name(scene)
    return tuple(named.values())


def _told_apart(scenes: Sequence[tuple[Scene, bool]]) -> list[Scene]:
    """The scenes, where several files would give one name with their folders before it: `a-scene`, `b-scene`.

    Args:
        scenes: each scene, and whether its name is the job's own.
    """
    counts = Counter(scene.name for scene, _ in scenes)
    alike: dict[str, list[str]] = {}
    for scene, own in scenes:
        if counts[scene.name] > 1 and not own:
            alike.setdefault(scene.name, []).append(scene.paths[0])
    names = {name: _with_folders(name, paths) for name, paths in alike.items()}
    return [
        scene if own or counts[scene.name] == 1 else replace(scene, name=names[scene.name][scene.paths[0]])
        for scene, own in scenes
    ]


def _with_folders(name: str, paths: Sequence[str]) -> dict[str, str]:
    """A name for each path: as few of its folders as tell them apart, else the suffix of its file, too."""
    places = {path: [safe_name(part) or "_" for part in folders_of(path)] for path in paths}
    deepest = max(map(len, places.values())) - 1
    for whole, depth in [*((False, k) for k in range(1, deepest + 1)), *((True, k) for k in range(deepest + 1))]:
        names = {
            path: "-".join([*folders[-depth or len(folders) :], file if whole else name])
            for path, (*folders, file) in places.items()
        }
        if len(set(names.values())) == len(paths):
            return names
    return dict.fromkeys(paths, name)


def choose_scenes(scenes: Sequence[Scene], *, only: Sequence[str] = (), limit: int | None = None) -> tuple[Scene, ...]:
    """Scenes to compute, in the order of work: by priority, then in the order of the job.

    Args:
        scenes: all scenes of the job.
        only: names, or patterns with `*`, `?` and `[…]`; empty means all scenes.
        limit: largest number of scenes; the first are taken.

    Raises:
        JobError: no scene has a name or pattern of `only`, or the limit is below 1.
    """
    if limit is not None and limit < 1:
        raise JobError(f"limit {limit} leaves no scene; give 1 or more")
    names = dict.fromkeys(scene.name for scene in scenes)
    wanted = {name for pattern in only for name in _matching(pattern, names)}
    chosen = [scene for scene in scenes if scene.name in wanted] if only else scenes
    return tuple(sorted(chosen, key=lambda scene: -scene.priority)[:limit])


def write_scene_list(path: Path, scenes: Iterable[Scene]) -> None:
    """Write the scenes as JSON, a line for each, whole or not at all; defaults are left out."""
    write_text(path, "".join(f"{json.dumps(_to_json(scene), ensure_ascii=False)}\n" for scene in scenes))


def read_scene_list(path: Path) -> tuple[Scene, ...]:
    """Read a file of `write_scene_list`.

    Raises:
        StoreError: the file is missing or damaged.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError(cannot(f"read {path} as a list of scenes", error, "run the job again")) from None
    return tuple(_from_json(line, where=f"{path}, line {number}") for number, line in enumerate(lines, start=1) if line)


def _expand(entry: str | SceneEntry, besides: Sequence[str]) -> Iterable[tuple[Scene, bool]]:
    """Scenes that an entry names, each with whether its name is the job's own."""
    if isinstance(entry, str):
        return _named_by(entry, besides)
    if not isinstance(entry.image, str):
        return [_of_row(entry)]
    scenes = [(_with(scene, entry), own) for scene, own in _named_by(entry.image, besides)]
    if entry.name is None:
        return scenes
    if len(scenes) > 1:
        raise JobError(
            f"{entry.image} has {len(scenes)} scenes, and name {entry.name} is for a single one; leave it out"
        )
    return [(replace(scenes[0][0], name=entry.name), True)]


def _with(scene: Scene, entry: SceneEntry) -> Scene:
    """Scene with the options of its entry; options of its own row in a table take precedence."""
    return replace(
        scene,
        mpp=entry.mpp if scene.mpp is None else scene.mpp,
        priority=scene.priority or entry.priority,
        input={**entry.input, **scene.input},
    )


def _named_by(path: str, besides: Sequence[str]) -> Iterable[tuple[Scene, bool]]:
    """Scenes that a path names, each with whether its name is the job's own, as in a table."""
    remote = opened_by_gdal(path)
    if not remote and any(sign in path for sign in "*?[") and not os.path.exists(path):
        return _globbed(path)
    if path.lower().endswith(".csv") and not remote:
        return map(_of_row, read_scene_table(Path(path), besides=besides))
    try:
        items = find_items(path)
        inside = contained_images(path) if items is None and not remote else None
    except SourceError as error:
        raise JobError(joined_lines(error)) from None
    if inside is not None:
        return [(Scene(scene_name(one.name), (one.path,)), False) for one in inside]
    if items is None:
        return [(Scene(scene_name(path), (path,)), False)]
    return [(Scene(item.name, (item.path,)), False) for item in items]


def _globbed(pattern: str) -> Iterator[tuple[Scene, bool]]:
    """Scene for each image, or folder that is an image, of a glob. A pattern that ends in `**` matches files only."""
    matches = sorted(path for path in glob.iglob(pattern, recursive=True) if not path.lower().endswith(_BESIDE))
    if os.path.basename(pattern) == "**":
        matches = [path for path in matches if os.path.isfile(path)]
    if not matches:
        raise JobError(f"no image matches {pattern}; correct scenes in the job")
    return ((Scene(scene_name(one.name), (one.path,)), False) for one in images_of(matches))


def _of_row(entry: SceneEntry) -> tuple[Scene, bool]:
    """Scene of a row, or of an entry with several files, and whether it has a name of its own."""
    paths = (entry.image,) if isinstance(entry.image, str) else entry.image
    scene = Scene(entry.name or scene_name(paths[0]), paths, entry.mpp, entry.priority, entry.input)
    return scene, entry.name is not None


def _check_name(scene: Scene) -> None:
    """Refuse a name that no folder can have."""
    name = scene.name
    if not name.strip(". ") or "/" in name or not name.isprintable() or len(name.encode()) > _LONGEST:
        raise JobError(
            f"{scene.paths[0]!r}: {name[:40]!r} cannot be the name of a scene; give it a name without / of up to "
            f"{_LONGEST} bytes"
        )


def _matching(wanted: str, names: Mapping[str, None]) -> list[str]:
    """Names that a name or pattern matches; a name comes before a pattern, since names may have brackets."""
    if wanted in names:
        return [wanted]
    matches = re.compile(translate(wanted)).match
    matching = [name for name in names if matches(name)]
    if not matching:
        examples = get_close_matches(wanted, names, n=3) or list(names)[:3]
        raise JobError(f"none of {len(names)} scenes is called {wanted}; give a name such as {', '.join(examples)}")
    return matching


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
