"""A SLURM of one node for the tests: the Debian packages, started by hand in a folder of its own, ended by process ids.

Nothing of the machine's own SLURM is touched: key, socket, ports and folders are the test's. The node says it has
more cores than the machine has, so that a driver and several workers fit into it.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

CORES, MEMORY = 16, 16_000
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "sinfo", "scontrol")

CONFIGURATION = """
ClusterName=tilesseg
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
SlurmctldPort={control}
SlurmdPort={node}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
PluginDir={plugins}
PlugStackConfig={folder}/plugstack.conf
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=1
SlurmdParameters=config_overrides
ReturnToService=2
JobRequeue=0
KillWait=3
OverTimeLimit=0
InactiveLimit=0
MinJobAge=60
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} RealMemory={memory} State=UNKNOWN
PartitionName=short Nodes={host} Default=YES MaxTime=30 DefMemPerCPU=500 OverSubscribe=NO State=UP
"""


@dataclass(frozen=True, slots=True)
class Slurm:
    """A running SLURM: where it lies, and the environment in which its commands reach it."""

    folder: Path
    environment: dict[str, str]

    def ask(self, *command: str) -> str:
        """What one of its commands prints."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def jobs(self) -> dict[str, str]:
        """Name of each job that waits or runs, by its id."""
        rows = self.ask("squeue", "--noheader", "--array", "--format=%i %j").splitlines()
        return dict(row.split(maxsplit=1) for row in rows)

    def log(self) -> str:
        """What its daemons said last."""
        return "\n".join(path.read_text()[-3000:] for path in sorted(self.folder.glob("*.log")))


def missing() -> str | None:
    """Why no SLURM can be started here; None if it can."""
    if os.geteuid() != 0:
        return f"SLURM's daemons are started as root, and this is user {os.geteuid()}"
    absent = [name for name in PROGRAMS if _program(name) is None]
    return f"no program {absent[0]}; it comes with the Debian packages slurm-wlm and munge" if absent else None


@contextmanager
def slurm_server(folder: Path) -> Iterator[Slurm]:
    """A SLURM that answers; it and all its jobs are gone afterwards."""
    environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
    slurm = Slurm(folder=folder, environment=environment)
    _configure(folder)
    with ExitStack() as stack:
        stack.enter_context(_daemon(folder, "munged", *_munge(folder), environment=environment))
        wait(lambda: (folder / "munge.socket").exists(), "munged's socket", slurm)
        stack.enter_context(_daemon(folder, "slurmctld", "-D", "-c", environment=environment))
        stack.enter_context(_daemon(folder, "slurmd", "-D", environment=environment))
        wait(lambda: _state(slurm) == "idle", "an idle node", slurm)
        stack.callback(_cancel_all, slurm)
        yield slurm


def wait(until: Callable[[], object], what: str, slurm: Slurm, *, seconds: float = 60) -> None:
    """Wait until something is so; else fail, with what the daemons said."""
    end = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < end, f"waited {seconds} s for {what}\n{slurm.log()}"
        time.sleep(0.25)


def _configure(folder: Path) -> None:
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True)
    (folder / "plugstack.conf").write_text("")
    (folder / "munge.key").write_bytes(os.urandom(128))
    (folder / "munge.key").chmod(0o400)
    control, node = _free_ports(2)
    plugins = next(path.parent for path in Path("/usr/lib").glob("**/slurm*/auth_munge.so"))
    text = CONFIGURATION.format(
        folder=folder,
        host=socket.gethostname().split(".")[0],
        control=control,
        node=node,
        plugins=plugins,
        cores=CORES,
        memory=MEMORY,
    )
    (folder / "slurm.conf").write_text(text)


def _munge(folder: Path) -> list[str]:
    """How munged is told to keep to a folder; `--force`, since a temporary folder may be writable by others."""
    files = {"socket": "socket", "key-file": "key", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
    return ["--foreground", "--force", *(f"--{option}={folder}/munge.{name}" for option, name in files.items())]


@contextmanager
def _daemon(folder: Path, name: str, *arguments: str, environment: dict[str, str]) -> Iterator[None]:
    with (folder / f"{name}.out.log").open("wb") as log:
        process = subprocess.Popen([str(_program(name)), *arguments], env=environment, stdout=log, stderr=log)
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _cancel_all(slurm: Slurm) -> None:
    slurm.ask("scancel", "--user=root")
    wait(lambda: not slurm.jobs(), "an empty queue", slurm)


def _state(slurm: Slurm) -> str:
    command = ["sinfo", "--noheader", "--format=%T"]
    done = subprocess.run(command, env=slurm.environment, capture_output=True, text=True, timeout=60)
    return done.stdout.strip()


def _program(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
