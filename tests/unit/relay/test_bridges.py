"""Targets on Docker's bridges, whose addresses change hands."""

from __future__ import annotations

import contextlib
import errno
import re
import socket
from pathlib import Path

import pytest

from v6fwd.log import Log
from v6fwd.model import Forward, pair_up
from v6fwd.netns.netlink import LOOPBACK, Netlink
from v6fwd.relay.targets.bridges import on_bridges, tell_bridges


@pytest.fixture(autouse=True)
def _there_is_a_bridge(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "if_nameindex", lambda: [(1, "lo"), (2, "docker0")])


def told(folder: Path, *targets: str) -> list[str]:
    """What is logged of forwards to these."""
    pairs = [pair_up(f"[::]:{80 + at}", target)[0] for at, target in enumerate(targets)]
    path = folder / "log"
    with path.open("w") as file:
        tell_bridges(on_bridges(Forward(*pair) for pair in pairs), Log(fd=file.fileno()))
    lines = path.read_text().splitlines()  # to a file, with time and level in front
    return [re.sub(r"^\S+ \S+ warning: ", "", line) for line in lines]


@pytest.mark.parametrize("bridge", ["docker0", "br-0123456789ab"])
def test_a_line_for_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bridge: str) -> None:
    monkeypatch.setattr(socket, "if_indextoname", lambda _: bridge)
    first, second = told(tmp_path, "127.0.0.1:80", "[::1]:8080", "127.0.0.1:80")
    assert first == (
        f"target 127.0.0.1:80 is on Docker's bridge {bridge}: after a restart another container"
        " may have that address; docker:NAME:80 follows the container NAME"
    )
    assert second.startswith(f"target [::1]:8080 is on Docker's bridge {bridge}")


@pytest.mark.parametrize("device", ["lo", "br-lan", "docker_gwbridge", "eth0"])
def test_nothing_of_other_devices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    monkeypatch.setattr(socket, "if_indextoname", lambda _: device)
    assert told(tmp_path, "127.0.0.1:80") == []


def test_nothing_is_asked_where_there_is_no_bridge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "if_nameindex", lambda: [(1, "lo"), (2, "br-lan")])
    monkeypatch.setattr(socket, "if_indextoname", lambda _: "docker0")
    assert told(tmp_path, "127.0.0.1:80") == []


def test_where_netlink_is_forbidden_nothing_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by systemd's RestrictAddressFamilies."""

    def forbidden() -> list[tuple[int, str]]:
        raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")

    monkeypatch.setattr(socket, "if_nameindex", forbidden)
    monkeypatch.setattr(socket, "if_indextoname", lambda _: "docker0")
    assert told(tmp_path, "127.0.0.1:80") == []


def test_nothing_of_what_is_no_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "if_indextoname", lambda _: "docker0")
    targets = ("docker:web:80", "web:80", "unix:/run/app.sock", "[fe80::1%lo]:80")
    assert told(tmp_path, *targets) == []


def test_a_host_with_many_ports_is_asked_for_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bytes] = []

    def device_to(_: Netlink, packed: bytes) -> int:
        asked.append(packed)
        return LOOPBACK

    monkeypatch.setattr(Netlink, "device_to", device_to)
    monkeypatch.setattr(socket, "if_indextoname", lambda _: "docker0")
    assert len(told(tmp_path, *(f"127.0.0.1:{port}" for port in range(80, 100)))) == 20
    assert asked == [bytes((127, 0, 0, 1))]


def test_the_device_to_an_address() -> None:
    with contextlib.closing(Netlink()) as netlink:
        assert netlink.device_to(bytes((127, 0, 0, 1))) == LOOPBACK
