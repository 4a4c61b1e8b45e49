"""A plugin of pytest for scripts/mutate: which tests execute which lines of v6fwd, in this process.

    pytest -p tests.support.covering --covering FILE ...

FILE gets an object: `lines` has for each source file and line the tests, `seconds` how long each
test took. A test that does not pass is in neither.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
from coverage import Coverage

_SOURCE = "v6fwd"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Take --covering."""
    parser.addoption("--covering", type=Path, required=True)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Begin before any module of the source is imported by a test."""
    config.pluginmanager.register(Covering(config.getoption("--covering")))


class Covering:
    """Counts, from the start of the session to its end."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._coverage = Coverage(data_file=None, config_file=False, source=[_SOURCE])
        self._coverage.start()
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._bad: set[str] = set()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """From here on it is this test."""
        self._coverage.switch_context(item.nodeid)
        result = yield
        self._coverage.switch_context("")
        return result

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Setup, call and teardown each have a report."""
        self._seconds[report.nodeid] += report.duration
        if report.outcome != "passed":
            self._bad.add(report.nodeid)

    def pytest_sessionfinish(self) -> None:
        """Write what was found."""
        self._coverage.stop()
        data = self._coverage.get_data()
        here = Path.cwd()
        lines = {
            str(Path(file).relative_to(here)): {
                str(line): tests
                for line, names in data.contexts_by_lineno(file).items()
                if (tests := sorted({*names} - self._bad - {""}))
            }
            for file in data.measured_files()
        }
        seconds = {test: took for test, took in self._seconds.items() if test not in self._bad}
        self._path.write_text(json.dumps({"lines": lines, "seconds": seconds}))
