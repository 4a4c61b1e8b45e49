"""Loops through several processes: ended by the count of relays that a flow has come through."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.process import PATIENCE, ForwardProcess, eventually, free_port

Ring = list[ForwardProcess]


@contextlib.contextmanager
def ring(folder: Path, targets: list[str], suffix: str = "") -> Iterator[tuple[Ring, list[int]]]:
    """Processes, each with one forward to the next; `targets` are their addresses.

    The last one leads to the first.
    """
    ports = [free_port() for _ in targets]
    with contextlib.ExitStack() as stack:
        processes = []
        for number, target in enumerate(targets):
            (folder / str(number)).mkdir()
            process = ForwardProcess(folder / str(number))
            stack.callback(process.end)
            to = ports[(number + 1) % len(ports)]
            process.start(f"[::]:{ports[number]}{suffix}", f"{target}:{to}")
            processes.append(process)
        yield processes, ports


def logs(processes: Ring) -> str:
    return "".join(process.log for process in processes)


def loop_lines(processes: Ring) -> list[str]:
    return [line for line in logs(processes).splitlines() if "part of a loop" in line]


def answer(port: int) -> bytes:
    """What a client is told; raises ConnectionResetError, perhaps while it still connects."""
    with socket.create_connection(("::1", port), PATIENCE) as client:
        return client.recv(1)


@pytest.mark.parametrize(
    "targets",
    [["127.0.0.1", "[::1]"], ["[::1]", "127.0.0.7", "[::ffff:127.0.0.1]"]],
    ids=["two", "three"],
)
def test_connections(tmp_path: Path, targets: list[str]) -> None:
    with ring(tmp_path, targets) as (processes, ports):
        before = [process.descriptors() for process in processes]
        for _ in range(3):
            with pytest.raises(ConnectionResetError):
                answer(ports[0])
        eventually(lambda: [each.descriptors() for each in processes] == before, "all flows gone")
        assert "no room" not in logs(processes)
        lines = loop_lines(processes)
        assert lines
        at = next(port for port in ports if f"[::]:{port} and its target" in lines[0])
        assert f":{ports[(ports.index(at) + 1) % len(ports)]} are part of a loop" in lines[0]


def test_datagrams(tmp_path: Path) -> None:
    with ring(tmp_path, ["127.0.0.1", "[::1]"], "/udp") as (processes, ports):
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as client:
            client.sendto(b"round and round", ("::1", ports[0]))
        eventually(lambda: loop_lines(processes), "the loop is seen")
        assert all(process.descriptors() < 1000 for process in processes)
        assert len(loop_lines(processes)) == 1, "it was the only datagram"


def test_a_chain_of_processes_is_no_loop(tmp_path: Path) -> None:
    """However many clients come at once: the count is looked at, and low."""
    with socket.create_server(("127.0.0.1", 0), backlog=512) as server, contextlib.ExitStack() as s:
        to = f"127.0.0.1:{server.getsockname()[1]}"
        processes: Ring = []
        for number in range(3):
            (tmp_path / str(number)).mkdir()
            process = ForwardProcess(tmp_path / str(number))
            s.callback(process.end)
            port = free_port()
            process.start(f"[::1]:{port}", to)
            to = f"[::1]:{port}"
            processes.append(process)
        server.settimeout(PATIENCE)
        for number in range(300):
            client = s.enter_context(socket.create_connection(("::1", port), PATIENCE))
            client.sendall(b"%3d" % number)
            served = s.enter_context(server.accept()[0])
            served.settimeout(PATIENCE)
            assert served.recv(3) == b"%3d" % number
        assert not loop_lines(processes)
