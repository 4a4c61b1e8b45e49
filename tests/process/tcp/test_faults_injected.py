"""System calls that fail: the kernel's refusals, put in by strace."""

from __future__ import annotations

import asyncio
import ctypes
import errno
import os
import select
import socket
import threading
from functools import partial
from typing import Any

import pytest

from tests.support.process import PATIENCE, failing
from tests.support.relaying import echo, relaying, target, until
from tests.support.rig import MIB, Rig, echoed, noise, read_all, sending, was_reset
from v6fwd.relay import listener
from v6fwd.relay.pairs.native import is_native
from v6fwd.relay.sockets import Accept

strace = pytest.mark.server("strace")


@strace
@pytest.mark.parametrize(
    "error", ["EMFILE", "ENFILE", "ENOBUFS", "ENOMEM", "ECONNABORTED", "EPERM", "EINTR"]
)
def test_accept(own_rig: Rig, error: str) -> None:
    """The client stays in the queue and is served by the next try."""
    own_rig.start(prefix=failing("accept4", error, "2..4"))
    pairs = []
    for number in range(5):
        pairs.append(own_rig.pair())
        for client, target_end in pairs:
            echoed(client, target_end, b"after %d" % number)
    assert own_rig.process.log.count("no room") <= 1
    own_rig.drop()
    own_rig.settled()


@strace
@pytest.mark.parametrize("error", ["EAGAIN", "EADDRNOTAVAIL", "ENETUNREACH", "ECONNREFUSED"])
def test_connect(own_rig: Rig, error: str) -> None:
    own_rig.start(prefix=failing("connect", error, "2"))
    first = own_rig.pair()
    echoed(*first, b"before")
    assert own_rig.is_cut_off()
    echoed(*first, b"behind")
    own_rig.probe()
    why = os.strerror(getattr(errno, error)).lower()
    assert own_rig.process.log.lower().count(f"cannot connect to {own_rig.target}") == 1
    assert why in own_rig.process.log.lower()
    own_rig.drop()
    own_rig.settled()


def of_the_pump(call: str) -> str:
    """The call by which bytes are moved first: the native pumps have their own."""
    if is_native() or os.environ.get("V6FWD_ENGINE") == "ring":
        return {"readv": "recvfrom", "write": "sendto"}.get(call, call)
    return call


@strace
@pytest.mark.parametrize("call", ["readv", "write", "splice", "epoll_wait", "epoll_pwait"])
def test_interrupted(own_rig: Rig, call: str) -> None:
    own_rig.start(prefix=failing(of_the_pump(call), "EINTR", "3+3"))
    client, target_end = own_rig.pair()
    data = noise(8 * MIB, seed=13)
    with sending(client, data), sending(target_end, data):
        assert read_all(target_end) == data
        assert read_all(client) == data


@strace
def test_no_pipe(own_rig: Rig) -> None:
    """Bulk goes on without pipes. The first four are the interpreter's and the event loop's."""
    own_rig.start(prefix=failing("pipe2", "EMFILE", "5+"))
    client, target_end = own_rig.pair()
    data = noise(8 * MIB, seed=13)
    with sending(client, data), sending(target_end, data):
        assert read_all(target_end) == data
        assert read_all(client) == data


class Sender(threading.Thread):
    """Sends until all has gone or the socket was cut, and tells which it was."""

    def __init__(self, sock: socket.socket, data: bytes) -> None:
        super().__init__()
        self._sock = sock
        self._data = data
        self.was_cut = False

    def run(self) -> None:
        try:
            self._sock.sendall(self._data)
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:  # reset, broken pipe, not connected
            self.was_cut = True


@strace
@pytest.mark.parametrize("call", ["readv", "write"])
@pytest.mark.parametrize("error", ["ENOMEM", "ENOBUFS"])
def test_want_of_memory_while_moving(own_rig: Rig, call: str, error: str) -> None:
    """It costs that flow, whose ends are reset, and no other."""
    costs_one_flow(own_rig, of_the_pump(call), error)


@strace
@pytest.mark.usefixtures("on_sides")
@pytest.mark.parametrize("error", ["ENOMEM", "ENOBUFS"])
def test_want_of_memory_while_splicing(own_rig: Rig, error: str) -> None:
    """The same in bulk, which what is fast enough to meet no two full buffers has seldom."""
    costs_one_flow(own_rig, "splice", error)


def costs_one_flow(own_rig: Rig, call: str, error: str) -> None:
    own_rig.start(prefix=failing(call, error, "6"))
    data = noise(MIB, seed=1)
    assert [transfer(own_rig, data) for _ in range(6)].count(False) == 1
    own_rig.drop()
    own_rig.settled()


def transfer(rig: Rig, data: bytes) -> bool:
    """Send `data` through a new flow: whether all of it came, or else the flow was reset."""
    try:
        client = rig.connect()
    except ConnectionResetError:  # as early as that: its target was tried by then, or was not
        rig.settled()
        if select.select([rig.server], [], [], 0)[0]:
            assert was_reset(rig.accept())
        return False
    sender = Sender(client, data)
    sender.start()
    try:
        if rig.server not in select.select([rig.server, client], [], [], PATIENCE)[0]:
            # Cut before its target was tried. A socket gives its error to one call only, and the
            # next reads an end of stream: so the reset may have been the sender's.
            reset = was_reset(client)
            sender.join()
            assert reset or sender.was_cut
            return False
        assert read_all(rig.accept()) == data
    except ConnectionResetError:
        return False
    finally:
        sender.join()
    return True


def has_at_most(errors: list[int], count: int) -> bool:
    return len(errors) <= count


class FailingAccept:
    """An accept that fails as it is told."""

    def __init__(self, accept: Accept, errors: list[int]) -> None:
        self._accept = accept
        self._errors = errors

    def __call__(self) -> int:
        if self._errors:
            ctypes.set_errno(self._errors.pop(0))
            return -1
        return self._accept()


@pytest.mark.parametrize("later", [errno.ECONNABORTED, errno.ENOMEM])
async def test_want_of_memory_is_forgotten(monkeypatch: pytest.MonkeyPatch, later: int) -> None:
    """Once clients come in again, one more failure is a matter of milliseconds: none is reset."""
    monkeypatch.setattr(listener, "PATIENCE", 0.04)
    async with target(echo) as behind, relaying(behind) as running:
        errors = [errno.ENOMEM] * 6
        entrance: Any = running.relay.listeners[0]
        entrance._accept = FailingAccept(entrance._accept, errors)
        crowded_out = []
        for left in reversed(range(len(errors))):
            crowded_out.append(await running.connect())
            await until(partial(has_at_most, errors, left))
        first = await running.connect()
        await served(*first)
        errors.append(later)
        second = await running.connect()
        await served(*second)
        for _, writer in (first, second, *crowded_out):
            writer.close()
        await running.no_flows()


async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"hello")
    async with asyncio.timeout(PATIENCE):
        assert await reader.readexactly(5) == b"hello"
