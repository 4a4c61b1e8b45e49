"""The holder's programs are what their source says, and are found where they run."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from v6fwd.docker.shim.holder import FOLDER, HOLDER, find_holder
from v6fwd.errors import RelayError

MACHINES = ("x86_64", "aarch64")
DEBIAN_12 = "12.2.0"


def compiler(machine: str) -> str:
    return f"{machine}-linux-gnu-gcc"


def is_debians(machine: str) -> bool:
    """Whether the compiler is there, and the very one that made what is in the repository."""
    if shutil.which(compiler(machine)) is None:
        return False
    command = [compiler(machine), "-dumpfullversion"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip() == DEBIAN_12


def test_built_anew_they_are_the_same(tmp_path: Path) -> None:
    for machine in MACHINES:
        if not is_debians(machine):
            pytest.skip(f"no {compiler(machine)} {DEBIAN_12}")
    subprocess.run([ROOT / "scripts/build-hold", tmp_path], check=True)
    for machine in MACHINES:
        built, ours = (folder / f"{HOLDER}{machine}" for folder in (tmp_path, FOLDER))
        assert built.read_bytes() == ours.read_bytes(), "make hold builds it anew"


@pytest.mark.parametrize("machine", MACHINES)
def test_they_are_small_programs(machine: str) -> None:
    path = FOLDER / f"{HOLDER}{machine}"
    assert os.access(path, os.X_OK)
    assert path.stat().st_size < 2048
    assert path.read_bytes()[:4] == b"\x7fELF"


def test_the_one_for_this_machine() -> None:
    if os.uname().machine not in MACHINES:
        pytest.skip(f"none for {os.uname().machine}")
    assert find_holder() == FOLDER / f"{HOLDER}{os.uname().machine}"


@pytest.mark.parametrize(
    ("content", "mode", "why"),
    [
        (None, 0, "is missing; scripts/build-hold builds it"),
        (b"\x7fELF", 0o755, "does not run here: exec format error"),
        (b"#!/bin/false\n", 0o755, "does not run here: "),
        (b"#!/bin/true\n", 0o644, "does not run here: permission denied"),
    ],
)
def test_none_that_runs(tmp_path: Path, content: bytes | None, mode: int, why: str) -> None:
    path = tmp_path / f"{HOLDER}{os.uname().machine}"
    if content is not None:
        path.write_bytes(content)
        path.chmod(mode)
    with pytest.raises(RelayError) as raised:
        find_holder(tmp_path)
    assert str(raised.value).startswith(f"{path} {why}")
