"""`scripts/mutate`: what it changes, and that it knows where the tests are."""

from __future__ import annotations

import ast
import sys
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.mutation.mutants import changes, lines_around
from tests.support.paths import ROOT


@pytest.fixture(scope="module")
def mutate() -> Any:
    """The script as a module."""
    loader = SourceFileLoader("mutate_script", str(ROOT / "scripts/mutate"))
    spec = spec_from_loader("mutate_script", loader)
    assert spec is not None
    module = module_from_spec(spec)
    keeps, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = keeps
    return module


def mutants(source: str) -> list[str]:
    """Every mutant of a piece of code."""
    texts = []
    for number in range(len(list(changes(ast.parse(source))))):
        tree = ast.parse(source)
        node, name, value, _ = list(changes(tree))[number]
        setattr(node, name, value)
        texts.append(ast.unparse(ast.fix_missing_locations(tree)))
    return texts


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("x = a < 1", {"x = a <= 1", "x = a < 2"}),
        ("x = a and not b", {"x = a or not b", "x = a and b"}),
        ("f(True)", {"f(False)", "pass"}),
        ("a.b = c % d", {"a.b = c * d", "pass"}),
        ("a += 0.5", {"a -= 0.5", "a += 1.5", "pass"}),
        ("x = a if b else c", {"x = a if not b else c"}),
        ("if not a: x()", {"if a: x()", "if not a: pass"}),
        (
            "while a is b: x = 1",
            {"while not a is b: x = 1", "while a is not b: x = 1", "while a is b: x = 2"},
        ),
        ("assert a == 1, 'why 2'", set()),
        ("def f(a: int=3) -> 'x': '''0'''", {'def f(a: int=4) -> \'x\':\n    """0"""'}),
        ("raise NotImplementedError", set()),
        ("raise a", {"pass"}),
        ("'text'", set()),
    ],
)
def test_what_is_changed(source: str, expected: set[str]) -> None:
    assert set(mutants(source)) == {ast.unparse(ast.parse(text)) for text in expected}


def test_every_file_has_tests(mutate: Any) -> None:
    for found, tests in mutate.NEAREST.items():
        assert (ROOT / found).exists()
        assert all((ROOT / test).exists() for test in tests if not test.startswith("-"))
    assert len(mutate.files("")) > 20
    for file in mutate.files(""):
        named_after = {
            str(path.relative_to(ROOT))
            for path in (ROOT / "tests/unit").rglob(f"test_*{Path(file).stem}.py")
            if f"from {file.removesuffix('.py').replace('/', '.')} import" in path.read_text()
        }
        tests = mutate.nearest(file)
        for test in named_after:
            assert any(test.startswith(known) for known in tests), f"{file} and {test}"
    assert mutate.files("relay/clients") == ["v6fwd/relay/clients.py"]


@pytest.mark.parametrize(
    ("line", "expected"),
    [(1, [1]), (2, [2]), (3, [3, 4]), (4, [3, 4]), (5, [5]), (6, [6, 7, 8]), (8, [6, 7, 8])],
)
def test_the_lines_of_a_statement(line: int, expected: list[int]) -> None:
    """A test that executes any of them may see the change."""
    source = "def f():\n x = 1\n if (a and\n  b):\n  x = 2\n g(\n  1,\n )\n"
    assert [*lines_around(ast.parse(source), line)] == expected


def test_tests_are_those_of_the_line_the_fastest_first(mutate: Any) -> None:
    lines = {"4": ["tests/unit/x.py::a", "tests/unit/x.py::b"], "9": ["tests/unit/x.py::c"]}
    seconds = {"tests/unit/x.py::a": 3.0, "tests/unit/x.py::b": 1.0, "tests/unit/x.py::c": 2.0}
    seconds |= {"tests/process/y.py::d": 5.0, "tests/unit/test_m.py::e": 0.5}
    chosen = mutate.Chosen({"lines": {"m.py": lines}, "seconds": seconds})
    mutant = SimpleNamespace(file="m.py", lines=range(4, 6))
    assert [*chosen.tests(mutant, 9)] == ["tests/unit/x.py::b", "tests/unit/x.py::a"]
    assert [*chosen.tests(mutant, 3)] == ["tests/unit/x.py::b"]
    assert [*chosen.elsewhere(mutant, 9)] == ["tests/unit/test_m.py::e", "tests/process/y.py::d"]
    imported = SimpleNamespace(file="m.py", lines=range(1, 2))
    assert [*chosen.tests(imported, 9)] == [f"tests/unit/x.py::{name}" for name in "bca"]


def test_what_was_judged_is_known_the_next_time(mutate: Any, tmp_path: Path) -> None:
    mutant = SimpleNamespace(file="m.py", number=7)
    mutate.Judged(tmp_path).note(mutant, "failed")
    assert mutate.Judged(tmp_path).words == {("m.py", 7): "failed"}
    (tmp_path / "tree").write_text("another")
    with pytest.raises(SystemExit, match="another state"):
        mutate.Judged(tmp_path)
