"""Packages are pinned with hashes: nothing is installed that was not tested."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from tests.support.paths import ROOT

FILES = sorted((ROOT / "requirements").glob("*.txt"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = {
    "run": ["build"],
    "test": ["build", "test", "bench", "docs"],
    "bench": ["build", "bench"],
    "fuzz": ["build", "test", "bench", "docs", "fuzz"],
    "dist": ["dist"],
}
"""What each file has beside the dependencies of the package itself, as scripts/lock says."""


def plain(name: str) -> str:
    """The name as PEP 503 normalises it."""
    return re.sub(r"[-_.]+", "-", re.split(r"[\[<>=!~; ]", name)[0]).lower()


def pins(text: str) -> dict[str, int]:
    """The pinned packages, and how many hashes each has."""
    entries = text.replace("\\\n", " ").strip().splitlines()
    found = {}
    for entry in entries:
        pin = re.match(r"([\w.-]+)==[\w.+]+ ", entry)
        assert pin, f"not pinned: {entry[:80]}"
        found[plain(pin[1])] = len(re.findall(r"--hash=sha256:[0-9a-f]{64}", entry))
    return found


def test_the_files_are_known() -> None:
    assert sorted(EXTRAS) == [path.stem for path in FILES]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_package_is_pinned_with_hashes(path: Path) -> None:
    found = pins(path.read_text())
    assert [name for name, hashes in found.items() if not hashes] == []
    extras = PROJECT["optional-dependencies"]
    wanted = [*PROJECT["dependencies"]]
    wanted += [each for extra in EXTRAS[path.stem] for each in extras[extra]]
    assert {plain(each) for each in wanted} <= set(found)


@pytest.mark.parametrize("text", ["click>=8.1 --hash=sha256:00", "-e .", "click"])
def test_what_is_not_pinned_is_found(text: str) -> None:
    with pytest.raises(AssertionError, match="not pinned"):
        pins(text)
