"""Clusters on other machines: started, sized, waited for, ended. Their arguments come from `launch_arguments`.

The libraries that start clusters are extras; each is imported only where the section `cluster` requests its kind.
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
from tilesseg.errors import ClusterLost, JobError, joined_lines
from tilesseg.planning.cluster_options import QUEUES, seconds_of

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from distributed import Client

    from tilesseg.planning.cluster_options import Cluster


EXTRAS = {**dict.fromkeys(QUEUES, "queues"), "ssh": "ssh", "kubernetes": "kubernetes", "gateway": "gateway"}
QUEUE_CLASSES = {"slurm": "SLURMCluster", "pbs": "PBSCluster", "lsf": "LSFCluster", "sge": "SGECluster"}
PATIENCE = {**dict.fromkeys(QUEUES, "1d"), "kubernetes": "1h", "gateway": "1h"}
"""Time for which a run waits while it has no worker, by kind: a queue may be full, an image may be large."""
SOON = "1m"
"""Time for which a run of any other kind waits while it has no worker."""
ELSEWHERE = {
    **SCHEDULER,
    # Assumed duration of a tile before the first has ended; Dask's half a second is too short for any tile.
    "distributed.scheduler.unknown-task-duration": "1m",
}
ADAPTING = {"interval": "10s", "wait_count": 30, "target_duration": "1s"}
"""Arguments of `adapt`. The scheduler sees at most two tiles for each thread, however many tiles there are, so it
requests a thread for each tile that it sees: the number of workers doubles each time. A worker leaves after five idle
minutes."""
Result = TypeVar("Result")
LOOK_EVERY, TELL_AFTER = 1.0, 10.0
"""Seconds between two looks for the first worker, and until a message says that the run waits."""
SUBMIT_AGAIN = (5.0, 20.0)
"""Seconds after which a job is submitted again to a queue that refuses it and has taken jobs before."""


@contextmanager
def started(
    section: Cluster, *, logs: Path | None, refusals: list[str], say: Callable[[str], None]
) -> Iterator[Client]:
    """Cluster with its first worker; the cluster and its workers end with the context.

    Args:
        section: section `cluster` of a kind that is started on other machines.
        logs: folder for the output of workers in a queue.
        refusals: list to which the messages of a queue are added that refuses a worker.
        say: called with a message while the run waits.

    Raises:
        JobError: the library is missing, the cluster cannot start, or no worker joins it in time.
    """
    import dask
    from distributed import Client

    if logs is not None and section.kind in QUEUES:
        logs.mkdir(parents=True, exist_ok=True)
    with dask.config.set(ELSEWHERE), ExitStack() as stack:
        opened = _open(section, arguments_of(section, logs=logs), refusals)
        cluster = _attempt(section, lambda: stack.enter_context(opened))
        stack.enter_context(quiet("distributed.client"))
        with quiet("tornado.application"):
            _attempt(section, lambda: _size(cluster, section))
            client = _attempt(section, lambda: stack.enter_context(Client(cluster, set_as_default=False)))
            wait_for_first(
                client, who=f"kind {section.kind}", patience=patience_of(section), refusals=refusals, say=say
            )
        yield client


def patience_of(section: Cluster) -> str:
    """Time to wait while a cluster that tilesseg starts has no worker, as `2h`."""
    return section.patience or PATIENCE.get(section.kind, SOON)


def wait_for_first(
    client: Client, *, who: str, patience: str, refusals: Sequence[str] = (), say: Callable[[str], None]
) -> None:
    """Wait until the first worker is there; workers that come later are used from then on.

    Args:
        client: client of the scheduler that workers join.
        who: name of the cluster, for messages.
        patience: time to wait, as `2h`.
        refusals: messages of the queue, filled meanwhile; the first message ends the waiting.
        say: called with a message while the run waits.

    Raises:
        JobError: nothing could be submitted.
        ClusterLost: no worker came in time.
    """
    begun, tell_after = time.monotonic(), TELL_AFTER
    while not _has_worker(client):
        waited = time.monotonic() - begun
        if refusals:
            raise JobError(f"{who} cannot start a worker: {refusals[0]}; change the section cluster accordingly")
        if waited > seconds_of(patience):
            raise ClusterLost(f"{who} has 0 workers after {patience}; start workers, or set a longer cluster.patience")
        if waited > tell_after:
            say(f"waiting for the first worker of {who}: {waited:.0f} s so far, at most {patience}")
            tell_after *= 3


def _has_worker(client: Client) -> bool:
    try:
        client.wait_for_workers(1, timeout=LOOK_EVERY)
    except TimeoutError:
        return False
    return True


def _attempt(section: Cluster, action: Callable[[], Result]) -> Result:
    """Result of an action of another library.

    Raises:
        JobError: the action fails; with the kind and the library's message.
    """
    try:
        return action()
    except ImportError as error:
        extra = EXTRAS.get(section.kind)
        remedy = f"pip install 'tilesseg[{extra}]'" if extra else "install it"
        raise JobError(f"cluster.kind {section.kind} needs a library that is missing ({error}); {remedy}") from None
    except Exception as error:  # of a library that tilesseg does not know
        problem = cause_of(error)
        raise JobError(f"cluster of kind {section.kind} cannot start: {problem}; change the section cluster") from error


def cause_of(error: BaseException) -> str:
    """Message of an error and of its causes, as one line; of dask-jobqueue only the queue's own output."""
    _, _, queue = str(error).rpartition("stderr:\n")
    if queue.strip():
        return " ".join(queue.split())
    message = joined_lines(error)
    return f"{message} ({cause_of(error.__cause__)})" if error.__cause__ else message


