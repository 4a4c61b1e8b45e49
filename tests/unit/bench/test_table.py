"""The terminal's tables."""

from __future__ import annotations

import io

from rich.console import Console

from bench.table import left_out_lines, show
from tests.unit.bench.samples import peer, result, scenario


def shown() -> str:
    run = result(
        scenario(
            {
                "v6fwd": peer({"rate": 10.0, "cpu": 5.0}, None),
                "docker-proxy": peer({"rate": 5.0, "cpu": 8.0}, {"rate": 7.0, "cpu": 9.0}),
                "direct": peer({"rate": 20.0}, {"rate": 22.0}),
            }
        )
    )
    file = io.StringIO()
    show(Console(file=file, width=100), run)
    return file.getvalue()


def test_figures_ratios_and_failures_are_shown() -> None:
    text = shown()
    assert "6.00" in text
    assert "5.00-7.00" in text
    assert "v6fwd / docker-proxy" in text
    assert "2.00-2.00" in text
    assert "failed: connections-20, v6fwd: ab: no" in text
    assert "left out: socat: no socat" in text


def test_what_is_left_out_is_grouped_by_reason() -> None:
    run = result()
    run.left_out = {"udp": "not yet", "socat": "no socat", "dns": "not yet"}
    assert left_out_lines(run) == ["udp, dns: not yet", "socat: no socat"]
