"""Interruption of a run by Ctrl-C or SIGTERM: answered at once, ended within seconds, whatever the workers do.

Python raises KeyboardInterrupt between two steps of its main thread, and leaving a run waits for threads, workers and a
scheduler, each of which may hang. So a thread hears of the signal, too: it answers, and ends the process where it has
not ended by itself. Everything that is done has been published whole, so that nothing is lost.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

ENDS_WITHIN = 8.0
"""Seconds from the first signal to the end of the process, at most."""
INTERRUPTED = 130
"""Exit code of a run that was interrupted."""
KEPT = "what is done is kept; run the same command again to go on"
SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def interruptible() -> Iterator[None]:
    """End the process within some seconds of the first Ctrl-C or SIGTERM, and at once at the second.

    Outside the main thread, which alone hears of signals, the context has no effect.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard, told = os.pipe()
    os.set_blocking(told, False)
    before = signal.set_wakeup_fd(told, warn_on_full_buffer=False)
    listener = threading.Thread(target=_listen, args=(heard,), name="tilesseg-interruption", daemon=True)
    listener.start()
    try:
        yield
    except KeyboardInterrupt:
        raise  # and the thread goes on listening: leaving may hang, too
    except BaseException:
        _leave(before, told)
        raise
    else:
        _leave(before, told)


def _leave(before: int, told: int) -> None:
    """Have nobody hear of signals any more, which ends the thread."""
    signal.set_wakeup_fd(before)
    os.close(told)


def _listen(heard: int) -> None:
    """Answer the first signal, and end the process at the second or after some seconds; to be run in a thread."""
    signals = 0
    with os.fdopen(heard, "rb", buffering=0) as stream:
        while signals < 2 and (byte := stream.read(1)):
            if byte[0] not in SIGNALS:
                continue
            signals += 1
            if signals == 1:
                print("stopping: this takes some seconds; Ctrl-C again ends it at once", file=sys.stderr, flush=True)
                threading.Thread(target=_end_later, name="tilesseg-end", daemon=True).start()
    if signals == 2:
        end_now()


def _end_later() -> None:
    threading.Event().wait(ENDS_WITHIN)
    end_now()


def end_now() -> None:
    """End the process and all its descendants without any further step."""
    import psutil

    with suppress(OSError, ValueError):  # nobody reads it any more
        print(f"interrupted: {KEPT}", file=sys.stderr, flush=True)
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            process.kill()
    os._exit(INTERRUPTED)
