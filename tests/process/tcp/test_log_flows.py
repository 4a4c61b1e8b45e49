"""--log-flows: one line for each flow, and in it how the flow ended."""

from __future__ import annotations

import json
import re
import signal
import socket
from collections.abc import Callable

import pytest

from tests.support.process import eventually, free_port
from tests.support.rig import Rig, echoed, reset, was_reset

TEXT = re.compile(
    r"flow (?P<client>\S+) -> (?P<listen>\S+) -> (?P<target>\S+) (?P<client_ip>\S+):"
    r" (?P<bytes_up>\d+) bytes up, (?P<bytes_down>\d+) down, (?P<seconds>[\d.]+) s, (?P<end>.+)"
)
Record = dict[str, str]


def read_text(line: str) -> Record | None:
    match = TEXT.fullmatch(line)
    return match.groupdict() if match else None


def read_json(line: str) -> Record | None:
    record = json.loads(line)
    if record["event"] != "flow":
        return None
    assert read_text(record["text"]), record["text"]
    return {name.replace("-", "_"): str(value) for name, value in record.items()}


Reader = Callable[[str], Record | None]
formats = pytest.mark.parametrize(
    ("style", "read"), [("text", read_text), ("json", read_json)], ids=["text", "json"]
)


class FlowLog:
    """The flow lines of a rig, one after the other."""

    def __init__(self, rig: Rig, read: Reader) -> None:
        self._rig = rig
        self._read = read
        self._taken = 0

    def _records(self) -> list[Record]:
        whole_lines = self._rig.process.log.rpartition("\n")[0].splitlines()
        records = [self._read(line) for line in whole_lines]
        return [record for record in records if record is not None]

    def next(self) -> Record:
        """Of the flow that has ended since the last call: exactly one."""
        eventually(lambda: len(self._records()) > self._taken, "a line for the flow")
        self._taken += 1
        assert len(self._records()) == self._taken
        return self._records()[-1]

    def ends_with(self, end: str, up: int, down: int) -> None:
        """The next line tells this."""
        record = self.next()
        assert (record["end"], record["bytes_up"], record["bytes_down"]) == (
            end,
            str(up),
            str(down),
        )


@formats
def test_every_end_of_a_flow(own_rig: Rig, style: str, read: Reader) -> None:
    own_rig.start("--log-flows", "--log-format", style, "--client-ip", "proxy-v2")
    log = FlowLog(own_rig, read)
    for closer in (0, 1):
        pair = said(own_rig)
        pair[closer].close()
        pair[1 - closer].close()
        log.ends_with("closed", up=8, down=6)
    for closer, end in ((0, "reset by client"), (1, "reset by target")):
        pair = said(own_rig)
        reset(pair[closer])
        log.ends_with(end, up=8, down=6)
    said(own_rig)
    own_rig.process.signal(signal.SIGINT)
    log.ends_with("cut at stop", up=8, down=6)
    assert own_rig.process.wait() == 0


def said(rig: Rig) -> tuple[socket.socket, socket.socket]:
    """A flow that has moved 8 bytes up and 6 down. The PROXY header is not counted."""
    client, target = rig.pair()
    target.recv(52, socket.MSG_WAITALL)
    echoed(client, target, b"question")
    echoed(target, client, b"answer")
    return client, target


@formats
def test_fields(own_rig: Rig, style: str, read: Reader) -> None:
    own_rig.start("--log-flows", "--log-format", style)
    log = FlowLog(own_rig, read)
    for host, shown in (("::1", "[::1]"), ("127.0.0.1", "127.0.0.1")):
        client, target = own_rig.pair(host)
        port = client.getsockname()[1]
        client.close()
        target.close()
        record = log.next()
        assert record["client"] == f"{shown}:{port}"
        assert record["listen"] == f"[::]:{own_rig.port}"
        assert record["target"] == own_rig.target
        assert record["client_ip"] == "none"
        assert float(record["seconds"]) >= 0


@formats
def test_refused_by_the_target(own_rig: Rig, style: str, read: Reader) -> None:
    own_rig.start("--log-flows", "--log-format", style)
    own_rig.server.close()
    assert own_rig.is_cut_off()
    assert FlowLog(own_rig, read).next()["end"] == "target failed: connection refused"


@formats
def test_idle(own_rig: Rig, style: str, read: Reader) -> None:
    own_rig.start("--log-flows", "--log-format", style, "--idle-timeout", "0.2")
    client, _ = own_rig.pair()
    assert was_reset(client)
    assert FlowLog(own_rig, read).next()["end"] == "idle timeout"


@formats
def test_header(own_rig: Rig, style: str, read: Reader) -> None:
    limits = ("--header-timeout", "0.2", "--accept-proxy", "::1")
    own_rig.start("--log-flows", "--log-format", style, *limits)
    log = FlowLog(own_rig, read)
    late = own_rig.connect()
    assert was_reset(late)
    assert log.next()["end"] == "refused: no whole PROXY header in time, 0 bytes came"
    own_rig.connect().close()
    assert log.next()["end"] == "closed before a header"
    client = own_rig.connect()
    client.sendall(b"PROXY TCP6 2001:db8:1::2 2001:db8:1::1 54321 80\r\n")
    own_rig.accept().close()
    client.close()
    record = log.next()
    assert (record["client"], record["end"]) == ("[2001:db8:1::2]:54321", "closed")


def test_no_line_unless_asked(rig: Rig) -> None:
    before = rig.process.log
    rig.probe()
    rig.settled()
    assert rig.process.log == before


def test_listen_address_in_use(own_rig: Rig) -> None:
    """The other line that an operator must see, whatever the format."""
    with socket.create_server(("::1", free_port()), family=socket.AF_INET6) as taken:
        address = f"[::1]:{taken.getsockname()[1]}"
        own_rig.process.start(address, own_rig.target, "--log-format", "json", ready=False)
        assert own_rig.process.wait() == 1
    record = json.loads(own_rig.process.log)
    assert record["text"].startswith(f"cannot listen on {address}: address already in use (")
    assert record["level"] == "error"
