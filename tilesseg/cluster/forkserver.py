"""A warm start for workers: while the client plans, a server imports what they need, and they are forked from it.

Without it, Python and its libraries are loaded anew for each worker once the plan is made, and again for one that takes
the place of a worker that died. It is `multiprocessing`'s own fork server; it imports and does nothing else before it
forks, so that no thread and no device is inherited. It lives as long as the workers. Linux only; elsewhere, and where
the calling program has such a server of its own, workers are spawned.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from multiprocessing import forkserver
from threading import Lock
from typing import TYPE_CHECKING, Any, NamedTuple

from tilesseg.cluster.launch_arguments import environment_of

if TYPE_CHECKING:
    from tilesseg.planning.cluster_options import Cluster


SINGLE = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
"""As Dask's nannies set for their workers: several tiles share the cores. Read when a library is loaded."""
METHOD = "distributed.worker.multiprocessing-method"

_SERVER: Any = getattr(forkserver, "_forkserver", None)  # what the module's functions are methods of
_LOCK = Lock()
_environment: dict[str, str] | None = None
"""That our server has; None where it does not run."""
_users = 0


class Start(NamedTuple):
    """How the nannies of one cluster start their workers."""

    config: dict[str, str]
    """Settings of Dask."""
    environment: dict[str, str]
    """What this process's environment has come to since the server was started."""


def warm_up(asked: Cluster) -> None:
    """Start the server, where workers are started on this machine, and unless it runs. Returns at once."""
    if asked.kind == "local":
        with _LOCK:
            _start(environment_of(asked))


def cool_down() -> None:
    """Let the server end, unless workers live."""
    global _environment
    with _LOCK:
        if _environment is not None and not _users and not multiprocessing.active_children():
            _SERVER._stop()
            _environment = None


@contextmanager
def forked(asked: Cluster) -> Iterator[Start]:
    """While workers live, how they are started."""
    global _users
    with _LOCK:
        ours = _start(environment_of(asked))
        _users += ours
    try:
        yield _from_server() if ours else Start({}, {})
    finally:
        with _LOCK:
            _users -= ours
        cool_down()


def _start(environment: Mapping[str, str]) -> bool:
    """Whether our server runs; `environment` is set for it beside this process's own."""
    global _environment
    if sys.platform != "linux" or not hasattr(_SERVER, "_stop"):
        return False
    if _environment is None and getattr(_SERVER, "_forkserver_pid", None) is not None:
        return False  # it is the calling program's
    if _environment is None:
        _environment = {**SINGLE, **os.environ, **environment}
        forkserver.set_forkserver_preload(["tilesseg.cluster.forkserver_preload"])
        with _set(_environment):
            forkserver.ensure_running()
    return True


def _from_server() -> Start:
    changed = {name: value for name, value in os.environ.items() if (_environment or {}).get(name, "") != value}
    return Start({METHOD: "forkserver"}, changed)


@contextmanager
def _set(environment: Mapping[str, str]) -> Iterator[None]:
    """This process's environment, for as long as it takes to start another."""
    before = dict(os.environ)
    os.environ.update(environment)
    try:
        yield
    finally:
        for name in environment.keys() - before.keys():
            del os.environ[name]
        os.environ.update({name: before[name] for name in environment.keys() & before.keys()})
