"""What the server of `warm` imports, and with it every worker that is forked from it. Imported there alone."""

from __future__ import annotations

import gc
import importlib
import signal
from contextlib import suppress

signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of a terminal; the client ends the others

for _name in (
    "distributed.nanny",
    "distributed.worker",
    "tilesseg.run.worker",
    "tilesseg.models.engines.openvino_engine",
):
    with suppress(ImportError):  # of an extra; said where it is wanted
        importlib.import_module(_name)
gc.collect()
gc.freeze()  # or the workers' collectors would copy these pages
