"""How each tool of `bench.py` is called, and what a run of it becomes: a `Row`.

Everything is looked at (`tissue: none`), by every tool: the comparison is of the same pixels.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import rasterio
import rasterio.shutil
import yaml

from benchmarks import harness
from benchmarks.peers import environments, machine, results
from benchmarks.peers.results import Row

LIMIT = 600.0
"""Seconds that a run of a peer may take."""


@dataclass(frozen=True)
class Work:
    """One image, the network, and where results go."""

    name: str
    image: Path
    model: Path
    side: int
    folder: Path
    device: str = "cpu"
    limit: float = LIMIT

    @property
    def mpx(self) -> float:
        return self.side**2 / 1e6

    @property
    def reference(self) -> Path:
        """The mask that the others are compared with, once there is one."""
        return self.folder / f"reference-{self.image.stem}.tif"

    @property
    def environment(self) -> dict[str, str]:
        """Of every process: this checkout, the engines of this folder, and no GPU where none is meant."""
        seen = {} if self.device == "cuda" else {"CUDA_VISIBLE_DEVICES": ""}
        return {**os.environ, **seen, "PYTHONPATH": str(harness.CHECKOUT)}

    def run(self, command: Sequence[str], name: str, *, limit: float | None = None) -> harness.Measured:
        return harness.measure(
            command, log=self.folder / "logs" / f"{name}.txt", limit=self.limit if limit is None else limit,
            memory_gb=0.9 * machine.memory_gb(), environment=self.environment,
        )  # fmt: skip

    def row(self, tool: str, engine: str, precision: str, found: harness.Measured, **more: Any) -> Row:
        """A run as a row; of one that failed there is the error, and how long it took."""
        row = Row(self.name, tool, engine, precision, self.mpx, found.wall_s, found.cpu_s, found.peak_gb)
        if found.error:
            return replace(row, error=found.error)
        return replace(row, mpx_per_s=self.mpx / found.wall_s, **more)

    def agreement(self, mask: Path) -> float | None:
        return results.agreement(mask, self.reference) if self.reference.exists() else None


@dataclass(frozen=True)
class Ours:
    """tilesseg, asked for an engine and a precision; `tiling` where it is not left to `auto`."""

    engine: str = "auto"
    precision: str = "auto"
    tool: str = "tilesseg"
    tiling: tuple[tuple[str, Any], ...] = ()
    reference: bool = False
    kind: str = "local"
    """Of the cluster: the default, or `threads` of one process."""

    @property
    def slug(self) -> str:
        return f"{self.tool}-{self.engine}-{self.precision}".replace(" ", "_").replace(",", "")

    def job(self, work: Work, run: Path) -> Path:
        """The job file: what a user would write, and nothing more."""
        data = {
            "scenes": str(work.image),
            "model": str(work.model),
            "input": {"tissue": "none"},
            "tiling": dict(self.tiling),
            "engine": self.engine,
            "precision": self.precision,
            "output": {"dir": str(run)},
            "cluster": {"kind": self.kind, "device": work.device},
        }
        path = work.folder / f"{self.slug}.yaml"
        path.write_text(yaml.safe_dump(data), encoding="utf-8")
        return path

    def plan(self, work: Work) -> dict[str, Any]:
        """What it will do, by its own account.

        Raises:
            RuntimeError: it refuses the job.
        """
        run = work.folder / "planned"
        shutil.rmtree(run, ignore_errors=True)
        call = harness.python("-m", "tilesseg", "plan", self.job(work, run), "--json")
        done = subprocess.run(call, env=work.environment, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError((done.stderr.strip() or done.stdout.strip()).splitlines()[-1][:160])
        plan: dict[str, Any] = json.loads(done.stdout)
        return plan

    def carry_out(self, work: Work, plan: dict[str, Any], bare: float | None) -> Row:
        """One run, into a directory that is not there yet; `bare` is the network's rate in this round."""
        run = work.folder / "run"
        shutil.rmtree(run, ignore_errors=True)
        job = self.job(work, run)
        found = work.run(harness.python("-m", "tilesseg", "run", job), self.slug, limit=max(work.limit, 7200.0))
        scene = plan["scenes"][0]
        predicted = scene["work_factor"] * work.mpx * 1e6
        row = work.row(
            self.tool, plan["engine"], plan["precision"], found,
            work_factor=scene["work_factor"], of_bare=found.wall_s * bare / predicted if bare else None,
        )  # fmt: skip
        if row.error is None:
            mask = next((run / "scenes").glob("*/*.tif"))
            if self.reference:
                work.reference.unlink(missing_ok=True)
                shutil.copy(mask, work.reference)
            row = replace(row, agreement=work.agreement(mask))
        shutil.rmtree(run, ignore_errors=True)
        return row

    def bare(self, work: Work, plan: dict[str, Any], *, seconds: float) -> Row:
        """The network alone: the same patch, batch, processes and threads."""
        scene = plan["scenes"][0]
        patch = scene["patch"] if isinstance(scene["patch"], list) else [scene["patch"]]
        discarded = (patch[0] - scene["stride"]) // 2 if scene["blend"] == "crop" else 0
        options = {
            "batch": scene["batch"], "processes": plan["workers"], "threads": plan["engine_threads"],
            "lanes": plan["lanes"], "discarded": discarded,
            "seconds": seconds, "engine": _asked(plan["engine"]), "precision": plan["precision"], "device": work.device,
        }  # fmt: skip
        call = harness.python(
            "-m", "benchmarks.peers.bare", "network", work.model, work.image, "--patch", *map(str, patch)
        )
        call += [text for name, value in options.items() for text in (f"--{name}", str(value))]
        found = work.run(call, f"bare-{self.slug}")
        shape = (
            f"{scene['batch']} × {'×'.join(map(str, patch))}²"
            if len(patch) == 1
            else f"{scene['batch']} × {'×'.join(map(str, patch))}"
        )
        row = Row(work.name, f"bare network, {shape}", plan["engine"], plan["precision"], 0.0)
        if found.error:
            return replace(row, error=found.error)
        told = json.loads(found.output.splitlines()[-1])
        return replace(
            row, mpx=told["pixels"] / 1e6, wall_s=told["pixels"] / told["rate"], cpu_s=told["cpu"],
            peak_gb=found.peak_gb, mpx_per_s=told["rate"] / 1e6, work_factor=1.0,
        )  # fmt: skip


