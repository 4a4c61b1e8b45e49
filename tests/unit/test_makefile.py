"""`make help` lists every target that somebody may call, with its time and what it does."""

from __future__ import annotations

import re
import subprocess

import pytest

from tests.support.paths import ROOT

MAKEFILE = (ROOT / "Makefile").read_text()
TIME = r"\d+ (?:s|min)"


def public_targets() -> set[str]:
    """The targets that are no files."""
    words = " ".join(re.findall(r"^\.PHONY: (.*)", MAKEFILE, re.MULTILINE)).split()
    assert "$(RINGS)" in words
    return {word for word in words if word != "$(RINGS)"} | set(rings())


def rings() -> list[str]:
    found = re.search(r"^RINGS := (.*)", MAKEFILE, re.MULTILINE)
    assert found
    return found[1].split()


@pytest.mark.server("make")
def test_make_help_lists_every_target_with_its_time() -> None:
    told = subprocess.run(
        ["make", "--no-print-directory", "help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    found = [
        re.fullmatch(rf"([a-z-]+) +({TIME}) +(\S.*)", line) for line in told.stdout.split("\n")
    ]
    assert {line[1] for line in found if line} == public_targets()
    assert [line for line in found[:-1] if line is None] == []


def test_every_ring_has_a_folder_and_a_target() -> None:
    folders = (ROOT / "tests").iterdir()
    with_tests = {path.name for path in folders if path.is_dir() and any(path.rglob("test_*.py"))}
    assert set(rings()) == with_tests


@pytest.mark.parametrize("ring", rings())
def test_the_times_of_the_rings_agree(ring: str) -> None:
    told = re.search(rf"^{ring}:.*## ({TIME}) ", MAKEFILE, re.MULTILINE)
    assert told
    assert f"`make {ring}` | {told[1]} |" in (ROOT / "tests" / "README.md").read_text()
    contributing = (ROOT / "CONTRIBUTING.md").read_text()
    assert re.search(rf"^    make {ring} +# {told[1]}\b", contributing, re.MULTILINE)
