"""Clusters elsewhere: started, sized, waited for, ended. What their classes get is in `recipes`.

The libraries that start them are extras; the section `cluster` names what is wanted, and nothing here is imported
before it is.
"""

from __future__ import annotations

import asyncio
import logging
import pkgutil
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tilesseg.cluster.launch_arguments import SCHEDULER, arguments_of
from tilesseg.cluster.local_workers import dashboard_address
from tilesseg.errors import JobError
from tilesseg.planning.cluster_options import QUEUES, seconds_of

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from distributed import Client

    from tilesseg.planning.cluster_options import Cluster


EXTRAS = {**dict.fromkeys(QUEUES, "queues"), "ssh": "ssh", "kubernetes": "kubernetes", "gateway": "gateway"}
QUEUE_CLASSES = {"slurm": "SLURMCluster", "pbs": "PBSCluster", "lsf": "LSFCluster", "sge": "SGECluster"}
PATIENCE = {**dict.fromkeys(QUEUES, "1d"), "kubernetes": "1h", "gateway": "1h"}
SOON = "1m"
"""How long the first worker may take: a queue may be full, an image may be large. Others: a minute."""
ELSEWHERE = {
    **SCHEDULER,
    # Before the first tile is measured: half a second, as Dask takes it, would be too little for any tile.
    "distributed.scheduler.unknown-task-duration": "1m",
}
ADAPTING = {"interval": "10s", "wait_count": 30, "target_duration": "1s"}
"""The scheduler sees no more than two tiles for each thread, however many there are. So it is to ask for a thread for
each tile it sees: the workers double each time that they have arrived. One that is idle for five minutes leaves."""
Result = TypeVar("Result")
LOOK_EVERY, TELL_AFTER = 1.0, 10.0
"""Seconds."""
SUBMIT_AGAIN = (5.0, 20.0)
"""Seconds after which a queue that has taken jobs before, and refuses one, is asked again."""


@contextmanager
def started(asked: Cluster, *, logs: Path | None, say: Callable[[str], None]) -> Iterator[Client]:
    """A cluster with its first worker; it ends with the context, and its workers with it.

    Args:
        asked: of a kind that is started, not reached, and not on this machine.
        logs: folder for what the workers of a queue print.
        say: told that one is waiting.

    Raises:
        JobError: the library is missing, the cluster cannot start, or no worker joins it in time.
    """
    import dask
    from distributed import Client

    refusals: list[str] = []
    if logs is not None and asked.kind in QUEUES:
        logs.mkdir(parents=True, exist_ok=True)
    with dask.config.set(ELSEWHERE), ExitStack() as stack:
        opened = _open(asked, arguments_of(asked, logs=logs), refusals)
        cluster = _attempt(asked, lambda: stack.enter_context(opened))
        with _quiet():
            _attempt(asked, lambda: _size(cluster, asked))
            client = _attempt(asked, lambda: stack.enter_context(Client(cluster, set_as_default=False)))
            patience = asked.patience or PATIENCE.get(asked.kind, SOON)
            wait_for_first(client, who=f"kind {asked.kind}", patience=patience, refusals=refusals, say=say)
        yield client


def wait_for_first(
    client: Client, *, who: str, patience: str, refusals: Sequence[str] = (), say: Callable[[str], None]
) -> None:
    """Wait until one worker is there; those that come later are used from then on.

    Args:
        client: of the scheduler that they join.
        who: named in what is said.
        patience: how long, as `2h`.
        refusals: what the queue says meanwhile; the first one ends the waiting.
        say: told that one is waiting.

    Raises:
        JobError: nothing could be submitted, or none came in time.
    """
    begun, tell_after = time.monotonic(), TELL_AFTER
    while not _has_worker(client):
        waited = time.monotonic() - begun
        if refusals:
            raise JobError(f"{who} cannot start a worker: {refusals[0]}")
        if waited > seconds_of(patience):
            raise JobError(f"{who} has 0 workers after {patience}; start workers, or set a longer cluster.patience")
        if waited > tell_after:
            say(f"waiting for the first worker of {who}: {waited:.0f} s so far, at most {patience}")
            tell_after *= 3


def _has_worker(client: Client) -> bool:
    try:
        client.wait_for_workers(1, timeout=LOOK_EVERY)
    except TimeoutError:
        return False
    return True


def _attempt(asked: Cluster, action: Callable[[], Result]) -> Result:
    """Do what is in the hands of another library.

    Raises:
        JobError: whatever it said, with the kind.
    """
    try:
        return action()
    except ImportError as error:
        extra = EXTRAS.get(asked.kind)
        way = f"pip install 'tilesseg[{extra}]'" if extra else "install it"
        raise JobError(f"kind {asked.kind} needs a library that is not here ({error}); {way}") from None
    except Exception as error:  # of a library that tilesseg does not know
        raise JobError(f"cluster of kind {asked.kind} cannot start: {one_line(error)}") from error


def one_line(error: BaseException) -> str:
    """What an error says, and what it comes from; of the queue alone, where dask-jobqueue reports what it said."""
    _, _, queue = str(error).rpartition("stderr:\n")
    if queue.strip():
        return " ".join(queue.split())
    said = " ".join(str(error).split()) or type(error).__name__
    return f"{said} ({one_line(error.__cause__)})" if error.__cause__ else said


def _size(cluster: Any, asked: Cluster) -> None:
    """Ask for the workers, and for others in place of those that leave."""
    from distributed import SpecCluster

    settings = ADAPTING if isinstance(cluster, SpecCluster) else {}
    if asked.adaptive:
        cluster.scale(asked.adaptive.minimum)
        cluster.adapt(minimum=asked.adaptive.minimum, maximum=asked.adaptive.maximum, **settings)
    elif asked.workers != "auto":
        cluster.scale(asked.workers)
        if hasattr(cluster, "job_script"):  # dask-jobqueue submits again only while it adapts
            cluster.adapt(minimum=asked.workers, maximum=asked.workers, **settings)


