"""`python -m benchmarks.chaos --seeds 200`: seeds in turn, a line for each; `--page` writes the table of them all."""

from __future__ import annotations

import argparse
import json
import os
import signal
import tempfile
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.chaos.draw import draw
from benchmarks.chaos.trial import trial
from benchmarks.harness import CHECKOUT

LOG = CHECKOUT / "benchmarks" / ".chaos.jsonl"
PAGE = CHECKOUT / "docs" / "reliability.md"
BEGIN, END = "<!-- seeds: written by python -m benchmarks.chaos --page -->\n", "<!-- end of seeds -->"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos", description=__doc__)
    parser.add_argument("--seeds", type=int, default=20, help="number of seeds")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--log", type=Path, default=LOG, help="JSON lines to add to, a line for each seed")
    parser.add_argument("--page", action="store_true", help="write the table of the log into docs/reliability.md")
    options = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has its background ignore it, and all below
    if options.page:
        write_page(read_log(options.log))
        return 0
    broken = 0
    for seed in range(options.first, options.first + options.seeds):
        with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
            outcome = trial(draw(seed, disks=os.geteuid() == 0), Path(folder))
        broken += not outcome.fine
        one = outcome.draw
        verdict = "ok" if outcome.fine else f"BROKEN {outcome.broken}"
        print(f"{seed} {one.executor}, {one.fault}: codes {outcome.codes}, {outcome.seconds} s: {verdict}", flush=True)
        with options.log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(outcome)) + "\n")
    print(f"{options.seeds - broken} of {options.seeds} seeds: every law held")
    return 1 if broken else 0


def read_log(log: Path) -> list[dict[str, Any]]:
    """Outcomes of a log; of a seed that was run again, the last."""
    rows = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    return list({row["draw"]["seed"]: row for row in rows}.values())


def table_of(rows: list[dict[str, Any]]) -> list[str]:
    """Table of outcomes by fault and executor."""
    cells = defaultdict[tuple[str, str], list[dict[str, Any]]](list)
    for row in rows:
        cells[row["draw"]["fault"], row["draw"]["executor"]].append(row)
    lines = ["| fault | executor | seeds | laws held | exit codes of the first execution | longest, s |"]
    lines.append("| --- | --- | --- | --- | --- | --- |")
    for (fault, executor), found in sorted(cells.items()):
        held = sum(not row["broken"] for row in found)
        parts = 2 if executor == "array" else 1
        codes = sorted({code for row in found for code in row["codes"][:parts]}, key=str)
        longest = max(row["seconds"] for row in found)
        lines.append(f"| {fault} | {executor} | {len(found)} | {held} | {', '.join(map(str, codes))} | {longest:.0f} |")
    return lines


def write_page(rows: list[dict[str, Any]]) -> None:
    """Write the table into the page, between its marks."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    held = sum(not row["broken"] for row in rows)
    head = f"\nSeeds: {len(rows)}; every law held in {held}.\n\n"
    PAGE.write_text(before + BEGIN + head + "\n".join(table_of(rows)) + "\n\n" + END + after, encoding="utf-8")


if __name__ == "__main__":
    raise SystemExit(main())
