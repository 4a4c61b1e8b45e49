"""The figures of the pages are what their result file says: nothing is typed by hand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from bench.cli import main
from tests.support.paths import ROOT

PAGES = (ROOT / "README.md", ROOT / "docs" / "performance.md")


def result() -> Path:
    """The result that the page of all figures names."""
    named = re.search(r"\]\(\.\./(bench/results/[^)]+\.json)\)", PAGES[1].read_text())
    assert named is not None
    return ROOT / named[1]


def test_the_figures_are_generated_from_the_result_that_is_named() -> None:
    done = CliRunner().invoke(main, ["report", str(result()), *map(str, PAGES), "--check"])
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_changed_figure_is_noticed(page: Path, tmp_path: Path) -> None:
    forged = tmp_path / page.name
    text = page.read_text()
    changed = re.sub(r"(bulk down, 1 stream \| \*\*)\d", r"\g<1>9", text, count=1)
    assert changed != text
    forged.write_text(changed)
    done = CliRunner().invoke(main, ["report", str(result()), str(forged), "--check"])
    assert done.exit_code == 1
