"""Law: scores do not depend on threads, lanes, batches and patch sizes, on any instruction set that a processor has.

Each set is measured in processes that are limited to it, and that prove it. The table in docs/concepts.md says what
holds; its cells that cannot be measured on this processor are left alone.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from instruction_sets import BEYOND, HERE, LIMITS, environment, run_limited
from measured_laws import CASES

PAGE = Path(__file__).resolve().parents[2] / "docs/concepts.md"
SAME, NOT, NOT_PRETENDED, NOT_LOWERED = "same bits", "not: ", "cannot be pretended", "not lowered"
OURS = [name for name in CASES if name.startswith("unet, torch")]
PROOFS = {
    "AVX-512": ("AVX512", "avx512_core", "avx512"),
    "AVX2": ("AVX2", ":avx2", "avx2"),
    "SSE4.1": ("DEFAULT", "jit:sse41", "sse42"),
}
"""What ATen, oneDNN and OpenVINO call a set."""


def table() -> dict[str, dict[str, str]]:
    """What the page says of each engine on each set."""
    rows = [line.strip("|").split("|") for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in row] for row in rows]
    (head,) = (row for row in cells if row[1:] == list(LIMITS))
    return {row[0]: dict(zip(head[1:], row[1:], strict=True)) for row in cells if row[0] in CASES}


def assert_limited(name: str, told: Any, printed: str) -> None:
    aten, onednn, openvino = PROOFS[name]
    assert told["aten"] == aten
    kernels = [line for line in printed.splitlines() if line.startswith("onednn_verbose") and ",convolution," in line]
    assert kernels and all(onednn in line for line in kernels)
    assert not any(feature.startswith(BEYOND[name]) for feature in told["numpy"])
    if told["openvino"]:
        assert any(openvino in kernel for kernel in told["openvino"])


def cell_of(name: str, limit: str, found: Any) -> str:
    """What the table has to say of a measurement."""
    if "onnxruntime" in name and limit != HERE[0]:
        return NOT_LOWERED
    if isinstance(found, str):
        assert "openvino" in name and limit != HERE[0], found
        return NOT_PRETENDED  # its own look at the processor and oneDNN's disagree
    return NOT + ", ".join(found) if found else SAME


def keeps(said: str, measured: str) -> bool:
    """Whether a processor keeps what the table says: it may differ in less than in what the table names, never in more.

    Which kernels a library takes depends on the maker of the processor, too, not on the set alone.
    """
    if not said.startswith(NOT):
        return measured == said
    named = set(said.removeprefix(NOT).split(", "))
    return measured == SAME or (measured.startswith(NOT) and set(measured.removeprefix(NOT).split(", ")) <= named)


@pytest.mark.parametrize("limit", [name for name in HERE if name != "SSE4.1"])
def test_our_u_net_in_pytorch_has_the_same_bits(tmp_path: Path, limit: str) -> None:
    told, printed = run_limited(limit, "measured_laws.py", str(tmp_path), "unet, torch, fp32")
    assert_limited(limit, told, printed)
    assert told["laws"] == {"unet, torch, fp32": []}


@pytest.mark.slow
@pytest.mark.parametrize("limit", HERE)
def test_the_table_of_laws_says_no_more_than_is_measured(tmp_path: Path, limit: str) -> None:
    names = [name for name in CASES if importlib.util.find_spec(name.split(", ")[1])]
    told, printed = run_limited(limit, "measured_laws.py", str(tmp_path), *names)
    assert_limited(limit, told, printed)
    said = {name: table()[name][limit] for name in names}
    measured = {name: cell_of(name, limit, told["laws"][name]) for name in names}
    assert {name: measured[name] for name in names if not keeps(said[name], measured[name])} == {}
    assert all(said[name] == SAME for name in OURS)


def test_a_table_that_says_too_much_is_found() -> None:
    assert keeps(SAME, SAME) and keeps("not: threads, place", "not: place") and keeps("not: threads", SAME)
    assert not keeps(SAME, "not: threads") and not keeps("not: threads", "not: threads, place")
    assert not keeps(NOT_LOWERED, SAME)


def test_the_table_names_every_engine_and_set() -> None:
    assert table().keys() == CASES.keys()
    for name, row in table().items():
        assert row.keys() == LIMITS.keys() and all(row.values()), name


PAGES_OF_LAWS = ("segment_tile", "crop_law", "unpadded", "parallel_batches")
"""Tests of tiling, constants, identity, crop, margins that are not computed, and batches at a time."""
NOT_THERE = {"AVX2": "not (openvino and bf16)", "SSE4.1": "not openvino"}
"""Tests of an engine that cannot be limited to a set; the table says so."""


@pytest.mark.slow
@pytest.mark.parametrize("limit", [name for name in HERE if name in NOT_THERE])
def test_the_laws_of_tiles_hold_on_a_lesser_processor(limit: str) -> None:
    files = [str(Path(__file__).with_name(f"test_{name}.py")) for name in PAGES_OF_LAWS]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", NOT_THERE[limit], *files]
    own = {name: value for name, value in environment(limit).items() if not name.startswith("PYTEST_")}
    done = subprocess.run(command, env=own, capture_output=True, text=True, timeout=1500, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
    assert " passed" in done.stdout
