"""Fork server of the workers: it imports their libraries while the client plans, and workers are forked from it.

Without it, each worker would load Python and its libraries anew once the plan is made, and so would each replacement of
a dead worker. The server is `multiprocessing`'s own; before it forks, it only imports, so that workers inherit neither
threads nor devices. It lives as long as the workers. On other systems than Linux, and where the calling program has
its own fork server, workers are spawned.
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
"""Variables that Dask's nannies set for their workers, for several tiles share the cores; read when libraries load."""
METHOD = "distributed.worker.multiprocessing-method"

_SERVER: Any = getattr(forkserver, "_forkserver", None)  # the object whose methods are the module's functions
_LOCK = Lock()
_environment: dict[str, str] | None = None
"""Environment of our server; None where it does not run."""
_users = 0
"""Number of clusters whose workers come from our server."""


class Start(NamedTuple):
    """Settings with which the nannies of a cluster start their workers."""

    config: dict[str, str]
    """Configuration of Dask."""
    environment: dict[str, str]
    """Variables of this process that have changed since the server was started."""


def warm_up(section: Cluster) -> None:
    """Start the server, unless it runs, for workers on this machine. Returns at once."""
    if section.kind == "local":
        with _LOCK:
            _start(environment_of(section))


def cool_down() -> None:
    """Let the server end, unless workers live."""
    global _environment
    with _LOCK:
        if _environment is not None and not _users and not multiprocessing.active_children():
            _SERVER._stop()
            _environment = None


@contextmanager
def forked(section: Cluster) -> Iterator[Start]:
    """Settings for starting workers; the server lives until the context ends."""
    global _users
    with _LOCK:
        ours = _start(environment_of(section))
        _users += ours
    try:
        yield _from_server() if ours else Start({}, {})
    finally:
        with _LOCK:
            _users -= ours
        cool_down()


def _start(environment: Mapping[str, str]) -> bool:
    """Start our server, with `environment` beside this process's own, and return whether it runs."""
    global _environment
    if sys.platform != "linux" or not hasattr(_SERVER, "_stop"):
        return False
    if _environment is None and getattr(_SERVER, "_forkserver_pid", None) is not None:
        return False  # the server is the calling program's
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
    """Set variables of this process's environment while another process starts."""
    before = dict(os.environ)
    os.environ.update(environment)
    try:
        yield
    finally:
        for name in environment.keys() - before.keys():
            del os.environ[name]
        os.environ.update({name: before[name] for name in environment.keys() & before.keys()})
