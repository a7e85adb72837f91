"""Processes of benchmarks: a command measured from outside, a function measured in a process of its own (Linux).

`measure` runs a command and gives wall time, processor seconds and memory of it and of all that it starts: the peak of
the sum over all processes of what each has for itself and its part of what they share (PSS, from
`/proc/<pid>/smaps_rollup`), sampled five times a second. `peaks_of` gives the kernel's high-water mark (VmHWM) of each
process of a run. `alone` calls a function in a new process, whose memory is then the function's own.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[1]
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(CHECKOUT), *sys.path])}
"""Environment of processes that find this checkout and the engines of benchmarks."""
EVERY = 0.2
TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Measured:
    """One run of one command."""

    wall_s: float
    cpu_s: float
    peak_gb: float
    """Of all processes together."""
    error: str | None
    """What went wrong: `limit`, `out of memory`, or the last line that it printed."""
    output: str
    """What it printed."""


def measure(
    command: Sequence[str], *, log: Path, limit: float, memory_gb: float, environment: Mapping[str, str] | None = None
) -> Measured:
    """Run a command until it ends, takes too long, or takes too much memory; what it prints goes to `log`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as file:
        start = time.perf_counter()
        process = subprocess.Popen(
            [*command], stdout=file, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )
        peak, ticks, stopped = _watch(process, start + limit, memory_gb)
        wall = time.perf_counter() - start
    output = log.read_text(errors="replace")
    error = stopped or (_why(process.returncode, output) if process.returncode else None)
    return Measured(wall, ticks, peak, error, output)


def _watch(process: subprocess.Popen[bytes], until: float, memory_gb: float) -> tuple[float, float, str | None]:
    """Peak memory in GB, processor seconds, and why it was stopped, if it was."""
    peak, spent, stopped = 0.0, dict[int, float](), None
    while True:
        pid, _, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            break
        now = 0.0
        for one in family(process.pid):
            now += _memory(one)
            spent[one] = max(spent.get(one, 0.0), _processor(one))
        peak = max(peak, now)
        stopped = stopped or _too_much(until, now, memory_gb)
        if stopped:
            os.killpg(process.pid, signal.SIGKILL)
            _kill(spent)
        time.sleep(EVERY)
    process.returncode = os.waitstatus_to_exitcode(_)
    # ^ the parent's figure has what its children took once they were waited for; the samples have those that were not
    return peak, max(usage.ru_utime + usage.ru_stime, sum(spent.values())), stopped


def _too_much(until: float, now_gb: float, memory_gb: float) -> str | None:
    if time.perf_counter() > until:
        return "limit"
    return "out of memory" if now_gb > memory_gb else None


def _kill(pids: Mapping[int, float]) -> None:
    """Workers that made groups of their own."""
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def _memory(pid: int) -> float:
    """GB (10^9 bytes) that a process has for itself, and its part of what it shares."""
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) * 1024 / 1e9 for line in rollup.splitlines() if line.startswith("Pss:")), 0.0)


def _processor(pid: int) -> float:
    """Seconds that a process itself has computed."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / TICK


def _why(code: int, output: str) -> str:
    if code == -signal.SIGKILL or "MemoryError" in output or "out of memory" in output.lower():
        return "out of memory"
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return f"error {code}: {lines[-1][:160] if lines else 'nothing printed'}"


def python(*arguments: str | Path) -> list[str]:
    """A command in this interpreter."""
    return [sys.executable, *map(str, arguments)]


def tilesseg(*arguments: str | Path) -> list[str]:
    """A command of tilesseg in this interpreter."""
    return python("-m", "tilesseg", *arguments)


def peaks_of(process: subprocess.Popen[Any], every: float = 0.05) -> dict[int, tuple[str, float]]:
    """Role and peak resident memory in MB of a process and of all that it starts, until it ends."""
    peaks: dict[int, tuple[str, float]] = {}
    while process.poll() is None:
        for pid in family(process.pid):
            # the role first: until a new process executes its own program, its memory is its parent's
            part, peak = role(pid), high_water(pid)
            if peak is not None:
                peaks[pid] = part, peak
        time.sleep(every)
    return peaks


def family(pid: int) -> Iterator[int]:
    """A process and everything below it."""
    yield pid
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = task.read_text().split()
        except OSError:
            continue
        for child in children:
            yield from family(int(child))


def high_water(pid: int) -> float | None:
    """VmHWM in MB (10^6 bytes); None once the process has gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return None
    found = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")]
    return int(found[0]) * 1024 / 1e6 if found else None


def role(pid: int) -> str:
    """A worker is spawned, or forked from a server, whose command line it keeps."""
    try:
        if b"spawn_main" in _command_line(pid):
            return "worker"
        parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        return "worker" if all(b"forkserver" in _command_line(one) for one in (pid, parent)) else "other"
    except OSError:
        return "other"


def _command_line(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def peak_mb() -> float:
    """Largest resident size of this process so far, in MB (10^6 bytes); `getrusage` would count the parent's."""
    return high_water(os.getpid()) or 0.0


def alone(function: Callable[..., Any], *arguments: Any) -> Any:
    """Result of a function of a module, called in a process of its own."""
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    process = context.Process(target=_answer, args=(results, function, *arguments))
    process.start()
    answer = results.get(timeout=3600)
    process.join()
    return answer


def _answer(results: Any, function: Callable[..., Any], *arguments: Any) -> None:
    results.put(function(*arguments))
