"""The section `cluster` of a job: kind, number and resources of the workers.

The same keys may stand in a file of their own, `cluster: cluster/slurm/gpu.yaml`, so that a description of a machine
serves every job. A key that a kind does not take is refused by name: a key that is silently ignored costs a night.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Auto = Literal["auto"]
HERE = ("local", "serial", "threads")
"""Kinds whose workers run on this machine."""
QUEUES = ("slurm", "pbs", "lsf", "sge")
"""Kinds whose workers are jobs of a queue."""
GROWING = (*QUEUES, "kubernetes", "gateway")
"""Kinds that start as many workers as are requested, so that a number is required."""

_STARTED = {"threads", "environment", "spill"}
_ELSEWHERE = {"cores", "memory", "patience", "restart"}
_SIZED = {"workers", "adaptive", "options"}
_QUEUE = (
    _STARTED
    | _ELSEWHERE
    | _SIZED
    | {"gpus", "walltime", "queue", "account", "lifetime", "setup", "directives", "driver"}
)
TAKES = {
    "serial": {"workers", "threads"},  # without effect: a job can be debugged by changing its kind alone
    "threads": {"workers", "threads"},
    "local": {"workers", "restart"} | _STARTED,
    "address": {"address"} | _ELSEWHERE,
    "ssh": {"hosts", "gpus", "options"} | _STARTED | _ELSEWHERE,
    "slurm": _QUEUE,
    "pbs": _QUEUE,
    "lsf": _QUEUE,
    "sge": _QUEUE - {"gpus"},  # the name of GPUs differs from site to site
    "kubernetes": {"image", "gpus", "driver"} | _STARTED | _ELSEWHERE | _SIZED,
    "gateway": {"address"} | _ELSEWHERE | _SIZED,
    "package.module:Class": _ELSEWHERE | _SIZED,
}
"""Keys that each kind takes beside those of `ALWAYS`."""
ALWAYS = {"kind", "device", "engine_threads"}
NEEDS = {
    "address": ("address",),
    "ssh": ("hosts",),
    **dict.fromkeys(QUEUES, ("cores", "memory")),
    "kubernetes": ("image",),
    "gateway": ("address",),
}

DURATION = r"^\d+(\.\d+)? ?[smhd]$"
MEMORY = r"^\d+(\.\d+)? ?([kMGT]i?)?B$"
VARIABLE = r"^[A-Za-z_][A-Za-z0-9_]*$"
WALLTIME = r"^(\d+-)?\d{1,3}:[0-5]\d:[0-5]\d$"


class Strict(BaseModel):
    """A section of a job file: every key is known or refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Adaptive(Strict):
    """Number of workers that follows the work, between two limits."""

    minimum: int = Field(1, ge=1)
    """Number of workers that are always there."""
    maximum: int = Field(ge=1)
    """Largest number of workers."""

    @model_validator(mode="after")
    def _ordered(self) -> Adaptive:
        if self.minimum > self.maximum:
            raise ValueError(f"minimum {self.minimum} is more than maximum {self.maximum}; exchange them")
        return self


class DriverJob(Strict):
    """Resources of the driver, the job of the queue that hands out tiles and computes none."""

    cores: int = Field(2, ge=1)
    """Number of cores of the driver."""
    memory: str = Field("4GiB", pattern=MEMORY)
    """Memory of the driver, as `4GiB`."""
    walltime: str | None = Field(None, pattern=WALLTIME)
    """Wall time of the driver's job, as `12:00:00`; default: that of the workers."""
    queue: str | None = None
    """Partition or queue of the driver's job; default: that of the workers."""
    directives: tuple[str, ...] = ()
    """Further lines for the queue, for the driver's job."""
    manifest: str | None = None
    """File of a Kubernetes Job whose first container runs tilesseg, relative to the job file (`kubernetes`)."""

    @field_validator("walltime", mode="before")
    @classmethod
    def _clock(cls, value: Any) -> Any:
        """Wall time as text: YAML reads 12:00:00 without quotes as a number to the base of sixty."""
        return clock(value) if isinstance(value, int) else value


