"""`tilesseg schema`: JSON Schema of the files that a user writes."""

from __future__ import annotations

import json
from importlib import import_module
from typing import Annotated

import typer

from tilesseg.errors import JobError

SCHEMAS = {
    "job": "tilesseg.planning.job:Job",
    "train": "tilesseg.training.train_spec:TrainSpec",
    "model": "tilesseg.models.spec:ModelSpec",
}
"""Class of each kind of file."""


def schema(
    what: Annotated[str, typer.Argument(metavar="job|train|model", help="Kind of the file: job, train or model.")],
) -> None:
    """Print the JSON Schema of a job file, of a training spec or of a model.yaml."""
    if what not in SCHEMAS:
        raise JobError(f"there is no schema for {what}; give job, train or model")
    module, name = SCHEMAS[what].split(":")
    print(json.dumps(getattr(import_module(module), name).model_json_schema(), indent=1))
