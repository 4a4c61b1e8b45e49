"""The pictures are drawn, whatever is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.bench.samples import peer, result, scenario

pytest.importorskip("matplotlib")

from bench.plots import draw


def test_pictures_lie_beside_the_result(tmp_path: Path) -> None:
    ours = {
        "v6fwd": peer({"rate": 1.0, "cpu": 2.0}),
        "docker-proxy": peer({"rate": 2.0, "cpu": 3.0}),
        "limit-ring": peer({"rate": 3.0, "cpu": 1.0}),
        "x": peer(None),
    }
    one, other = scenario(ours), scenario(ours)
    other.at = 200
    drawn = draw(result(one, other), tmp_path / "a-6.18.44")
    names = ["a-6.18.44-scenarios.png", "a-6.18.44-growth.png", "a-6.18.44-summary.png"]
    assert [path.name for path in drawn] == names
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in drawn)


def test_one_load_alone_has_no_curve(tmp_path: Path) -> None:
    drawn = draw(result(scenario({"v6fwd": peer({"rate": 1.0})})), tmp_path / "a")
    assert [path.name for path in drawn] == ["a-scenarios.png"]


def test_a_run_without_peers_has_no_picture(tmp_path: Path) -> None:
    assert draw(result(scenario({})), tmp_path / "a") == []