class Cluster(Strict):
    """Section `cluster`: kind, number and resources of the workers."""

    kind: str = "local"
    """Kind of the workers. `local`: worker processes on this machine. `address`: a running Dask scheduler. `serial`,
    `threads`: no Dask. `ssh`, `slurm`, `pbs`, `lsf`, `sge`, `kubernetes`, `gateway`, or any cluster class as
    `package.module:Class`."""
    workers: Annotated[int, Field(ge=1)] | Auto = "auto"
    """Number of worker processes; auto (local only): one per GPU, else one for every four cores, at least one."""
    threads: Annotated[int, Field(ge=1)] | Auto = "auto"
    """Number of tiles that a worker computes at the same time; auto: 2, so that reading and writing overlap
    computing."""
    engine_threads: Annotated[int, Field(ge=1)] | Auto = "auto"
    """Number of threads that the network computes with in each worker; auto: the worker's cores, on this machine the
    cores divided by the workers."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device that computes the network: `cpu`, `cuda`, or `auto`: cuda where there is a GPU."""
    address: str | None = None
    """Address of the scheduler, as `tcp://host:8786` (`address`), or of the gateway, as `https://…` (`gateway`)."""
    hosts: tuple[str, ...] = ()
    """Machines (`ssh`): the first runs the scheduler too; a worker for each time that a machine is named."""
    cores: int | None = Field(None, ge=1)
    """Number of cores of each worker. Queues and Kubernetes are requested to give them; for other clusters it states
    what workers have."""
    memory: str | None = Field(None, pattern=MEMORY)
    """Memory of each worker, as `16GiB`; a job that would not fit is refused."""
    gpus: int = Field(0, ge=0, le=1)
    """Number of GPUs of each worker (ssh, queues, Kubernetes): 0 or 1."""
    walltime: str | None = Field(None, pattern=WALLTIME)
    """Wall time of a worker's job, as `02:00:00` (queues)."""
    queue: str | None = None
    """Partition or queue to submit to."""
    account: str | None = None
    """Account or project to charge (queues)."""
    image: str | None = None
    """Container image that has tilesseg (`kubernetes`)."""
    adaptive: Adaptive | None = None
    """Range of the number of workers, which follows the work; default: a fixed number."""
    lifetime: str | None = Field(None, pattern=DURATION)
    """Time after which a worker leaves by itself, as `55m`, before its wall time ends it (queues)."""
    patience: str | None = Field(None, pattern=DURATION)
    """Time to wait for the first worker, and later while no worker is left, as `2h`. Default: 1 d for a queue, 1 h for
    Kubernetes and a gateway, else 1 m."""
    restart: bool | Auto = "auto"
    """Whether the cluster is started again, or its scheduler reached again, where it is lost during a run; auto: on
    this machine only."""
    environment: dict[Annotated[str, Field(pattern=VARIABLE)], str] = Field(default_factory=dict)
    """Environment variables of every worker."""
    setup: tuple[str, ...] = ()
    """Shell lines before a worker starts (queues), as `module load cuda`."""
    directives: tuple[str, ...] = ()
    """Further lines for the queue, as `--constraint=a100`."""
    driver: DriverJob = DriverJob()
    """Resources of the run's own job where the run is submitted (queues and Kubernetes)."""
    spill: str | None = None
    """Folder of the workers for temporary files; default: Dask's own."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Further arguments of the cluster class, passed on as they are."""

    @field_validator("walltime", mode="before")
    @classmethod
    def _clock(cls, value: Any) -> Any:
        """Wall time as text: YAML reads 12:00:00 without quotes as a number to the base of sixty."""
        return clock(value) if isinstance(value, int) else value

    @field_validator("kind")
    @classmethod
    def _known(cls, kind: str) -> str:
        if kind not in TAKES and not re.fullmatch(r"[\w.]+:[\w.]+", kind):
            raise ValueError(f"there is no kind {kind}; give one of {', '.join(TAKES)}")
        return kind

    @model_validator(mode="after")
    def _consistent(self) -> Cluster:
        takes = takes_of(self.kind)
        for key in sorted(self._given() - takes - ALWAYS):
            can = ", ".join(kind for kind, keys in TAKES.items() if key in keys)
            raise ValueError(f"kind {self.kind} takes no {key}, only {can} do; leave it out")
        for key in NEEDS.get(self.kind, ()):
            if not getattr(self, key):
                raise ValueError(f"kind {self.kind} needs {key}, which is missing; add it")
        self._sized()
        self._in_time()
        return self

    def _given(self) -> set[str]:
        return {
            key
            for key, field in type(self).model_fields.items()
            if getattr(self, key) != field.get_default(call_default_factory=True)
        }

    def _sized(self) -> None:
        if self.adaptive and self.workers != "auto":
            raise ValueError(f"workers {self.workers} is a fixed number and adaptive a changing one; leave one out")
        if self.kind in GROWING and self.workers == "auto" and not self.adaptive:
            raise ValueError(f"kind {self.kind} cannot choose workers: auto; give a number, or adaptive with a maximum")

    def _in_time(self) -> None:
        if self.lifetime and self.walltime and seconds_of(self.lifetime) >= seconds_of(self.walltime):
            raise ValueError(f"lifetime {self.lifetime} does not end before walltime {self.walltime}; make it shorter")


def takes_of(kind: str) -> set[str]:
    """Keys that a kind takes, beside those of `ALWAYS`."""
    return TAKES.get(kind, TAKES["package.module:Class"])


def bytes_of(memory: str) -> int:
    """Number of bytes in `16GiB` or `16 GB`."""
    number, unit = re.fullmatch(r"([\d.]+) ?(\w+)", memory).groups()  # type: ignore[union-attr]
    power = " kMGT".index(unit[0]) if unit != "B" else 0
    return int(float(number) * (1024 if "i" in unit else 1000) ** power)


def seconds_of(time: str) -> float:
    """Number of seconds in `55m` or `1-02:00:00`."""
    if ":" not in time:
        return float(time[:-1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[time[-1]]
    days, _, rest = time.rpartition("-")
    hours, minutes, seconds = map(int, rest.split(":"))
    return int(days or 0) * 86400 + hours * 3600 + minutes * 60 + seconds


def clock(seconds: float) -> str:
    """Seconds as `26:00:00`, which every queue understands."""
    return f"{int(seconds) // 3600:02}:{int(seconds) // 60 % 60:02}:{int(seconds) % 60:02}"
