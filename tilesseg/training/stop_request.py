"""Stopping a training from outside: Ctrl-C or SIGTERM is a request, which is followed between two steps.

A second signal ends the training at once, by the handlers that were there before.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """Whether the training has been asked to stop."""

    def __init__(self) -> None:
        self.requested = False
        self._before: dict[signal.Signals, Any] = {}

    def refuse_to_go_on(self) -> None:
        """Raise KeyboardInterrupt if the training has been asked to stop."""
        if self.requested:
            raise KeyboardInterrupt

    def _take(self, _number: int, _frame: FrameType | None) -> None:
        self.requested = True
        self._give_back()

    def _give_back(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Request that Ctrl-C and SIGTERM make while the context lasts; in another thread than the main one, none does."""
    stop = StopRequest()
    if threading.current_thread() is threading.main_thread():
        stop._before = {number: signal.signal(number, stop._take) for number in SIGNALS}
    try:
        yield stop
    finally:
        stop._give_back()