def _asked(runtime: str) -> str:
    """A model's own engine is no choice."""
    return "auto" if runtime == "own" else runtime


def files(work: Work) -> Row:
    """Reading the image and writing the reference mask, with no network between."""
    copy = work.folder / "copy.tif"
    call = harness.python("-m", "benchmarks.peers.bare", "files", work.image, work.reference, copy)
    found = work.run(call, "files")
    copy.unlink(missing_ok=True)
    return work.row("bare read + bare write", "", "", found)


def peer(work: Work, one: environments.Peer, problem: str | None) -> Row:
    """One run of a peer, or why there is none."""
    engine = "torch"
    if problem:
        return Row(work.name, one.tool, engine, one.precision, work.mpx, error=problem)
    mask = work.folder / f"peer-{one.script.removesuffix('.py')}.tif"
    mask.unlink(missing_ok=True)
    image = on_earth(work.image) if one.on_earth else work.image
    found = work.run(one.command(image, work.model, mask), one.tool.replace(" ", "_"))
    row = work.row(one.tool, engine, one.precision, found, work_factor=one.work_factor)
    if row.error is None:
        row = replace(row, agreement=work.agreement(mask))
    mask.unlink(missing_ok=True)
    return row


def on_earth(image: Path) -> Path:
    """The same file with a place on the Earth, as a VRT: geo-inference refuses an image that has none."""
    path = image.with_suffix(".vrt")
    if not path.exists():
        with warnings.catch_warnings(action="ignore", category=rasterio.errors.NotGeoreferencedWarning):
            rasterio.shutil.copy(image, path, driver="VRT")
            with rasterio.open(path, "r+") as file:
                file.crs, file.transform = "EPSG:32633", rasterio.Affine(0.5, 0, 5e5, 0, -0.5, 5.2e6)
    return path


def write_script(model: Path) -> Path:
    """The network as TorchScript: it takes raw pixels and ends in softmax, as geo-inference wants it."""
    path = model / "network.ts"
    if not path.exists():
        subprocess.run(
            harness.python("-m", "benchmarks.peers.torchscript", model, path), check=True, cwd=harness.CHECKOUT
        )
    return path
