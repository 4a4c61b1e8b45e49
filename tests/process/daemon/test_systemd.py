"""Under systemd: what it is told, and the sockets that it passes."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemon import ServeProcess
from tests.support.installed import EXPOSED, UNITS
from tests.support.paths import ROOT
from tests.support.process import PATIENCE, eventually, free_port
from tests.support.rig import echoed
from v6fwd.daemon.systemd import Notifier, inherited_sockets


class Manager:
    """The socket on which systemd listens, and what came there."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(f"\0{path[1:]}" if path.startswith("@") else path)
        self._socket.settimeout(PATIENCE)

    def hear(self) -> list[str]:
        """The lines of the next message."""
        return self._socket.recv(65536).decode().split("\n")

    def hear_until(self, line: str) -> list[str]:
        """The first message with this line, whatever came before."""
        while line not in (lines := self.hear()):
            pass
        return lines

    def is_silent(self) -> bool:
        """Whether there is nothing more to be heard."""
        self._socket.setblocking(False)
        try:
            return not self._socket.recv(65536)
        except BlockingIOError:
            return True
        finally:
            self._socket.settimeout(PATIENCE)

    def close(self) -> None:
        """Hear no more."""
        self._socket.close()


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    path = str(tmp_path / "notify") if request.param == "path" else f"@v6fwd-test-{os.getpid()}"
    manager = Manager(path)
    yield manager
    manager.close()


# ---- what it is told -------------------------------------------------------------------------


def test_messages(manager: Manager) -> None:
    environ = {"NOTIFY_SOCKET": manager.path, "OTHER": "1"}
    notifier = Notifier(environ)
    assert environ == {"OTHER": "1"}  # no child is to speak in our name
    notifier.ready("ready: 3 forwards\nor so")
    assert manager.hear() == ["READY=1", "STATUS=ready: 3 forwards or so"]
    before = time.monotonic_ns() // 1000
    notifier.reloading()
    first, second = manager.hear()
    assert first == "RELOADING=1"
    assert before <= int(second.removeprefix("MONOTONIC_USEC=")) <= time.monotonic_ns() // 1000
    notifier.stopping("draining")
    assert manager.hear() == ["STOPPING=1", "STATUS=draining"]
    notifier.watchdog()
    assert manager.hear() == ["WATCHDOG=1"]
    notifier.successor(7)
    assert manager.hear() == ["MAINPID=7"]
    notifier.successor(0)
    assert manager.is_silent()


@pytest.mark.parametrize("path", ["", "/nowhere/notify", "@nobody-listens-here", "vsock:2:9"])
def test_nobody_listens(path: str) -> None:
    Notifier({"NOTIFY_SOCKET": path}).ready("well")


@pytest.mark.parametrize(
    ("environ", "interval"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "3000000"}, 1.5),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid())}, 1.5),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_watchdog_waits_twice_as_long(environ: dict[str, str], interval: float | None) -> None:
    assert Notifier(environ).watchdog_interval == interval
    assert environ == {}


def test_sockets_of_another_process_are_not_ours() -> None:
    environ = {"LISTEN_PID": "1", "LISTEN_FDS": "2", "LISTEN_FDNAMES": "a:b"}
    assert inherited_sockets(environ) == []
    assert environ == {}


# ---- the daemon as a service -----------------------------------------------------------------


@pytest.fixture
def echo_server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(PATIENCE)
        yield server


def served(port: int, server: socket.socket) -> None:
    """A client gets through to the target."""
    with socket.create_connection(("::1", port), PATIENCE) as client, server.accept()[0] as behind:
        echoed(client, behind, b"hello")


def target_of(server: socket.socket) -> str:
    """Where it listens."""
    return f"127.0.0.1:{server.getsockname()[1]}"


