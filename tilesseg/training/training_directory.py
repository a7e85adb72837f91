"""The directory of a training: who may write there, and whether what is there was asked for in the same way.

    DIR/  spec.yaml  plan.json  split.csv  log.csv  validation.csv  curve.png  samples/  worst/  state/  bundle/
          result.json

`plan.json` holds the spec as it was given and the identity of every scene and its labels; a training that goes on
compares both. `result.json` is written last: where it is, the training is finished.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tilesseg.errors import StoreError, cannot
from tilesseg.paths import absolute, unsigned
from tilesseg.planning.plan import PLAN_FILE, anywhere, differences
from tilesseg.store.run_directory import RunDirectory
from tilesseg.training.split import PARTS, PartMap
from tilesseg.training.train_spec import TrainSpec, anchored_spec
from tilesseg.version import __version__

FORMAT = 1
SPEC_COPY, SPLIT_FILE, RESULT_FILE = "spec.yaml", "split.csv", "result.json"
STATE, VALIDATION, BUNDLE = "state", "validation", "bundle"
_OURS = (SPEC_COPY, SPLIT_FILE, "log.csv", RESULT_FILE, BUNDLE, STATE)
"""Names in the directory that a training replaces."""


class TrainingDirectory:
    """Directory of a training."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def state(self) -> Path:
        """Folder of the checkpoints."""
        return self.path / STATE

    @property
    def validation(self) -> Path:
        """Folder of the masks of a validation, while it lasts."""
        return self.state / VALIDATION

    @property
    def bundle(self) -> Path:
        """Folder of the trained network."""
        return self.path / BUNDLE

    def claim(self, spec: TrainSpec, identities: Mapping[str, Any]) -> None:
        """Make the directory for a training, or find that the training in it is the same.

        Args:
            spec: the training spec.
            identities: state of the files of each scene and of its labels, by name.

        Raises:
            StoreError: the directory holds another training or other files, or cannot be written.
        """
        asked = {"spec": _asked(spec), "scenes": dict(identities)}
        stored = self._stored()
        if stored is not None:
            self._compare(stored, asked)
            return
        self._refuse_occupied()
        directory = RunDirectory.create(self.path)
        directory.write_text(SPEC_COPY, _yaml(spec))
        directory.write_json(PLAN_FILE, {"training": FORMAT, "version": __version__, **asked})

    def write_split(self, parts: Mapping[str, PartMap]) -> None:
        """Write `split.csv`: the windows of each part of each scene, in pixels.

        Args:
            parts: part of each pixel, by the scene's name.

        Raises:
            StoreError: it cannot be written.
        """
        rows = [
            (name, part, window.y, window.x, window.height, window.width)
            for name, own in parts.items()
            for part in PARTS
            for window in own.windows(part)
        ]
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([("scene", "part", "y", "x", "height", "width"), *rows])
        RunDirectory(self.path).write_text(SPLIT_FILE, text.getvalue())

    def compare_spec(self, spec: TrainSpec) -> None:
        """Compare a spec with the one that the training in the directory began with, where there is one.

        Raises:
            StoreError: they differ.
        """
        stored = self._stored()
        if stored is not None:
            self._compare({"spec": stored["spec"]}, {"spec": _asked(spec)})

    def result(self) -> dict[str, Any] | None:
        """Result of the training, or None where it is not finished."""
        found = RunDirectory(self.path).read_json(RESULT_FILE) if self.path.exists() else None
        return found if isinstance(found, dict) else None

    def write_result(self, result: Mapping[str, Any]) -> None:
        """Write the result, by which the training is finished.

        Raises:
            StoreError: it cannot be written.
        """
        RunDirectory(self.path).write_json(RESULT_FILE, dict(result))

    def _stored(self) -> dict[str, Any] | None:
        data = RunDirectory(self.path).read_json(PLAN_FILE) if self.path.exists() else None
        if data is not None and (not isinstance(data, dict) or data.get("training") != FORMAT):
            cause = f"its {PLAN_FILE} is not of a training that this version of tilesseg began"
            raise StoreError(cannot(f"train in {self.path}", cause, "give another directory"))
        return data

    def _compare(self, stored: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
        for what in asked:
            changes = list(differences(stored[what], asked[what]))
            if changes:
                named = "was asked for differently" if what == "spec" else "began with other files"
                raise StoreError(
                    f"the training in {self.path} {named}: {'; '.join(changes)}; give the old value again, or another "
                    "directory"
                )

    def _refuse_occupied(self) -> None:
        found = next((name for name in _OURS if (self.path / name).exists()), None)
        if found:
            cause = f"{found} lies there, which no training wrote"
            raise StoreError(cannot(f"train in {self.path}", cause, "give it a folder of its own"))


def _asked(spec: TrainSpec) -> dict[str, Any]:
    """The spec as plain data, without that which the network does not depend on, and without the names of its files.

    The files themselves are compared, by their identities.
    """
    data = spec.model_dump(mode="json", by_alias=True)
    del data["output"], data["sampling"]["readers"], data["description"]
    entries = [{key: entry[key] for key in entry if key not in ("scenes", "labels", "area")} for entry in data["data"]]
    for key in ("validate", "test"):
        if isinstance(data["split"][key], str):
            data["split"][key] = absolute(data["split"][key])
    if spec.network.start:
        data["network"]["start"] = anywhere(spec.network.start)
    if spec.input.tissue not in ("auto", "none"):
        data["input"]["tissue"] = unsigned(absolute(spec.input.tissue))
    return {**data, "data": {str(number): entry for number, entry in enumerate(entries)}}


def _yaml(spec: TrainSpec) -> str:
    data = anchored_spec(spec, Path.cwd()).model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=110)
