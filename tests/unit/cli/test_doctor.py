"""`v6fwd doctor` as a command: arguments, and what the daemon does not have to carry for it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from v6fwd.cli import main
from v6fwd.cli.doctor import _clean


def run(*words: str) -> Result:
    """Run a command line in this process."""
    return CliRunner().invoke(main, ("doctor", *words), prog_name="v6fwd")


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("web",), "'web' is not an address and port"),
        (("80/sctp",), "protocol 'sctp'"),
        (("0",), "is not a port"),
        (("--docker-host", "tcp://x"), "is not unix:///PATH"),
    ],
)
def test_bad_arguments(words: tuple[str, ...], why: str) -> None:
    result = run(*words)
    assert result.exit_code == 2
    assert why in result.output


def test_json_has_its_keys(tmp_path: Path) -> None:
    nothing = str(tmp_path / "nothing")
    result = run("9/udp", "--json", "--docker-host", f"unix://{nothing}", "--socket", nothing,
                 "--daemon-json", nothing)  # fmt: skip
    found = json.loads(result.output)
    assert found.keys() == {"findings", "not_looked_at", "needs_attention"}
    keys = {"id", "severity", "looked_at", "found", "why", "mend"}
    assert all(finding.keys() == keys for finding in found["findings"])
    assert result.exit_code == found["needs_attention"]


def test_a_name_cannot_speak_to_the_terminal() -> None:
    assert _clean("web\x1b[2J\nready: 1") == "web?[2J?ready: 1"


def test_other_commands_load_nothing_of_it() -> None:
    """`v6fwd serve` is a command beside it, and its memory counts."""
    heavy = ("rich", "v6fwd.doctor.gather", "v6fwd.doctor.examine", "v6fwd.probe.run")
    script = "import sys, v6fwd.cli.doctor, v6fwd.cli.probe;"
    script += f"print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
