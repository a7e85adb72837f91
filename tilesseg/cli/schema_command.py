"""`tilesseg schema`: JSON Schema of the files that a user writes."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from tilesseg.errors import JobError


def schema(what: Annotated[str, typer.Argument(metavar="job|model", help="Kind of the file: job or model.")]) -> None:
    """Print the JSON Schema of a job file or of a model.yaml."""
    if what not in ("job", "model"):
        raise JobError(f"there is no schema for {what}; give job or model")
    from tilesseg.models.spec import ModelSpec
    from tilesseg.planning.job import Job

    print(json.dumps((Job if what == "job" else ModelSpec).model_json_schema(), indent=1))
