"""Random mutants of a room's modules, and whether the room's own tests notice them.

Each mutant changes one place of one module, in a scratch copy of the checkout: a comparison, an operator, an integer by
one, a condition, `and` for `or`, or `min` for `max`. The tests of the room and the laws that name the module then run
until the first failure, those that name the module first; a test that takes longer than `--slowest` seconds without a
mutant is left out. A mutant that survives is a missing test, or changes nothing that a user could notice. Run it as
`python -m benchmarks.mutants raster --count 40`, one mutant after the other; nothing else is needed but the tests' own
requirements.
"""

from __future__ import annotations

import argparse
import ast
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple
from xml.etree import ElementTree

CHECKOUT = Path(__file__).resolve().parents[1]
COMPARISONS = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
OPERATORS = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.FloorDiv: ast.Mult, ast.Div: ast.Mult,
    ast.Mod: ast.FloorDiv, ast.BitAnd: ast.BitOr, ast.LShift: ast.RShift, ast.RShift: ast.LShift,
}  # fmt: skip
KILLED, SURVIVED, TIMED_OUT = "killed", "SURVIVED", "killed (time)"


class Mutant(NamedTuple):
    """One change of one module."""

    module: Path
    line: int
    before: str
    after: str
    text: str
    """Text of the whole module with the change."""


def mutants_of(module: Path) -> list[Mutant]:
    """All mutants of a module, in the order of its text."""
    source = module.read_bytes()
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    made = []
    for node, after in _changes(ast.parse(source)):
        assert node.end_lineno is not None and node.end_col_offset is not None
        start, stop = starts[node.lineno - 1] + node.col_offset, starts[node.end_lineno - 1] + node.end_col_offset
        text = source[:start] + f"({after})".encode() + source[stop:]
        made.append(Mutant(module, node.lineno, source[start:stop].decode(), after, text.decode()))
    return sorted(made, key=lambda mutant: (mutant.line, mutant.before, mutant.after))


def _changes(tree: ast.AST) -> Iterator[tuple[ast.expr, str]]:
    """Expressions and what takes their place; not in annotations, nor in f-strings, whose parts have no places."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.JoinedStr) or node in _annotations(tree):
            continue
        if isinstance(node, ast.If | ast.While | ast.IfExp) and "TYPE_CHECKING" not in ast.unparse(node.test):
            yield node.test, f"not ({ast.unparse(node.test)})"
        if isinstance(node, ast.expr):
            yield from ((node, after) for after in _replacements(node))
        yield from _changes(node)


def _annotations(node: ast.AST) -> list[ast.AST]:
    return [part for name in ("annotation", "returns") if (part := getattr(node, name, None)) is not None]


def _replacements(node: ast.expr) -> list[str]:
    match node:
        case ast.Compare(left, [operator, *more], others) if type(operator) in COMPARISONS:
            return [ast.unparse(ast.Compare(left, [COMPARISONS[type(operator)](), *more], others))]
        case ast.BinOp(left, operator, right) if type(operator) in OPERATORS and not _is_text(left, right):
            return [ast.unparse(ast.BinOp(left, OPERATORS[type(operator)](), right))]
        case ast.BoolOp(operator, values):
            return [ast.unparse(ast.BoolOp(ast.Or() if isinstance(operator, ast.And) else ast.And(), values))]
        case ast.Constant(value) if type(value) is int:
            return [str(value + 1), str(value - 1)]
        case ast.Call(ast.Name("min" | "max" as name), arguments, keywords):
            other = ast.Name("max" if name == "min" else "min")
            return [ast.unparse(ast.Call(other, arguments, keywords))]
    return []


def _is_text(*nodes: ast.expr) -> bool:
    return any(isinstance(n, ast.JoinedStr) or (isinstance(n, ast.Constant) and type(n.value) is str) for n in nodes)


def own_tests(module: Path, checkout: Path) -> list[str]:
    """Tests that have to notice a mutant: files that name the module first, then the whole folder of the room."""
    room, *inner = module.relative_to(checkout / "tilesseg").with_suffix("").parts
    names = [name for name in inner if name != "__init__"]
    dotted = r"\.".join(["tilesseg", room, *names])
    parent, stem = r"\.".join(["tilesseg", room, *names[:-1]]), (names or [room])[-1]
    named = re.compile(rf"{dotted}\b|from {parent} import .*\b{stem}\b")
    room_tests = checkout / "tests" / room
    naming = [path for path in sorted(room_tests.rglob("test_*.py")) if named.search(path.read_text())]
    laws = [path for path in sorted((checkout / "tests" / "laws").glob("*.py")) if named.search(path.read_text())]
    return [str(path.relative_to(checkout)) for path in (*naming, *laws, room_tests) if path.exists()]


@contextmanager
def scratch_copy() -> Iterator[Path]:
    """Copy the files that git would commit, beside a link to the real data, into a folder that goes again."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=CHECKOUT, capture_output=True, text=True, check=True).stdout.split("\0")
    with TemporaryDirectory(prefix="tilesseg-mutants-") as folder:
        copy = Path(folder, "tilesseg")
        for name in names:
            if name and (CHECKOUT / name).is_file():
                (copy / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(CHECKOUT / name, copy / name)
        if (shared := CHECKOUT.parent / "shared").is_dir():
            Path(folder, "shared").symlink_to(shared)
        subprocess.run(["git", "init", "--quiet"], cwd=copy, check=True)  # some tests list what git tracks
        yield copy


def slower_than(seconds: float, results: Path) -> list[str]:
    """Names of the tests that took longer, in results as pytest writes them (`--junitxml`)."""
    cases = ElementTree.parse(results).iter("testcase")
    slow = [case.attrib for case in cases if float(case.attrib["time"]) > seconds]
    return [f"{case['classname'].replace('.', '/')}.py::{case['name']}" for case in slow]


def outcome(tests: list[str], checkout: Path, timeout: float | None) -> str:
    """Run tests until the first failure, and say what became of the mutant.

    Bytecode is not written: a mutant of the same length, made in the same second, would run as the one before.
    """
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
    environment = {**os.environ, "PYTHONPATH": str(checkout), "PYTHONDONTWRITEBYTECODE": "1", "CI": "true"}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, cwd=checkout, env=environment, start_new_session=True, **quiet) as process:
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            return TIMED_OUT
        finally:  # with all processes that a test has started
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    return SURVIVED if code == 0 else KILLED


