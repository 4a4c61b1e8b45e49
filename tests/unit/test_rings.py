"""Tests are in the ring of what they need: those that need namespaces have rings of their own."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.paths import ROOT

TESTS = ROOT / "tests"
_NETNS = re.compile(r"(?:^|\s)@?pytest\.mark\.netns\b|\[pytest\.mark\.netns\b")


def files_of(*rings: str) -> list[Path]:
    found = [path for ring in rings for path in sorted((TESTS / ring).rglob("test_*.py"))]
    assert found
    return found


def needs_netns(source: str) -> bool:
    return any(_NETNS.search(line) for line in source.splitlines())


@pytest.mark.parametrize("path", files_of("unit", "process"), ids=lambda path: path.stem)
def test_what_needs_root_is_in_another_ring(path: Path) -> None:
    assert not needs_netns(path.read_text())


@pytest.mark.parametrize("path", files_of("netns"), ids=lambda path: path.stem)
def test_what_is_among_the_namespaces_needs_them(path: Path) -> None:
    assert needs_netns(path.read_text())


@pytest.mark.parametrize(
    "line",
    [
        "@pytest.mark.{}",
        "pytestmark = pytest.mark.{}  # root",
        'pytestmark = [pytest.mark.{}, pytest.mark.server("nft")]',
    ],
)
def test_markers_are_found(line: str) -> None:
    assert needs_netns(line.format("netns"))
    assert not needs_netns(line.format("server"))
