"""tilesseg and its peers on one machine, one slide and one trained network, file to file, in one run.

    python -m benchmarks.peers.bench [--quick] [--full] [--repeat 3] [--works slide curve free gpu] [--tools MONAI]

Each run is a process of its own that reads the slide and writes the mask; tools take turns, so that a machine that
slows down is unfair to all of them; of the runs the median counts. A run of a peer that takes more than ten minutes, or
more memory than there is, is a result. What is written after every run: `latest.json` (a list of rows, see
`results.Row`), `latest-machine.json` (hardware, versions, date), `latest.md` (the table) and `latest.png`.

The first call makes the slides, trains the network and makes the peers' environments, all of it kept in folders that
git ignores (`--folder`, `benchmarks/.peers`).
"""

from __future__ import annotations

import argparse
import json
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from benchmarks import harness
from benchmarks.peers import environments, free_network, machine, plot, results, scene, tools
from benchmarks.peers.results import Row
from benchmarks.peers.tools import Ours, Work

BENCHMARKS = Path(__file__).resolve().parents[1]
WORKS = ("slide", "curve", "free", "gpu")
AUTO = "tilesseg, auto"
EQUAL = (("blend", "gaussian"), ("patch", 512), ("overlap", 128))
"""The window and overlap that MONAI documents, in tilesseg's words."""


class Bench:
    """What was asked, and the rows so far."""

    def __init__(self, asked: argparse.Namespace) -> None:
        self.asked = asked
        self.folder: Path = asked.folder.resolve()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.runs: list[Row] = []
        asked.out.mkdir(parents=True, exist_ok=True)
        self.old = results.read(asked.out / "latest.json") if asked.add else []
        self.problems = {name: one.make() for name, one in self._environments().items()}
        self.machine = machine.describe({name: one.versions() for name, one in self._environments().items()})
        self.model = self._model()
        self._picture: scene.Picture | None = None

    def wanted(self, tool: str, again: bool = False) -> bool:
        """Whether a tool is to be run, or run again."""
        asked = not self.asked.tools or _named(tool, self.asked.tools)
        return asked and not (again and _named(tool, self.asked.once))

    def add(self, row: Row) -> Row:
        """Keep a run, say it, and write everything that is known by now."""
        self.runs.append(row)
        rate = row.error or f"{row.mpx_per_s:.2f} Mpx/s, {row.wall_s:.1f} s, {row.peak_gb:.2f} GB"
        more = "" if row.agreement is None else f", agreement {row.agreement:.3%}"
        more += "" if row.of_bare is None else f", {row.of_bare:.2f} × the bare network"
        print(f"{row.work}: {row.tool} {row.engine} {row.precision}: {rate}{more}", flush=True)
        self.write()
        return row

    def write(self) -> None:
        rows, out = results.merged(self.old, results.medians(self.runs)), self.asked.out
        results.write(out / "latest.json", rows)
        (out / "latest-machine.json").write_text(json.dumps(self.machine, indent=1) + "\n", encoding="utf-8")
        text = f"{machine.headline(self.machine)}\n\n{results.table(rows)}\n"
        (out / "latest.md").write_text(text, encoding="utf-8")
        plot.draw(out / "latest.png", rows, machine.headline(self.machine))

    def slide(self, side: int) -> Path:
        """Made once, with its truth for the smallest."""
        path = self.folder / f"slide-{side}.svs"
        if not path.exists():
            partial = scene.write_slide(path.with_suffix(".partial"), side, self.picture())
            partial.replace(path)
        return path

    def picture(self) -> scene.Picture:
        stored = self.folder / "picture.npz"
        if self._picture is None and not stored.exists():
            np.savez(stored, **scene.tissue()._asdict())
        if self._picture is None:
            with np.load(stored) as found:
                self._picture = scene.Picture(found["pixels"], found["truth"])
        return self._picture

    def work(self, name: str, side: int, *, model: Path | None = None, device: str = "cpu") -> Work:
        return Work(
            name, self.slide(side), model or self.model, side, self.folder, device=device, limit=self.asked.limit
        )

    def _environments(self) -> dict[str, environments.Environment]:
        wanted = {one.environment for one in environments.peers(bf16=False) if self.wanted(one.tool)}
        return {name: one for name, one in environments.ENVIRONMENTS.items() if name in wanted}

    def _model(self) -> Path:
        model = self.folder / "model"
        if not (model / "model.yaml").exists():
            print("training the network, a few minutes", flush=True)
            subprocess.run(
                harness.python("-m", "benchmarks.peers.train_network", model), cwd=harness.CHECKOUT, check=True
            )
        tools.write_script(model)
        return model


def _named(tool: str, words: Sequence[str]) -> bool:
    return any(word.lower() in tool.lower() for word in words)


def ours(work: Work, *, reference: bool) -> Iterator[Ours]:
    """tilesseg as it chooses; where there is a reference, first that, then every other runtime and precision.

    The last one has the window and the overlap of the peers.
    """
    if not reference:
        yield Ours(tool=AUTO)
        return
    chosen = Ours().plan(work)
    auto, exact = (chosen["engine"], chosen["precision"]), ("torch", "fp32")
    yield Ours(*exact, tool=AUTO if auto == exact else "tilesseg", reference=True)
    if auto != exact:
        yield Ours(tool=AUTO)
    gpu = work.device == "cuda"
    fast = ("bf16", "fp16") if gpu else ("bf16",) if machine.native_bf16() else ()
    for engine in ("torch",) if gpu else machine.runtimes():
        for precision in ("fp32", *fast):
            if (engine, precision) not in (auto, exact):
                yield Ours(engine, precision)
    yield Ours(tool="tilesseg, patch 512 overlap 128", tiling=EQUAL)


