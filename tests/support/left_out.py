"""For all rings, as a pytest plugin: skips what cannot run here, reports what was left out.

With `CI` set, anything left out makes the run fail: a check that was skipped has not passed. That
holds for every kind of skip: a marker, `pytest.skip` in a test or fixture, one of a whole module.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from functools import cache

import pytest

from v6fwd.demo.lab import lab_obstacle

_left_out: Counter[str] = Counter()


@cache
def _obstacle(kind: str, *programs: str) -> str | None:
    if kind == "netns":
        return lab_obstacle()
    missing = [program for program in programs if shutil.which(program) is None]
    return f"no {', '.join(missing)}" if missing else None


@pytest.hookimpl(trylast=True)  # a ring's conftest adds markers to its tests before
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests whose marker names something that is not here: root, or a program."""
    for item in items:
        markers = (marker for marker in item.iter_markers() if marker.name in ("netns", "server"))
        obstacles = (_obstacle(marker.name, *marker.args) for marker in markers)
        if why := next(filter(None, obstacles), None):
            item.add_marker(pytest.mark.skip(reason=why))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Count a skipped test, whoever skipped it. An expected failure did run."""
    if report.skipped and not hasattr(report, "wasxfail"):
        _left_out[_reason(report)] += 1


def pytest_collectreport(report: pytest.CollectReport) -> None:
    """Count a module that skips itself, which is reported in place of its tests."""
    if report.skipped:
        _left_out[_reason(report)] += 1


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    words = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longreprtext
    return words.removeprefix("Skipped: ")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say in one line what was left out."""
    if _left_out:
        words = "; ".join(f"{count} tests ({why})" for why, count in _left_out.items())
        terminalreporter.write_line(f"left out: {words}")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail where nothing may be left out, with a status that no test which failed gives."""
    if _left_out and os.environ.get("CI"):
        session.exitstatus = pytest.ExitCode.INTERRUPTED