def main(arguments: list[str] | None = None) -> int:
    """Print a line for each mutant, and a table of the modules."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rooms", nargs="+", help="folders of tilesseg/: raster, inference, store, run …")
    parser.add_argument("--count", type=int, default=40, help="number of mutants of all rooms together")
    parser.add_argument("--seed", type=int, default=0, help="seed of the choice of mutants")
    parser.add_argument(
        "--slowest", type=float, default=3, help="seconds of the slowest test that mutants have to pass"
    )
    parser.add_argument("--timeout", type=float, help="seconds after which a mutant counts as killed; default: as long "
                        "as all tests, twice")  # fmt: skip
    options = parser.parse_args(arguments)
    with scratch_copy() as copy:
        modules = sorted(path for room in options.rooms for path in (copy / "tilesseg" / room).rglob("*.py"))
        if not modules:
            parser.error(f"tilesseg has no rooms {' '.join(options.rooms)}; name folders of tilesseg/")
        tests, results, start = _all_tests(modules, copy), copy.parent / "results.xml", time.perf_counter()
        if outcome([*tests, f"--junitxml={results}"], copy, None) != SURVIVED:
            print(f"error: without a mutant the tests fail: {' '.join(tests)}; mend them first")
            return 1
        timeout = options.timeout or 2 * (time.perf_counter() - start)
        left_out = [f"--deselect={test}" for test in slower_than(options.slowest, results)]
        every = [mutant for module in modules for mutant in mutants_of(module)]
        chosen = random.Random(options.seed).sample(every, min(options.count, len(every)))
        print(f"{len(chosen)} of {len(every)} mutants, seed {options.seed}; slow tests: {len(left_out)}", flush=True)
        _report(chosen, [_tried(mutant, copy, left_out, timeout) for mutant in chosen], copy)
    return 0


def _all_tests(modules: list[Path], copy: Path) -> list[str]:
    return sorted({test for module in modules for test in own_tests(module, copy)})


def _tried(mutant: Mutant, copy: Path, left_out: list[str], timeout: float) -> str:
    original, start = mutant.module.read_text(), time.perf_counter()
    mutant.module.write_text(mutant.text)
    result = outcome([*own_tests(mutant.module, copy), *left_out], copy, timeout)
    mutant.module.write_text(original)
    print(f"{result:14}{_place(mutant, copy)}  {time.perf_counter() - start:.0f} s", flush=True)
    return result


def _place(mutant: Mutant, copy: Path) -> str:
    before, after = (" ".join(text.split())[:60] for text in (mutant.before, mutant.after))
    return f"{mutant.module.relative_to(copy)}:{mutant.line}: {before} → {after}"


def _report(mutants: list[Mutant], results: list[str], copy: Path) -> None:
    survived = [result == SURVIVED for result in results]
    totals = Counter(str(mutant.module.relative_to(copy)) for mutant in mutants)
    alive = Counter(str(m.module.relative_to(copy)) for m, lives in zip(mutants, survived, strict=True) if lives)
    print(f"\n{'module':50}killed  survived")
    for name in sorted(totals):
        print(f"{name:50}{totals[name] - alive[name]:6}{alive[name]:10}")
    print(f"{'all':50}{survived.count(False):6}{survived.count(True):10}")
    for mutant, lives in zip(mutants, survived, strict=True):
        if lives:
            print(_place(mutant, copy))


if __name__ == "__main__":
    sys.exit(main())
