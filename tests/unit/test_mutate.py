"""`scripts/mutate`: what it changes, and that it knows where the tests are."""

from __future__ import annotations

import ast
import sys
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from typing import Any

import pytest

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


def mutants(mutate: Any, source: str) -> list[str]:
    """Every mutant of a piece of code."""
    texts = []
    for number in range(len(list(mutate.changes(ast.parse(source))))):
        tree = ast.parse(source)
        node, name, value, _ = list(mutate.changes(tree))[number]
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
def test_what_is_changed(mutate: Any, source: str, expected: set[str]) -> None:
    assert set(mutants(mutate, source)) == {ast.unparse(ast.parse(text)) for text in expected}


def test_every_file_has_tests(mutate: Any) -> None:
    for found, tests in mutate.NEAREST.items():
        assert (ROOT / found).exists()
        assert all((ROOT / test).exists() for test in tests)
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
