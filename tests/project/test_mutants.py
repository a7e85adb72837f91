"""Laws of `benchmarks/mutants.py`: one place changes, and the tests that have to notice are those of the room."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from benchmarks.mutants import CHECKOUT, mutants_of, own_tests, slower_than

EXAMPLE = '''"""Grüße."""
from typing import TYPE_CHECKING, Annotated

if TYPE_CHECKING:
    import numpy


def clipped(x: Annotated[int, 3], low: int = 0) -> int:
    """Number between 1 and 9."""
    if x < low and x:
        return max(low, -x)
    text = f"ä{x + 1}" + "b"
    return x // 2
'''


def test_each_mutant_changes_one_place_and_is_python(tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    module.write_text(EXAMPLE)
    mutants = mutants_of(module)
    changed = {(mutant.line, mutant.before, mutant.after) for mutant in mutants}
    assert changed == {
        (8, "0", "1"),
        (8, "0", "-1"),
        (10, "x < low and x", "not (x < low and x)"),
        (10, "x < low and x", "x < low or x"),
        (10, "x < low", "x <= low"),
        (11, "max(low, -x)", "min(low, -x)"),
        (13, "x // 2", "x * 2"),
        (13, "2", "3"),
        (13, "2", "1"),
    }
    for mutant in mutants:
        ast.parse(mutant.text)
        lines = zip(mutant.text.splitlines(), EXAMPLE.splitlines(), strict=True)
        assert [number for number, (new, old) in enumerate(lines, 1) if new != old] == [mutant.line]


@pytest.mark.parametrize(
    ("module", "laws"), [("raster/tiling.py", "test_segment_tile.py"), ("inference/segment_tile.py", None)]
)
def test_the_tests_of_a_module_are_those_of_its_room_and_the_laws_that_name_it(module: str, laws: str | None) -> None:
    *found, room = own_tests(CHECKOUT / "tilesseg" / module, CHECKOUT)
    assert room == f"tests/{module.partition('/')[0]}"
    assert laws is None or f"tests/laws/{laws}" in found
    for path in found:
        text = (CHECKOUT / path).read_text()
        assert re.search(rf"\b{Path(module).stem}\b", text)


def test_slow_tests_are_named_as_pytest_names_them(tmp_path: Path) -> None:
    results = tmp_path / "results.xml"
    results.write_text(
        '<testsuites><testsuite><testcase classname="tests.raster.test_a" name="test_x[1-0.5]" time="3.2"/>'
        '<testcase classname="tests.raster.test_a" name="test_y" time="3.0"/></testsuite></testsuites>'
    )
    assert slower_than(3, results) == ["tests/raster/test_a.py::test_x[1-0.5]"]
