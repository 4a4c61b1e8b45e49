"""The performance section of README.md is what its result file says: nothing is typed by hand."""

from __future__ import annotations

import re
from pathlib import Path

from click.testing import CliRunner

from bench.cli import main
from tests.support.paths import ROOT


def test_the_section_is_generated_from_the_result_it_names() -> None:
    readme = ROOT / "README.md"
    named = re.search(r"\]\((bench/results/[^)]+\.json)\)", readme.read_text())
    assert named is not None
    words = ["report", str(ROOT / named[1]), str(readme), "--check"]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.output


def test_a_changed_figure_is_noticed(tmp_path: Path) -> None:
    text = (ROOT / "README.md").read_text()
    named = re.search(r"\]\((bench/results/[^)]+\.json)\)", text)
    assert named is not None
    forged = tmp_path / "README.md"
    forged.write_text(re.sub(r"(bulk up, 1 stream \| \*\*)\d", r"\g<1>9", text, count=1))
    result = CliRunner().invoke(main, ["report", str(ROOT / named[1]), str(forged), "--check"])
    assert result.exit_code == 1
