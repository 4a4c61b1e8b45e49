"""For tests of the Debian package: builds it from this tree."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.support.paths import ROOT


def build(folder: Path) -> Path:
    """The package, in a folder of the test's own."""
    _run(str(ROOT / "scripts" / "build-deb"), str(Path(sys.executable).parent), str(folder))
    [found] = folder.glob("*.deb")
    return found


def successor(package: Path, version: str) -> Path:
    """The same package with a higher version."""
    stage = package.with_name("stage")
    _run("dpkg-deb", "--raw-extract", str(package), str(stage))
    control = stage / "DEBIAN" / "control"
    text = re.sub("^Version: .*", f"Version: {version}", control.read_text(), flags=re.MULTILINE)
    control.write_text(text)
    made = package.with_name(f"v6fwd_{version}.deb")
    _run("dpkg-deb", "--root-owner-group", "-Znone", "--build", str(stage), str(made))
    return made


def _run(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
