"""For tests of what a start imports: each module costs time and memory."""

from __future__ import annotations

import subprocess

from bench import installed

AT_RUN = (
    "import sys; from v6fwd.relay.life.alone import Alone;"
    "Alone.run = lambda self, ready: print(*sys.modules);"
)
"""Prints the modules that are there when a relay that stands alone would run."""


def imported_by(code: str) -> set[str]:
    """The modules that code prints, run by v6fwd's own interpreter as pip installs it."""
    done = subprocess.run(
        [installed.python(), "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    imported = set(done.stdout.split())
    assert "v6fwd.relay.ports" in imported
    return imported
