"""The rules of the house that neither ruff, mypy nor import-linter can check."""

import ast
import importlib
import re
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path

import pytest

import tilesseg

CHECKOUT = Path(__file__).resolve().parents[2]
MODULES = sorted((CHECKOUT / "tilesseg").rglob("*.py"))
HEAVY = {"torch", "dask", "distributed", "bokeh", "rasterio", "zarr", "tifffile", "onnxruntime", "scipy"}
LONGEST = 400
SMALL, FEW = 60, 14
ALIKE = {"__init__.py", "source.py", "writer.py"}

# Written in two parts, or this file would be the one that breaks its rule.
FORBIDDEN = {
    "a package registry's host": "|".join(
        re.escape(name + "." + domain)
        for name, domain in [
            ("pypi", "org"),
            ("pythonhosted", "org"),
            ("npmjs", "org"),
            ("npmjs", "com"),
            ("deb.debian", "org"),
            ("pytorch", "org/whl"),
            ("conda.anaconda", "org"),
        ]
    ),
    "a path of somebody's machine": r"(?<![\w.}~/-])/" + r"(?:work|root|opt|home|Users)/\w",
}


def tracked_files() -> list[Path]:
    """What git tracks, or would after `git add`."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=CHECKOUT,
        capture_output=True,
        check=True,
        text=True,
    ).stdout
    return [path for name in listed.split("\0") if name and (path := CHECKOUT / name).is_file()]


def text_of(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return None


@pytest.mark.parametrize("what", FORBIDDEN)
def test_no_tracked_file_names(what: str) -> None:
    pattern = re.compile(FORBIDDEN[what])
    found = [
        f"{path.relative_to(CHECKOUT)}:{number}: {line.strip()}"
        for path in tracked_files()
        for number, line in enumerate((text_of(path) or "").splitlines(), 1)
        if pattern.search(line)
    ]
    assert not found, "\n".join(found)


def test_no_tracked_file_is_larger_than_a_bundle_may_be() -> None:
    assert not [str(path) for path in tracked_files() if path.stat().st_size > 1_500_000]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(CHECKOUT)))
def test_every_module_says_what_it_is(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), f"{path.name} has no docstring"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(CHECKOUT)))
def test_no_module_is_longer_than_one_sitting(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST


def test_small_modules_are_few_and_each_has_its_reason() -> None:
    """Commands are small by nature, and so is what a process starts with."""
    small = {
        str(path.relative_to(CHECKOUT / "tilesseg").with_suffix(""))
        for path in MODULES
        if path.name not in ("__init__.py", "__main__.py", "version.py", "forkserver_preload.py")
        and not path.name.endswith("_command.py")
        and len(path.read_text(encoding="utf-8").splitlines()) < SMALL
    }
    page = (CHECKOUT / "docs/decisions/0043-small-modules.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([\w/]+)`", page.partition("| --- |")[2]))
    assert small <= named, "these need a reason in decision 0043, or another module to join"
    assert len(small) <= FEW


def test_base_names_are_unique() -> None:
    names = Counter(path.name for path in MODULES)
    assert [name for name, count in names.items() if count > 1 and name not in ALIKE] == []


def test_few_modules_stand_beside_the_rooms() -> None:
    beside = {path.stem for path in (CHECKOUT / "tilesseg").glob("*.py")}
    words = {"atomic_write", "doubts", "errors", "events", "paths", "process", "retry", "version"}
    assert beside == {"__init__", "__main__", *words}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(CHECKOUT)))
def test_only_the_command_line_prints(path: Path) -> None:
    """A progress listener may, to the stream it was given."""
    calls = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
    prints = [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"]
    lines = [call.lineno for call in prints if not any(word.arg == "file" for word in call.keywords)]
    assert not lines or path.parent.name == "cli", f"{path.name} prints on lines {lines}"


def layers() -> list[str]:
    """The floors of the contract, top to bottom: `cluster | inference`."""
    contracts = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    return next(one["layers"] for one in contracts["contracts"] if one["name"].startswith("rooms"))


def answer_of(name: str) -> str:
    """First paragraph of the docstring of a room or a file of words, on one line."""
    home = CHECKOUT / "tilesseg" / name
    path = home / "__init__.py" if home.is_dir() else home.with_suffix(".py")
    said = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return " ".join(said.partition("\n\n")[0].split())


def test_the_map_of_the_rooms_is_that_of_the_contract() -> None:
    rows = [(floor, name) for floor in layers() for name in floor.split(" | ")]
    table = ["| room | what is asked there |", "| --- | --- |"]
    table += [f"| `{name}`{' ∥' if '|' in floor else ''} | {answer_of(name)} |" for floor, name in rows]
    page = (CHECKOUT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    found = page.partition("test_house.py -->\n")[2].partition("\n<!-- end of rooms")[0]
    assert found.strip() == "\n".join(table), "write this map:\n" + "\n".join(table)


def heavy_modules_after(code: str) -> set[str]:
    """Run `code` in a fresh interpreter and say which heavy libraries it brought in."""
    report = f"\nimport sys; print('loaded', *({HEAVY!r} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code + report], capture_output=True, text=True, cwd=CHECKOUT)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split()[1:])


def test_importing_tilesseg_brings_in_nothing_heavy() -> None:
    assert heavy_modules_after("import tilesseg") == set()


def test_asking_for_help_brings_in_nothing_heavy() -> None:
    ask = """
import sys
from tilesseg.cli.main import main
sys.argv = ["tilesseg", "--help"]
try:
    main()
except SystemExit as done:
    assert not done.code, done.code
"""
    assert heavy_modules_after(ask) == set()


def test_every_public_name_is_there() -> None:
    names = getattr(tilesseg, "__all__", [])
    assert len(names) <= 17
    assert [name for name in names if not hasattr(tilesseg, name)] == []


def imported_packages() -> set[str]:
    """Top-level names of the libraries that the package imports, anywhere in its files."""
    found: set[str] = set()
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {name.name.partition(".")[0] for name in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module.partition(".")[0])
    return found - set(sys.stdlib_module_names) - {"tilesseg"}


def test_every_library_imported_is_a_declared_dependency() -> None:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    named = ("onnx", "openvino", "clouds", "slides", "vector", "queues", "kubernetes", "gateway", "ssh", "monai")
    optional = (extras[name] for name in named)
    requirements = [*project["dependencies"], *(line for extra in optional for line in extra)]
    declared = {re.split(r"[\[<>=!~; ]", line, maxsplit=1)[0].lower().replace("-", "_") for line in requirements}
    named_otherwise = {"PIL": "pillow", "yaml": "pyyaml", "openslide": "openslide_python"}
    assert {named_otherwise.get(name, name) for name in imported_packages()} <= declared


BENCHMARKS = sorted(path for path in (CHECKOUT / "benchmarks").rglob("*.py") if "scripts" not in path.parts)
"""Benchmarks that run in this environment; those in `scripts` need a peer's."""


@pytest.mark.parametrize("path", BENCHMARKS, ids=lambda path: str(path.relative_to(CHECKOUT)))
def test_every_benchmark_still_imports_what_it_measures(path: Path) -> None:
    name = ".".join(path.relative_to(CHECKOUT).with_suffix("").parts)
    assert importlib.import_module(name).__doc__
