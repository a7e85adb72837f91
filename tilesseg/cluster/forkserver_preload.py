"""Imports of the fork server, which every forked worker inherits. Imported by the server alone."""

from __future__ import annotations

import gc
import importlib
import signal
from contextlib import suppress

signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of a terminal; the client ends the workers

for _name in (
    "distributed.nanny",
    "distributed.worker",
    "tilesseg.run.worker",
    "tilesseg.models.engines.openvino_engine",
):
    with suppress(ImportError):  # an extra; reported where it is needed
        importlib.import_module(_name)
gc.collect()
gc.freeze()  # or the workers' collectors would copy these pages