def test_a_life(
    manager: Manager,
    daemon: ServeProcess,
    echo_server: socket.socket,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", manager.path)
    monkeypatch.setenv("WATCHDOG_USEC", "20000")
    daemon.configure((f"[::1]:{free_port('::1')}", target_of(echo_server)))
    daemon.run()
    assert manager.hear_until("READY=1") == ["READY=1", "STATUS=ready: 1 forwards"]
    for _ in range(3):
        manager.hear_until("WATCHDOG=1")
    daemon.signal(signal.SIGHUP)
    manager.hear_until("RELOADING=1")
    manager.hear_until("READY=1")
    daemon.config.write_text("workers = 0")
    daemon.signal(signal.SIGHUP)
    manager.hear_until("RELOADING=1")
    manager.hear_until("READY=1")  # the old configuration stays, and the service is well
    daemon.signal(signal.SIGTERM)
    manager.hear_until("STOPPING=1")
    assert daemon.wait() == 0


def test_a_successor_becomes_the_service(
    manager: Manager,
    daemon: ServeProcess,
    successor: ServeProcess,
    echo_server: socket.socket,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    port = free_port("::1")
    daemon.configure((f"[::1]:{port}", target_of(echo_server)))
    monkeypatch.setenv("NOTIFY_SOCKET", manager.path)
    daemon.run()
    manager.hear_until("READY=1")
    monkeypatch.delenv("NOTIFY_SOCKET")
    successor.run()
    assert manager.hear() == [f"MAINPID={successor.pid}"]
    assert daemon.wait() == 0
    assert manager.is_silent()  # it does not say that the service stops
    served(port, echo_server)


@contextlib.contextmanager
def activated(daemon: ServeProcess, names: str, *sockets: socket.socket) -> Iterator[None]:
    """The daemon with these sockets as its descriptors from 3 on."""
    high = [fcntl.fcntl(sock, fcntl.F_DUPFD, 100) for sock in sockets]
    moves = " ".join(f"{3 + number}<&{fd} {fd}<&-" for number, fd in enumerate(high))
    variables = f"LISTEN_PID=$$ LISTEN_FDS={len(high)} LISTEN_FDNAMES={names}"
    script = f'exec {moves}; {variables} exec "$@"'
    command = [sys.executable, "-m", "v6fwd", "serve", "-c", str(daemon.config)]
    log = daemon.config.with_name("activated.log")
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            ["bash", "-c", script, "-", *command], stderr=stderr, pass_fds=high
        )
    for fd in high:
        os.close(fd)
    try:
        eventually(lambda: "ready: " in log.read_text() or process.poll() is not None, "ready")
        yield
        process.terminate()
        assert process.wait(PATIENCE) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()


def test_sockets_are_passed(daemon: ServeProcess, echo_server: socket.socket) -> None:
    """The port is served though it could not be bound again, and the stranger is named."""
    sock = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    sock.bind(("::", 0))
    port = sock.getsockname()[1]
    datagrams = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    datagrams.bind(("::1", 0))
    stranger = socket.create_server(("127.0.0.1", 0))
    daemon.configure(
        (f"[::]:{port}", target_of(echo_server)),
        (f"[::1]:{datagrams.getsockname()[1]}/udp", "127.0.0.1:9"),
    )
    with (
        sock,
        datagrams,
        stranger,
        activated(daemon, "a.socket:b.socket:c.socket", sock, datagrams, stranger),
    ):
        served(port, echo_server)
        log = daemon.config.with_name("activated.log").read_text()
        name = f"127.0.0.1:{stranger.getsockname()[1]}/tcp"
        assert f"systemd passed a socket (c.socket, {name}) that is no forward's; closed" in log
        assert f"[::]:{port} (a.socket) takes IPv6 alone; write BindIPv6Only=both" in log
        assert log.count("systemd") == 2


# ---- the units -------------------------------------------------------------------------------

PAGE = (ROOT / "docs" / "docker.md").read_text()


def exposure(unit: Path) -> float:
    """What systemd calls the exposure of a unit, from 0 to 10."""
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager", str(unit)]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    last = told.stdout.strip().splitlines()[-1]
    assert "Overall exposure level" in last, told.stdout + told.stderr
    return float(last.split(": ")[1].split()[0])


@pytest.mark.server("systemd-analyze")
@pytest.mark.parametrize(("name", "most"), EXPOSED.items())
def test_the_sandbox_is_tight(name: str, most: float) -> None:
    assert exposure(UNITS / name) <= most
    assert f"says {most}" in PAGE


@pytest.mark.server("systemd-analyze")
def test_the_sandbox_without_transparent(tmp_path: Path) -> None:
    """With the drop-in that the page has."""
    found = re.search(r"a drop-in lowers it to (\S+):\n((?:\n    .*|\n)+)", PAGE)
    assert found
    unit = tmp_path / "v6fwd-docker.service"
    lines = (line.strip() for line in found[2].splitlines())
    unit.write_text((UNITS / unit.name).read_text() + "\n".join(("", *lines, "")))
    assert exposure(unit) == float(found[1])
    assert float(found[1]) < EXPOSED[unit.name]


@pytest.mark.server("systemd-analyze")
@pytest.mark.parametrize("name", [*EXPOSED, "v6fwd.socket"])
def test_the_units_are_understood(name: str, tmp_path: Path) -> None:
    """Every directive is one that systemd knows; only the paths are those of another machine."""
    for unit in UNITS.iterdir():
        text = unit.read_text().replace("/usr/local/bin/v6fwd", shutil.which("true") or "")
        (tmp_path / unit.name).write_text(text)
    command = ["systemd-analyze", "verify", "--man=no", str(tmp_path / name)]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    ours = [line for line in told.stderr.splitlines() if "v6fwd" in line]
    assert ours == []


@pytest.mark.parametrize("name", EXPOSED)
def test_every_directive_has_its_reason(name: str) -> None:
    """A directive stands below a comment, alone or with others that it explains as well."""
    explained = False
    for line in (UNITS / name).read_text().splitlines():
        if line.startswith("#"):
            explained = True
        elif not line or line.startswith("["):
            explained = False
        else:
            assert explained, line