def _size(cluster: Any, section: Cluster) -> None:
    """Request the workers, and replacements for workers that leave."""
    from distributed import SpecCluster

    settings = ADAPTING if isinstance(cluster, SpecCluster) else {}
    if section.adaptive:
        cluster.scale(section.adaptive.minimum)
        cluster.adapt(minimum=section.adaptive.minimum, maximum=section.adaptive.maximum, **settings)
    elif section.workers != "auto":
        cluster.scale(section.workers)
        if hasattr(cluster, "job_script"):  # dask-jobqueue submits again only while it adapts
            cluster.adapt(minimum=section.workers, maximum=section.workers, **settings)


def _open(section: Cluster, arguments: dict[str, Any], refusals: list[str]) -> AbstractContextManager[Any]:
    """Cluster of the requested kind, not yet started."""
    if section.kind in QUEUES:
        return _queue(section, arguments, refusals)
    opener = {"ssh": _ssh, "kubernetes": _kubernetes, "gateway": _gateway}.get(section.kind, _by_name)
    return opener(section, arguments)


@contextmanager
def _queue(section: Cluster, arguments: dict[str, Any], refusals: list[str]) -> Iterator[Any]:
    import dask_jobqueue

    kind = getattr(dask_jobqueue, QUEUE_CLASSES[section.kind])
    recording = _recording(kind.job_cls, refusals)
    head = {"dashboard_address": dashboard_address("")} | arguments.get("scheduler_options", {})
    ours = {"job_cls": recording, "silence_logs": logging.CRITICAL}
    with kind(**{**ours, **arguments, "scheduler_options": head}) as cluster:
        yield cluster


def _recording(job_class: Any, refusals: list[str]) -> Any:
    """Class of jobs that records the queue's refusals; dask-jobqueue only logs them, and waits for ever."""
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
                    refusals.append(cause_of(error))
                    raise
            await asyncio.sleep(pause)
        raise AssertionError("the last pause is None")

    async def close(job: Any) -> None:
        await job_class.close(job)
        job.status = Status.closed

    return type(job_class.__name__, (job_class,), {"_submit_job": submit, "close": close})


@contextmanager
def _ssh(section: Cluster, arguments: dict[str, Any]) -> Iterator[Any]:
    """Cluster like `distributed.SSHCluster`, but each worker has its own environment, and so its own GPU."""
    import asyncssh  # noqa: F401 # the classes below import it where a failure stays unseen
    from distributed import SpecCluster

    scheduler, workers, rest = ssh_specs(section, arguments)
    with SpecCluster(workers, scheduler, **{"name": "tilesseg", "silence_logs": logging.CRITICAL, **rest}) as cluster:
        yield cluster


def ssh_specs(section: Cluster, arguments: dict[str, Any]) -> tuple[dict[str, Any], dict[int, Any], dict[str, Any]]:
    """Scheduler, workers, and further arguments of `SpecCluster`."""
    from distributed.deploy.ssh import Scheduler, Worker

    rest = dict(arguments)
    worker, head = rest.pop("worker_options"), rest.pop("scheduler_options")
    name = rest.pop("worker_class")
    way = {"connect_options": rest.pop("connect_options"), "remote_python": rest.pop("remote_python")}
    scheduler = {"cls": Scheduler, "options": {"address": section.hosts[0], "kwargs": head, **way}}
    workers = {}
    for number, host in enumerate(section.hosts):
        gpu = {"CUDA_VISIBLE_DEVICES": str(section.hosts[:number].count(host))} if section.gpus else {}
        own = {**worker, "env": {**worker["env"], **gpu}}
        workers[number] = {"cls": Worker, "options": {"address": host, "kwargs": own, "worker_class": name, **way}}
    return scheduler, workers, rest


@contextmanager
def _kubernetes(section: Cluster, arguments: dict[str, Any]) -> Iterator[Any]:
    from dask_kubernetes.operator import KubeCluster

    manifest, rest = kubernetes_manifest(arguments)
    with KubeCluster(custom_cluster_spec=manifest, **rest) as cluster:
        yield cluster


def kubernetes_manifest(arguments: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Manifest of a `DaskCluster` without a GPU for its scheduler, and further arguments of `KubeCluster`."""
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
def _gateway(section: Cluster, arguments: dict[str, Any]) -> Iterator[Any]:
    from dask_gateway import Gateway

    with Gateway(address=section.address) as gateway, gateway.new_cluster(**arguments) as cluster:
        yield cluster


@contextmanager
def _by_name(section: Cluster, arguments: dict[str, Any]) -> Iterator[Any]:
    with pkgutil.resolve_name(section.kind)(**arguments) as cluster:
        yield cluster


@contextmanager
def quiet(logger: str) -> Iterator[None]:
    """Hide the messages of a logger that come with a traceback for what our own message says in a line.

    tornado's are on each job that could not be submitted, those of Dask's client on a connection that breaks.
    """
    log = logging.getLogger(logger)
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(level)
