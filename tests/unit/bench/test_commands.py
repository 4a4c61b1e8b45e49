"""The commands that bench/README.md tells people to type: each has its command and its options."""

from __future__ import annotations

import re
import shlex

import pytest
from click.testing import CliRunner

from tests.support.paths import ROOT

pytest.importorskip("matplotlib")

from bench.cli import main

PAGES = (
    "bench/README.md",
    "README.md",
    "docs/architecture.md",
    "docs/performance.md",
    "CONTRIBUTING.md",
)
_COMMAND = re.compile(r"python -m bench\b(?!\.)([^`\n]*)")
COMMANDS = [
    shlex.split(words, comments=True)
    for page in PAGES
    for words in _COMMAND.findall((ROOT / page).read_text())
]


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_command_of_the_benchmark_exists(words: list[str]) -> None:
    name = words[0] if words and not words[0].startswith("-") else "run"
    options = {option for param in main.commands[name].params for option in param.opts}
    assert {word for word in words if word.startswith("-")} <= options


def test_commands_are_found() -> None:
    assert len(COMMANDS) > 8


def test_loopback_keeps_the_machines_congestion_control() -> None:
    """Nothing outside of the run's own namespaces is changed."""
    done = CliRunner().invoke(main, ["run", "--loopback", "--congestion", "reno"])
    assert done.exit_code == 2
    assert "--congestion" in done.output