def compare(bench: Bench, work: Work, *, peers: bool, repeat: int, reference: bool = True) -> None:
    """All tools at one work, in turns. Without a reference only tilesseg's own choice, and no agreement."""
    tools = [one for one in ours(work, reference=reference) if bench.wanted(f"{one.tool} {one.engine} {one.precision}")]
    others = environments.peers(bf16=machine.native_bf16()) if peers else []
    plans: dict[Ours, dict[str, Any]] = {}
    over: set[str] = set()
    for number in range(repeat):
        for tool in tools:
            turn(bench, work, tool, plans)
        if work.reference.exists():
            bench.add(tools.files(work))
        for one in others:
            if bench.wanted(one.tool, again=number > 0) and one.tool not in over:
                row = bench.add(tools.peer(work, one, bench.problems.get(one.environment)))
                if row.error:  # a limit is a result, and need not be reached three times
                    over.add(one.tool)


def turn(bench: Bench, work: Work, tool: Ours, plans: dict[Ours, dict[str, Any]]) -> None:
    """The bare network, then the whole job."""
    if tool not in plans:
        try:
            plans[tool] = tool.plan(work)
        except RuntimeError as refused:
            bench.add(Row(work.name, tool.tool, tool.engine, tool.precision, work.mpx, error=str(refused)))
            return
    bare = bench.add(tool.bare(work, plans[tool], seconds=bench.asked.seconds))
    bench.add(tool.carry_out(work, plans[tool], None if bare.mpx_per_s is None else bare.mpx_per_s * 1e6))


def slide(bench: Bench) -> None:
    side = bench.asked.side
    work = bench.work(f"slide {side}²", side)
    compare(bench, work, peers=True, repeat=bench.asked.repeat)
    if work.reference.exists():
        truth, mask = scene.truth_of(side, bench.picture()), tifffile.imread(work.reference, level=0)
        found = [((mask == k) & (truth == k)).sum() / ((mask == k) | (truth == k)).sum() for k in range(3)]
        bench.machine["overlap_with_truth"] = dict(zip(scene.CLASSES, map(float, found), strict=True))
        print("the reference mask against the truth, intersection over union:", bench.machine["overlap_with_truth"])


def curve(bench: Bench) -> None:
    """What a larger image costs; peers up to 0.25 Gpx."""
    if bench.asked.quick:
        return
    for side in (16384, 32768, *([65536] if bench.asked.full else [])):
        compare(bench, bench.work(f"slide {side}²", side), peers=side == 16384, repeat=1, reference=False)


def free(bench: Bench) -> None:
    """The pipeline alone: a network that costs nothing. The peer does the smaller slide only."""
    model = free_network.write_bundle(bench.folder / "identity")
    peer = next(one for one in environments.peers(bf16=False) if one.tool == "geo-inference")
    for side in (2 * bench.asked.side, 4 * bench.asked.side):
        work = bench.work(f"free network, {side}²", side, model=model)
        tools = [Ours(tool=AUTO), Ours(tool=f"{AUTO}, threads", kind="threads")]
        plans = {tool: tool.plan(work) for tool in tools if bench.wanted(tool.tool)}
        for _ in range(bench.asked.repeat):
            for tool, plan in plans.items():
                bench.add(tool.carry_out(work, plan, None))
            if side == 2 * bench.asked.side and bench.wanted(peer.tool):
                bench.add(tools.peer(work, peer, bench.problems.get(peer.environment)))


def gpu(bench: Bench) -> None:
    side = bench.asked.side
    name = f"slide {side}², GPU"
    if machine.cuda() is None:
        bench.add(Row(name, AUTO, "", "", side**2 / 1e6, error="not run: no CUDA device"))
        return
    compare(bench, bench.work(name, side, device="cuda"), peers=True, repeat=bench.asked.repeat)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="4096², one run of each, no curve")
    parser.add_argument("--full", action="store_true", help="the curve up to 4 Gpx")
    parser.add_argument("--side", type=int, help="of the slide, a multiple of 4096; 8192, or 4096 with --quick")
    parser.add_argument("--repeat", type=int, help="runs of each tool; 3, or 1 with --quick")
    parser.add_argument("--works", nargs="+", choices=WORKS, default=WORKS)
    parser.add_argument("--tools", nargs="+", help="only tools whose name, or engine, has one of these words")
    parser.add_argument("--once", nargs="+", default=[], help="peers whose name has one of these words run once only")
    parser.add_argument("--add", action="store_true", help="keep older rows of works that are not measured now")
    parser.add_argument("--limit", type=float, default=tools.LIMIT, help="seconds for a run of a peer")
    parser.add_argument("--seconds", type=float, help="how long the bare network runs; 6, or 3 with --quick")
    parser.add_argument("--folder", type=Path, default=BENCHMARKS / ".bench", help="slides, weights, logs; kept")
    parser.add_argument("--out", type=Path, default=BENCHMARKS, help="where the results are written")
    asked = parser.parse_args(arguments)
    asked.side = asked.side or (4096 if asked.quick else 8192)
    asked.seconds = asked.seconds or (3.0 if asked.quick else 6.0)
    asked.repeat = asked.repeat or (1 if asked.quick else 3)
    bench = Bench(asked)
    print(machine.headline(bench.machine), flush=True)
    for work in asked.works:
        {"slide": slide, "curve": curve, "free": free, "gpu": gpu}[work](bench)
    bench.write()
    print(f"\n{(asked.out / 'latest.md').read_text(encoding='utf-8')}")


if __name__ == "__main__":
    main()
