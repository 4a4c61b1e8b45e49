"""The status page of a real daemon, and `v6fwd top` on a real terminal."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from tests.support.daemon import ServeProcess
from tests.support.process import PATIENCE, eventually, free_port
from tests.support.rig import echoed
from tests.support.terminal import Terminal


class Page:
    """Who watches the page."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("::1", port, timeout=PATIENCE)
        self._connection.request("GET", "/status/events")
        self.answer = self._connection.getresponse()

    def events(self, name: str) -> Iterator[Any]:
        """The events of a kind, to the end of the stream."""
        while line := self.answer.readline():
            if line == f"event: {name}\n".encode():
                yield json.loads(self.answer.readline().removeprefix(b"data: "))

    def close(self) -> None:
        self.answer.close()
        self._connection.close()


@pytest.fixture
def port(daemon: ServeProcess) -> int:
    """The port of the page."""
    port = free_port("::1")
    metrics = f'[metrics]\nlisten = "[::1]:{port}"\nstatus-page = true'
    daemon.configure(workers=2, more=metrics)
    return port


@pytest.fixture
def target() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


@pytest.fixture
def listen(daemon: ServeProcess, port: int, target: socket.socket) -> int:  # noqa: ARG001
    """The port of a forward to `target`, of a daemon that runs."""
    listen = free_port("::1")
    with daemon.config.open("a") as config:
        address = f"127.0.0.1:{target.getsockname()[1]}"
        config.write(f'\n[[forward]]\nlisten = "[::1]:{listen}"\ntarget = "{address}"\n')
    daemon.run()
    return listen


def test_a_flow_is_seen_while_it_lives(
    daemon: ServeProcess, port: int, listen: int, target: socket.socket
) -> None:
    with (
        closing(Page(port)) as page,
        socket.create_connection(("::1", listen), PATIENCE) as client,
        target.accept()[0] as behind,
    ):
        echoed(client, behind, b"12345")
        status = next(each for each in page.events("status") if each["live"])
        (row,) = status["rows"]
        (told,) = daemon.status()["forwards"]
        assert (row["listen"], row["target"]) == (told["listen"], told["target"])
        assert (row["live"], row["flows"]) == (1, told["flows"])
        clients = next(each for each in page.events("clients") if each["net"]["rows"])
        (group,) = clients["client"]["rows"]
        (flow,) = daemon.flows()
        assert (group["client"], group["bytes_up"]) == ("::1", flow["bytes_up"])
        assert clients["net"]["rows"][0]["client"] == "::/64"


def test_events_of_the_supervisor(daemon: ServeProcess, port: int, listen: int) -> None:  # noqa: ARG001
    with closing(Page(port)) as page:
        events = page.events("log")
        assert "ready" in [line["event"] for line in next(events)]
        daemon.reload()
        assert next(events)[-1]["event"] == "reloaded"


def test_workers_that_are_replaced_do_not_end_it(
    daemon: ServeProcess,
    port: int,
    listen: int,  # noqa: ARG001
) -> None:
    with closing(Page(port)) as page:
        events = page.events("status")
        next(events)
        daemon.kill_worker(daemon.workers()[0])
        assert next(each for each in events if each["restarts"])["workers"] == 2


def test_a_successor_gets_those_who_watch(
    daemon: ServeProcess,
    successor: ServeProcess,
    port: int,
    listen: int,  # noqa: ARG001
) -> None:
    with closing(Page(port)) as page:
        events = page.events("status")
        assert next(events)["pid"] == daemon.pid
        successor.run()
        assert {each["pid"] for each in events} <= {daemon.pid}  # to the stream's end
    with closing(Page(port)) as page:
        assert next(page.events("status"))["pid"] == successor.pid


def test_it_is_off_unless_asked_for(daemon: ServeProcess, port: int) -> None:
    daemon.configure(workers=1, more=f'[metrics]\nlisten = "[::1]:{port}"')
    daemon.run()
    for path in ("/status", "/status/events", "/status.js"):
        connection = http.client.HTTPConnection("::1", port, timeout=PATIENCE)
        connection.request("GET", path)
        assert connection.getresponse().status == 404
        connection.close()