def _open(asked: Cluster, arguments: dict[str, Any], refusals: list[str]) -> AbstractContextManager[Any]:
    """The cluster of a kind, not yet started."""
    if asked.kind in QUEUES:
        return _queue(asked, arguments, refusals)
    opener = {"ssh": _ssh, "kubernetes": _kubernetes, "gateway": _gateway}.get(asked.kind, _by_name)
    return opener(asked, arguments)


@contextmanager
def _queue(asked: Cluster, arguments: dict[str, Any], refusals: list[str]) -> Iterator[Any]:
    import dask_jobqueue

    kind = getattr(dask_jobqueue, QUEUE_CLASSES[asked.kind])
    heard = _heard(kind.job_cls, refusals)
    head = {"dashboard_address": dashboard_address("")} | arguments.get("scheduler_options", {})
    ours = {"job_cls": heard, "silence_logs": logging.CRITICAL}
    with kind(**{**ours, **arguments, "scheduler_options": head}) as cluster:
        yield cluster


def _heard(job_class: Any, refusals: list[str]) -> Any:
    """The class of jobs, where what the queue says is kept: dask-jobqueue only logs it, and waits for ever."""
    from distributed.core import Status

    accepted: list[str] = []

    async def submit(job: Any, script: str) -> str:
        for pause in (*(SUBMIT_AGAIN if accepted else ()), None):
            try:
                accepted.append(await job_class._submit_job(job, script))
                return accepted[-1]
            except (OSError, RuntimeError) as error:
                if pause is None:
                    job.status = Status.failed
                    refusals.append(one_line(error))
                    raise
            await asyncio.sleep(pause)
        raise AssertionError("the last pause is None")

    async def close(job: Any) -> None:
        await job_class.close(job)
        job.status = Status.closed

    return type(job_class.__name__, (job_class,), {"_submit_job": submit, "close": close})


@contextmanager
def _ssh(asked: Cluster, arguments: dict[str, Any]) -> Iterator[Any]:
    """As `distributed.SSHCluster`, which gives all workers one environment; here each may have a GPU of its own."""
    import asyncssh  # noqa: F401 # the classes below import it where nobody sees it fail
    from distributed import SpecCluster

    scheduler, workers, rest = ssh_specs(asked, arguments)
    with SpecCluster(workers, scheduler, **{"name": "tilesseg", "silence_logs": logging.CRITICAL, **rest}) as cluster:
        yield cluster


def ssh_specs(asked: Cluster, arguments: dict[str, Any]) -> tuple[dict[str, Any], dict[int, Any], dict[str, Any]]:
    """The scheduler, the workers, and what else `SpecCluster` gets."""
    from distributed.deploy.ssh import Scheduler, Worker

    rest = dict(arguments)
    worker, head = rest.pop("worker_options"), rest.pop("scheduler_options")
    name = rest.pop("worker_class")
    way = {"connect_options": rest.pop("connect_options"), "remote_python": rest.pop("remote_python")}
    scheduler = {"cls": Scheduler, "options": {"address": asked.hosts[0], "kwargs": head, **way}}
    workers = {}
    for number, host in enumerate(asked.hosts):
        gpu = {"CUDA_VISIBLE_DEVICES": str(asked.hosts[:number].count(host))} if asked.gpus else {}
        own = {**worker, "env": {**worker["env"], **gpu}}
        workers[number] = {"cls": Worker, "options": {"address": host, "kwargs": own, "worker_class": name, **way}}
    return scheduler, workers, rest


@contextmanager
def _kubernetes(asked: Cluster, arguments: dict[str, Any]) -> Iterator[Any]:
    from dask_kubernetes.operator import KubeCluster

    manifest, rest = kubernetes_manifest(arguments)
    with KubeCluster(custom_cluster_spec=manifest, **rest) as cluster:
        yield cluster


def kubernetes_manifest(arguments: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The `DaskCluster` that the operator makes, without a GPU for its scheduler, and what else `KubeCluster` gets."""
    from dask_kubernetes.operator import make_cluster_spec

    rest = {"name": f"tilesseg-{uuid.uuid4().hex[:8]}", **arguments}
    of_manifest = ("name", "image", "n_workers", "resources", "env", "worker_command", "idle_timeout")
    chosen = {key: rest.pop(key) for key in of_manifest if key in rest}
    manifest: dict[str, Any] = make_cluster_spec(**chosen)
    limits = chosen["resources"]["limits"]
    head = {**chosen["resources"], "limits": {name: value for name, value in limits.items() if "gpu" not in name}}
    for container in manifest["spec"]["scheduler"]["spec"]["containers"]:
        container["resources"] = head
    return manifest, rest


@contextmanager
def _gateway(asked: Cluster, arguments: dict[str, Any]) -> Iterator[Any]:
    from dask_gateway import Gateway

    with Gateway(address=asked.address) as gateway, gateway.new_cluster(**arguments) as cluster:
        yield cluster


@contextmanager
def _by_name(asked: Cluster, arguments: dict[str, Any]) -> Iterator[Any]:
    with pkgutil.resolve_name(asked.kind)(**arguments) as cluster:
        yield cluster


@contextmanager
def _quiet() -> Iterator[None]:
    """Without tornado's traceback of each job that could not be submitted: it is said in one line."""
    log = logging.getLogger("tornado.application")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(level)
