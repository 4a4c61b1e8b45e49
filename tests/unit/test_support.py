"""The first line of each helper says when to use it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.support.paths import ROOT

HELPERS = sorted((ROOT / "tests" / "support").glob("*.py"))


@pytest.mark.parametrize("path", HELPERS, ids=lambda path: path.stem)
def test_a_helper_says_when_to_use_it(path: Path) -> None:
    if path.name != "__init__.py":
        told = ast.get_docstring(ast.parse(path.read_text())) or ""
        assert told.startswith("For "), f"{path.name}: {told.partition(chr(10))[0]}"
