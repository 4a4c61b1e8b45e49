"""Log lines as datagrams: their form, a daemon that is slow, gone, or back again."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from v6fwd.log import MAX_LINE
from v6fwd.syslog import Syslog, has_no_reader

HEAD = r"<%d>[A-Z][a-z]{2} [ 123][0-9] [0-9]{2}:[0-9]{2}:[0-9]{2} v6fwd\[%d\]: "


class Daemon:
    """The socket of a syslog daemon, and what came there."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.setblocking(False)
        self._path = path

    def heard(self) -> list[bytes]:
        """All that is there now."""
        found = []
        try:
            while True:
                found.append(self._socket.recv(1 << 16))
        except BlockingIOError:
            return found

    def texts(self) -> list[str]:
        """The same without heads."""
        return [each.decode().partition("]: ")[2] for each in self.heard()]

    def close(self) -> None:
        """End, and leave no socket behind."""
        self._socket.close()
        self._path.unlink(missing_ok=True)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log"


@pytest.fixture
def daemon(path: Path) -> Iterator[Daemon]:
    daemon = Daemon(path)
    yield daemon
    daemon.close()


@pytest.fixture
def log(path: Path) -> Iterator[Syslog]:
    log = Syslog("v6fwd", str(path))
    yield log
    log.close()


@pytest.mark.parametrize(("level", "priority"), [("error", 27), ("warning", 28), ("info", 30)])
def test_a_line_has_the_form_of_syslog(
    daemon: Daemon, log: Syslog, level: str, priority: int
) -> None:
    getattr(log, level)("event", "some\ntext of ümlauts", client="::1")
    [line] = daemon.heard()
    assert re.fullmatch(HEAD % (priority, os.getpid()) + "some text of ümlauts", line.decode())


def test_a_day_of_one_digit(daemon: Daemon, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """RFC 3164 section 4.1.2: a blank, not a zero."""
    monkeypatch.setenv("TZ", "UTC")
    log = Syslog("v6fwd", str(path))
    monkeypatch.setattr(log, "_now", lambda: 3 * 86400.0)
    log.info("event", "text")
    log.close()
    [line] = daemon.heard()
    assert line.startswith(b"<30>Jan  4 ")


def test_a_long_line_is_cut(daemon: Daemon, log: Syslog) -> None:
    log.info("event", "x" * 10_000)
    [line] = daemon.heard()
    assert len(line) == MAX_LINE


def test_without_a_daemon_lines_are_dropped_and_counted(path: Path, log: Syslog) -> None:
    """Nothing happens; a daemon that comes is told, and how much it has missed."""
    for _ in range(3):
        log.info("event", "lost")
    daemon = Daemon(path)
    log.info("event", "heard")
    assert daemon.texts() == ["heard", "3 log lines were dropped: syslog did not take them"]
    daemon.close()


def test_a_daemon_that_restarts(path: Path, log: Syslog) -> None:
    for _ in range(3):
        daemon = Daemon(path)
        log.info("event", "heard")
        assert "heard" in daemon.texts()
        daemon.close()


def test_a_socket_that_is_left(path: Path, log: Syslog) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as left:
        left.bind(str(path))
    log.info("event", "lost")
    path.unlink()
    path.touch()
    log.info("event", "lost")


def test_a_stream_socket_is_no_syslog_daemon(path: Path, log: Syslog) -> None:
    with socket.socket(socket.AF_UNIX) as stream:
        stream.bind(str(path))
        stream.listen()
        log.info("event", "lost")


def test_a_daemon_that_does_not_read(daemon: Daemon, log: Syslog) -> None:
    """Its queue is short (net.unix.max_dgram_qlen): what it does not hold is dropped, and told."""
    for number in range(5000):
        log.info("event", f"line {number}")
    texts = daemon.texts()
    assert texts == [f"line {number}" for number in range(len(texts))]
    assert len(texts) < 5000
    log.info("event", "again")
    lost = 5000 - len(texts)
    assert daemon.texts() == ["again", f"{lost} log lines were dropped: syslog did not take them"]


def test_who_reads_stderr(tmp_path: Path) -> None:
    with open(os.devnull, "wb") as null, (tmp_path / "file").open("wb") as file:
        assert has_no_reader(null.fileno())
        assert not has_no_reader(file.fileno())
    with open("/dev/zero", "rb") as other:
        assert not has_no_reader(other.fileno())
    assert has_no_reader(999_999)


def test_it_costs_no_import() -> None:
    """A relay that stands alone is a process a port."""
    script = "import sys, v6fwd.docker.shim.standalone, v6fwd.relay.life.alone"
    script += "; print(*sys.modules)"
    told = subprocess.run([sys.executable, "-I", "-c", script], capture_output=True, check=True)
    heavy = {"asyncio", "ssl", "_hashlib", "datetime", "threading", "v6fwd.relay.udp.mmsg"}
    assert not {"syslog", "logging", *heavy} & set(told.stdout.decode().split())


def test_nothing_that_a_terminal_obeys_is_sent(log: Syslog, daemon: Daemon) -> None:
    log.info("x", "label \x1b[2J\rready: 1 forwards")
    [text] = daemon.texts()
    assert text.isprintable()
    assert text.endswith("label \\x1b[2J\\rready: 1 forwards")
