"""How the soak tells a killed worker's clients from those that somebody else has cut."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from bench.soak import Soak, SoakDaemon
from bench.soak_clients import Ports
from bench.soak_log import Broken, FlowLog

PORTS = (40354, 21285)


def line(at: float, seconds: float, *, end: str = "closed", port: int = PORTS[0]) -> str:
    """A flow's line in the log."""
    record = {
        "time": datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds"),
        "event": "flow",
        "client": f"[::1]:{port}",
        "listen": f"[::]:{PORTS[1]}",
        "seconds": seconds,
        "end": end,
    }
    return json.dumps(record) + "\n"


def event(name: str, **fields: object) -> str:
    return json.dumps({"event": name, "text": f"{name}!", **fields}) + "\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "stderr.1"
    path.touch()
    return path


@pytest.fixture
def soak(path: Path) -> Soak:
    daemon = SoakDaemon(path.parent, {})
    daemon.log = path
    return Soak(daemon, Ports(*range(8)))


def broken(began: float = 100.0, broke: float = 110.0) -> Broken:
    return Broken("tcp_long: cut", PORTS, began, broke)


@pytest.mark.parametrize(
    ("at", "seconds", "is_its"),
    [
        (110.0, 9.999, True),
        (110.5, 10.4, True),  # told later than the client had noticed
        (110.582, 0.003, False),  # the port's next owner, half a second later
        (99.9, 5.0, False),  # the one before
        (105.0, 20.0, False),
    ],
)
def test_a_line_is_of_the_flow_that_began_in_the_clients_life(
    path: Path, at: float, seconds: float, is_its: bool
) -> None:
    path.write_text(line(at, seconds, end="reset by target"))
    log = FlowLog(path)
    log.read()
    assert log.end_of(broken()) == ("reset by target" if is_its else None)
    assert log.end_of(Broken("", (1, PORTS[1]), 100.0, 110.0)) is None


def test_a_line_is_read_once_it_is_whole(path: Path) -> None:
    log, text = FlowLog(path), line(110.0, 1.0)
    with path.open("a") as file:
        for part in (text[:30], text[30:] + text[:50]):
            assert log.end_of(broken()) is None
            file.write(part)
            file.flush()
            log.read()
    assert log.end_of(broken()) == "closed"


def test_old_lines_are_forgotten(path: Path) -> None:
    path.write_text(line(110.0, 1.0) + line(400.0, 1.0, port=1))
    log = FlowLog(path)
    log.read()
    assert log.end_of(broken()) is None
    assert log.end_of(Broken("", (1, PORTS[1]), 390.0, 400.0)) == "closed"


@pytest.mark.parametrize(
    ("kill", "written", "is_explained"),
    [
        (105.0, "", True),
        (105.0, line(110.0, 9.9, end="internal error"), False),
        (105.0, line(110.582, 0.003), True),
        (99.0, "", False),
        (111.0, "", False),
    ],
)
def test_whose_client_it_was(
    soak: Soak, path: Path, kill: float, written: str, is_explained: bool
) -> None:
    """A killed worker's, if it was killed in the client's life and nobody ended the flow."""
    path.write_text(written)
    soak._kills[4711] = kill
    soak._broken.append(broken())
    soak.judge()
    soak.judge()
    assert sum(soak.with_their_worker.values()) == is_explained
    assert sum(soak.accidents.values()) == (not is_explained)


def test_a_worker_that_died_by_itself_is_an_accident(soak: Soak, path: Path) -> None:
    path.write_text(event("worker-died", pid=4711) + event("worker-died", pid=4712))
    soak._kills[4711] = 100.0
    soak.judge()
    soak.judge()
    assert soak.accidents == {"a worker died": 1}


@pytest.mark.parametrize("name", ["defect", "worker-failed", "log-dropped"])
def test_trouble_in_the_log_is_an_accident(soak: Soak, path: Path, name: str) -> None:
    path.write_text(event(name) + event("reloaded"))
    soak.judge()
    assert soak.accidents == {"trouble in the log": 1}
