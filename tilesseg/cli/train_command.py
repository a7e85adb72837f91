"""`tilesseg train`: a network trained from images and labels to a bundle."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from tilesseg.cli.options import AsJson, local_path


def train(
    spec: Annotated[
        Path,
        typer.Argument(metavar="SPEC", parser=local_path, help="A training spec (YAML); see tilesseg schema train."),
    ],
    plan: Annotated[
        bool,
        typer.Option("--plan", help="Say what it takes, by counting the data and ten steps; refuse what cannot work."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Train a network from labelled images to a bundle, or go on where it stopped."""
    if plan:
        from tilesseg.training.training_forecast import forecast_training

        forecast = forecast_training(spec)
        print(json.dumps(forecast.to_json(), indent=1, ensure_ascii=False) if as_json else forecast.text)
        return
    from tilesseg.training.distributed import is_first_process
    from tilesseg.training.train_job import train as carry_out

    with _progress() as listener:
        result = carry_out(spec, listeners=[listener])
    if is_first_process():
        print(json.dumps(result.to_json(), indent=1) if as_json else result.text)


@contextmanager
def _progress() -> Iterator[Any]:
    """Listener that shows the progress of a training on stderr; closed at the end of the context."""
    from tilesseg.monitoring.training_terminal import training_progress_for

    listener = training_progress_for(sys.stderr)
    try:
        yield listener
    finally:
        close = getattr(listener, "close", None)
        if close:
            close()