def test_another_name_is_refused_and_the_configured_one_is_not(
    daemon: ServeProcess, port: int
) -> None:
    metrics = (
        f'[metrics]\nlisten = "[::1]:{port}"\nstatus-page = true\nstatus-host = "relay.example"'
    )
    daemon.configure(workers=1, more=metrics)
    daemon.run()
    for host, status in (("evil.example", 421), ("relay.example", 200)):
        connection = http.client.HTTPConnection("::1", port, timeout=PATIENCE)
        connection.request("GET", "/status", headers={"Host": host})
        assert connection.getresponse().status == status
        connection.close()


# ---- top -------------------------------------------------------------------------------------


@pytest.fixture
def terminal(daemon: ServeProcess, listen: int) -> Iterator[Terminal]:  # noqa: ARG001
    words = [sys.executable, "-m", "v6fwd", "top", "--interval", "0.1"]
    terminal = Terminal([*words, "--socket", str(daemon.control)])
    yield terminal
    terminal.close()


def test_top_draws_and_obeys_keys(terminal: Terminal, listen: int, target: socket.socket) -> None:
    lines = terminal.shows(f"[::1]:{listen}")
    assert len(lines) == 24
    assert max(map(len, lines)) <= 80
    assert "LISTEN" in lines[2]
    with socket.create_connection(("::1", listen), PATIENCE), target.accept()[0]:
        terminal.shows("1 live")
        terminal.press("\t")
        assert any(line.startswith("::/64") for line in terminal.shows("NETWORK"))
        terminal.press("\t\t")
        terminal.shows("TARGET")
    terminal.press("/nobody\r")
    terminal.shows("[flows /nobody]")
    terminal.press("p")
    terminal.shows("PAUSED")
    terminal.press("q")
    assert terminal.ended() == 0
    assert terminal.modes == terminal.before
    assert "\x1b[?1049l" in terminal.rest()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 0), (signal.SIGTERM, 143)])
def test_top_leaves_the_terminal_as_it_was(
    terminal: Terminal, listen: int, number: signal.Signals, status: int
) -> None:
    terminal.shows(f"[::1]:{listen}")
    assert terminal.modes != terminal.before
    terminal.process.send_signal(number)
    assert terminal.ended() == status
    assert terminal.modes == terminal.before
    assert "\x1b[?1049l" in terminal.rest()


def test_top_waits_for_another_daemon(
    terminal: Terminal, daemon: ServeProcess, listen: int
) -> None:
    terminal.shows(f"[::1]:{listen}")
    daemon.signal(signal.SIGTERM)
    daemon.wait()
    terminal.shows("no answer at control socket")
    daemon.run()
    terminal.shows(f"process {daemon.pid}")


def test_top_once(daemon: ServeProcess, listen: int) -> None:
    result = daemon.command_line("top", "--once", "--interval", "0.01")
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert lines[0].startswith("v6fwd ")
    assert lines[2].split()[:2] == ["LISTEN", "TARGET"]
    assert lines[3].startswith(f"[::1]:{listen} ")


def test_top_without_a_terminal(daemon: ServeProcess, listen: int) -> None:  # noqa: ARG001
    result = daemon.command_line("top")
    assert result.exit_code == 2
    assert "top needs a terminal; --once prints a table" in result.output


def test_a_watcher_costs_no_descriptor_when_it_has_gone(
    daemon: ServeProcess,
    port: int,
    listen: int,  # noqa: ARG001
) -> None:
    before = daemon.descriptors()
    pages = [Page(port) for _ in range(8)]
    assert [page.answer.status for page in pages] == [200] * 8
    for page in pages:
        page.close()
    eventually(lambda: daemon.descriptors() <= before, "descriptors are closed")
