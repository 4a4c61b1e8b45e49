"""The control socket: whose it is, and how it changes hands."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import grp
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from v6fwd.daemon import control as module
from v6fwd.daemon.ask import AskError, ask
from v6fwd.daemon.control import CLIENTS, Control
from v6fwd.errors import RelayError

A_GROUP = grp.getgrgid(os.getgid()).gr_name


async def parrot(request: dict[str, Any], _: socket.socket) -> AsyncIterator[dict[str, Any]]:
    """Says what it was asked."""
    for number in range(request.get("lines", 0)):
        yield {"line": number}
    yield {**request, "done": True}


async def asked(path: Path, request: dict[str, Any]) -> list[dict[str, Any]]:
    """Ask from another thread, as another process would."""
    return await asyncio.to_thread(lambda: list(ask(str(path), request)))


@pytest.mark.parametrize(("group", "mode"), [("", 0o600), (A_GROUP, 0o660)])
async def test_who_may_ask(tmp_path: Path, group: str, mode: int) -> None:
    path = tmp_path / "run" / "control.sock"
    control = Control(str(path), group, parrot)
    control.open()
    assert path.stat().st_mode & 0o777 == mode
    assert path.stat().st_gid == os.getgid()
    assert list(path.parent.iterdir()) == [path]
    assert await asked(path, {"do": "x", "lines": 2}) == [
        {"line": 0},
        {"line": 1},
        {"do": "x", "lines": 2, "done": True},
    ]
    control.close()
    assert not path.exists()


async def test_a_stale_socket_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
    control = Control(str(path), "", parrot)
    control.open()
    assert await asked(path, {"do": "x"})
    control.close()


async def test_a_successor_keeps_the_path(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    first, second = (Control(str(path), "", parrot) for _ in range(2))
    first.open()
    second.open()
    first.close()
    assert await asked(path, {"do": "x"})
    second.close()
    assert not path.exists()


async def test_a_file_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    path.write_text("precious")
    with pytest.raises(RelayError, match=f"^cannot listen on control socket {path}: a file is th"):
        Control(str(path), "", parrot).open()
    assert path.read_text() == "precious"


async def test_a_group_that_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with pytest.raises(RelayError, match=r"no group 'nobody-there'$"):
        Control(str(path), "nobody-there", parrot).open()
    assert not os.listdir(tmp_path)


async def test_an_endless_request_is_cut(tmp_path: Path) -> None:
    control = Control(str(tmp_path / "control.sock"), "", parrot)
    control.open()

    def talk() -> bytes:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(20)
            sock.connect(str(tmp_path / "control.sock"))
            sock.sendall(b"x" * (1 << 20))
            return sock.recv(1000)

    assert b"is no request" in await asyncio.to_thread(talk)
    control.close()


async def test_an_answer_that_breaks_off(tmp_path: Path) -> None:
    async def silent(_: dict[str, Any], sock: socket.socket) -> AsyncIterator[dict[str, Any]]:
        sock.shutdown(socket.SHUT_RDWR)
        yield {}

    control = Control(str(tmp_path / "control.sock"), "", silent)
    control.open()
    with pytest.raises(AskError, match=r"the answer broke off$"):
        await asked(tmp_path / "control.sock", {"do": "x"})
    control.close()


def connected(path: Path) -> socket.socket:
    """A client that has not said anything yet."""
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(20)
    sock.connect(str(path))
    return sock


async def test_the_silent_do_not_keep_others_out(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    control = Control(str(path), "", parrot)
    control.open()
    before = len(os.listdir("/proc/self/fd"))
    with contextlib.ExitStack() as held:
        silent = [held.enter_context(connected(path)) for _ in range(3 * CLIENTS)]
        assert await asked(path, {"do": "x"})
        assert len(os.listdir("/proc/self/fd")) <= before + len(silent) + CLIENTS
        assert await asyncio.to_thread(silent[0].recv, 1) == b""  # it has made room
        silent[-1].sendall(b'{"do": "y"}\n')
        assert b'"y"' in await asyncio.to_thread(silent[-1].recv, 1000)
    control.close()


async def test_who_says_nothing_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SILENCE", 0.02)
    path = tmp_path / "control.sock"
    control = Control(str(path), "", parrot)
    control.open()
    with connected(path) as silent:
        assert await asyncio.to_thread(silent.recv, 1) == b""
    control.close()


async def test_accepting_pauses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without descriptors: the one that waits stays readable, and must not make us spin."""
    monkeypatch.setattr(module, "PAUSE", 0.05)
    path = tmp_path / "control.sock"
    control = Control(str(path), "", parrot)
    control.open()
    assert control._socket is not None
    real = control._socket
    calls: list[None] = []

    class Full:
        """Has no descriptor, twice."""

        def accept(self) -> tuple[socket.socket, Any]:
            calls.append(None)
            if len(calls) < 3:
                raise OSError(errno.EMFILE, "")
            return real.accept()

        def fileno(self) -> int:
            return real.fileno()

        def close(self) -> None:
            real.close()

    monkeypatch.setattr(control, "_socket", Full())
    loop = asyncio.get_running_loop()
    loop.remove_reader(real)
    loop.add_reader(real, control._accept)
    assert await asked(path, {"do": "x"})
    assert len(calls) == 3
    control.close()
