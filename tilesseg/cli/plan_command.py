"""`tilesseg plan`: forecast of a job, before its first tile."""

import json
from typing import Annotated

import typer

from tilesseg.cli.options import AsJson, JobFile


def plan(
    job: JobFile,
    limit: Annotated[int, typer.Option(min=1, help="Plan only the first scenes, at most so many.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Forecast tiles, memory, disk and time of a job, and refuse what cannot work.

    Makes the run directory, with tiles.geojson.
    """
    from tilesseg.planning.job import read_job
    from tilesseg.run.forecast import forecast

    result = forecast(read_job(job), limit=limit)
    print(json.dumps(result.to_json(), indent=1) if as_json else result.text)
