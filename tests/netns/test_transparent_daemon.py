"""`serve` with forwards in mode `transparent`: who the target sees, through several workers."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.netns.test_hostile_worker import channels_of
from tests.netns.test_privileges import NOBODY, capabilities, is_nobody, status
from tests.support.daemon import ServeProcess
from tests.support.daemon_scene import DIALLED, PORT, Scene
from tests.support.inside import UDP, in_place, plain
from tests.support.process import PATIENCE, eventually
from tests.support.servers import open_folder
from v6fwd.daemon import wire
from v6fwd.daemon.privileges import (
    DAC_OVERRIDE,
    NET_ADMIN,
    NET_BIND_SERVICE,
    SYS_ADMIN,
    TRANSPARENT,
)
from v6fwd.demo.lab import BRIDGE_V4, CLIENT_V6
from v6fwd.errors import RelayError
from v6fwd.relay.transparent.pseudo_store import find_pseudo

pytestmark = pytest.mark.netns


def helpers(daemon: ServeProcess) -> list[int]:
    """The process ids of the helpers that live."""
    children = Path(f"/proc/{daemon.pid}/task/{daemon.pid}/children").read_text().split()
    return [pid for pid in map(int, children) if pid not in daemon.workers()]


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where nobody may enter."""
    with open_folder() as folder:
        yield folder


def served_by_both_workers(scene: Scene) -> bool:
    """Whether both workers have had flows."""
    return all(worker["flows"] for worker in scene.daemon.status()["workers"])


def test_both_workers_name_the_client(scene: Scene) -> None:
    """TCP and UDP, IPv6 and IPv4; and nothing is left when the last forward has gone."""
    before = in_place(scene.lab)
    scene.configure()
    scene.run()
    tcp, udp = scene.server("::"), scene.server("::", UDP)
    for _ in range(200):
        for source in DIALLED:
            assert scene.connected(tcp, source)[2] == source
            one = scene.client(source, UDP)
            one.send(b"question")
            _, address = udp.recvfrom(100)
            assert plain(address) == (source, one.getsockname()[1])
            udp.sendto(b"answer", address)
            assert one.recv(100) == b"answer"
        if served_by_both_workers(scene):
            break
    assert served_by_both_workers(scene)
    assert in_place(scene.lab) != before
    scene.close()
    scene.configure(pairs=())
    scene.daemon.reload()
    eventually(lambda: in_place(scene.lab) == before, "the container as it was")


def test_nothing_of_a_udp_session_outlives_it(scene: Scene) -> None:
    """The helper removes its routes and rules by the port that the session's socket had."""
    scene.configure(more="[defaults]\nudp-timeout = 3\n")
    text = scene.daemon.config.read_text().replace("\n[defaults]\nclient-ip", "\nclient-ip")
    scene.daemon.config.write_text(text)
    scene.run()
    udp = scene.server("::", UDP)
    for source in DIALLED:
        one = scene.client(source, UDP)
        one.send(b"question")
        _, address = udp.recvfrom(100)
        assert f"dport {address[1]}" in in_place(scene.lab)["rules"]
        assert source in in_place(scene.lab)["routes"]
    eventually(
        lambda: not any(source in in_place(scene.lab)["routes"] for source in DIALLED),
        "the clients' routes have gone",
    )
    eventually(lambda: " dport " not in in_place(scene.lab)["rules"], "and the rules behind them")


def test_both_workers_give_the_same_pseudo_address(scene: Scene) -> None:
    scene.configure()
    scene.run()
    target = scene.server("0.0.0.0")
    seen = set()
    for _ in range(200):
        seen.add(scene.connected(target)[2])
        if served_by_both_workers(scene):
            break
    assert served_by_both_workers(scene)
    (pseudo,) = seen
    assert find_pseudo(scene.store, socket.inet_aton(pseudo))[0].network[:6].hex() == "20010db80001"
    forward = scene.daemon.forward(f"[::]:{PORT}")
    assert forward["not_real"] == {"pseudo": forward["flows"]}
    assert f"transparent ({forward['flows']} pseudo)" in scene.daemon.command_line("status").output


def test_a_reload_changes_the_mode(scene: Scene) -> None:
    """Flows go on as they began; with the last one of them go the rules."""
    scene.configure()
    scene.run()
    target = scene.server("::")
    one, accepted, seen = scene.connected(target)
    assert seen == CLIENT_V6
    scene.configure("none")
    scene.daemon.reload()
    assert scene.connected(target)[2] == BRIDGE_V4
    accepted.sendall(b"still here")
    assert one.recv(100) == b"still here"
    assert scene.has_rules()
    scene.close()
    eventually(lambda: not scene.has_rules(), "the rules are gone")
    scene.configure()
    scene.daemon.reload()
    assert scene.connected(scene.server("::"))[2] == CLIENT_V6


def test_a_container_that_starts_after_the_daemon(scene: Scene) -> None:
    """The daemon starts all the same, and says what is not there."""
    scene.configure()
    right = scene.daemon.config.read_text()
    scene.daemon.config.write_text(right.replace(scene.lab.namespace("container"), "nowhere"))
    scene.run()
    eventually(lambda: "cannot open network namespace" in scene.daemon.log, "a word about it")
    scene.daemon.config.write_text(right)
    scene.daemon.reload()
    assert scene.connected(scene.server("::"))[2] == CLIENT_V6


def test_workers_have_no_capability_and_helpers_those_they_need(scene: Scene, folder: Path) -> None:
    """Helpers have these rights and no more; workers, also those that follow a dead one, none."""
    daemon = scene.daemon
    daemon.control = folder / "run" / "control.sock"
    scene.configure(more='user = "nobody"')
    scene.run()
    needed = {DAC_OVERRIDE, NET_ADMIN, SYS_ADMIN}
    daemon.kill_worker(daemon.workers()[0])
    assert all(is_nobody(pid) for pid in daemon.workers())
    assert all(capabilities(pid) == set() for pid in daemon.workers())
    eventually(lambda: len(helpers(daemon)) == 2, "a helper for each worker")
    eventually(
        lambda: all(capabilities(pid) == needed for pid in helpers(daemon)), "no more than that"
    )
    assert all(status(pid)["Seccomp"] == "2" for pid in helpers(daemon))
    assert capabilities(daemon.pid) == needed | {NET_BIND_SERVICE}
    target = scene.server("::")
    for source in DIALLED:
        assert scene.connected(target, source)[2] == source


def test_workers_of_root_have_nothing(scene: Scene) -> None:
    """Not in mode transparent, either; the helpers are root's, with four capabilities."""
    scene.configure()
    scene.run()
    assert scene.connected(scene.server("::"))[2] == CLIENT_V6
    for pid in scene.daemon.workers():
        told = status(pid)
        assert told["Uid"].split() == [str(NOBODY.pw_uid)] * 4
        assert (told["NoNewPrivs"], told["Seccomp"]) == ("1", "2")
        assert capabilities(pid) == set()
    assert all(capabilities(pid) == TRANSPARENT for pid in helpers(scene.daemon))


def test_a_helper_that_dies(scene: Scene) -> None:
    """Its worker is of no use without it, and is replaced with a new helper."""
    scene.configure()
    scene.run()
    server = scene.server("::")
    assert scene.connected(server)[2] == CLIENT_V6
    for pid in helpers(scene.daemon):
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: scene.daemon.log.count("killed, since its helper ended") == 2, "both died")
    eventually(lambda: len(helpers(scene.daemon)) == 2, "new ones")
    assert scene.connected(server)[2] == CLIENT_V6


def test_a_worker_that_was_taken_over(scene: Scene) -> None:
    """At its helper's door: what no forward needs is refused, what is no request ends both."""
    scene.configure()
    scene.run()
    server = scene.server("::")
    assert scene.connected(server)[2] == CLIENT_V6
    victim = scene.daemon.workers()[0]
    os.kill(victim, signal.SIGSTOP)  # what it asks itself must not come between
    with socket_to_helper(victim) as sock:
        sock.send(wire.pack("join", "/proc/1/ns/net"))
        with pytest.raises(RelayError, match="no target of ours is in /proc/1/ns/net"):
            wire.read_answer(sock.recv(wire.MAX_ANSWER))
        assert "a worker was refused" in scene.daemon.log
        sock.send(b"\x80\x05.")
        assert sock.recv(10) == b""
    eventually(lambda: victim not in scene.daemon.workers(), "it is replaced")
    assert scene.connected(server)[2] == CLIENT_V6


@contextlib.contextmanager
def socket_to_helper(worker: int) -> Iterator[socket.socket]:
    """A worker's socket whose other end a helper has: the younger of its two."""
    channels = [socket.socket(fileno=fd) for fd in channels_of(worker)]
    with contextlib.ExitStack() as opened:
        for sock in channels:
            opened.enter_context(sock)
            sock.settimeout(PATIENCE)
        _, found = sorted(channels, key=lambda sock: os.fstat(sock.fileno()).st_ino)
        yield found
