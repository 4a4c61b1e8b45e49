"""The folder where shims find the daemon: who hears whom, with real FIFOs."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from v6fwd.docker.shim.process import start_time
from v6fwd.docker.shim.rendezvous import Rendezvous
from v6fwd.errors import RelayError

HOLDER = Path("/opt/v6fwd/hold-x86_64")
ME = f"{os.getpid()} {start_time(os.getpid())}"


class Daemon:
    """One side of the folder, and all that it has heard."""

    def __init__(self, folder: Path, holder: Path | None = HOLDER) -> None:
        self.heard: list[tuple[int, int, bool]] = []
        self._holder = holder
        self.rendezvous = Rendezvous(folder, lambda *words: self.heard.append(words))

    def open(self) -> Daemon:
        self.rendezvous.open(self._holder)
        return self


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "run" / "v6fwd"


@pytest.fixture
async def daemon(folder: Path) -> Daemon:
    return Daemon(folder)


@pytest.fixture
async def successor(folder: Path, daemon: Daemon) -> Daemon:
    """One that puts itself in the place of the other."""
    daemon.open()
    return Daemon(folder).open()


async def say(folder: Path, text: str) -> None:
    """Write as shims do, and let the daemons read."""
    fd = os.open(folder / "shims", os.O_WRONLY | os.O_NONBLOCK)
    os.write(fd, text.encode())
    os.close(fd)
    await asyncio.sleep(0)
    await asyncio.sleep(0)


async def test_lines_are_heard(folder: Path, daemon: Daemon) -> None:
    daemon.open()
    await say(folder, "7 100\n8 200 stop\n")
    await say(folder, "9 3")
    await say(folder, "00\nx 1\n5\n\n1 2 more\n")
    assert daemon.heard == [(7, 100, False), (8, 200, True), (9, 300, False), (1, 2, False)]
    assert not daemon.rendezvous.close()


async def test_a_defect_costs_one_line(folder: Path, daemon: Daemon) -> None:
    """Dockerd waits for an answer to each of the others, and for each that is to stop."""

    def on_line(pid: int, started: int, stops: bool) -> None:
        if pid == 8:
            raise KeyError(pid)
        daemon.heard.append((pid, started, stops))

    told: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    daemon.rendezvous = Rendezvous(folder, on_line)
    daemon.open()
    await say(folder, f"7 100\n8 100\n{'9' * 5000} 100\n9 100 stop\n")
    assert daemon.heard == [(7, 100, False), (9, 100, True)]
    assert [type(context["exception"]) for context in told] == [KeyError]
    daemon.rendezvous.close()


@pytest.mark.parametrize(("holder", "word"), [(HOLDER, str(HOLDER)), (None, "-")])
async def test_the_name_says_who_it_is(folder: Path, holder: Path | None, word: str) -> None:
    daemon = Daemon(folder, holder).open()
    assert (folder / "daemon").read_text() == f"{ME} {word}\n"
    assert all((folder / name).is_fifo() for name in ("shims", "rest"))
    assert not daemon.rendezvous.close()
    assert not (folder / "daemon").exists()
    assert not daemon.rendezvous.close(), "a second time"


async def test_nobody_hears_when_it_has_gone(folder: Path, daemon: Daemon) -> None:
    daemon.open().rendezvous.close()
    with pytest.raises(OSError, match="No such device or address"):
        os.open(folder / "shims", os.O_WRONLY | os.O_NONBLOCK)


async def test_the_place_of_rest_stays(folder: Path, daemon: Daemon) -> None:
    before = daemon.open().rendezvous.rest
    daemon.rendezvous.close()
    again = Daemon(folder).open()
    assert os.path.samestat(again.rendezvous.rest, before)
    again.rendezvous.close()


async def test_a_successor_hears(folder: Path, daemon: Daemon, successor: Daemon) -> None:
    await say(folder, "7 100\n")
    assert not daemon.heard
    assert successor.heard == [(7, 100, False)]
    assert daemon.rendezvous.close(), "somebody goes on"
    await say(folder, "8 200\n")
    assert len(successor.heard) == 2
    assert not successor.rendezvous.close()
    assert not (folder / "daemon").exists()


async def test_what_was_said_to_the_one_before(folder: Path, daemon: Daemon) -> None:
    """The successor looks for shims that began with us; what ends is still ours."""
    daemon.open()
    fd = os.open(folder / "shims", os.O_WRONLY | os.O_NONBLOCK)
    successor = Daemon(folder).open()
    os.write(fd, b"7 100\n8 200 stop\n")
    os.close(fd)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert daemon.heard == [(8, 200, True)]
    daemon.rendezvous.close()
    successor.rendezvous.close()


async def test_a_successor_that_fails(folder: Path, daemon: Daemon, successor: Daemon) -> None:
    """The one before hears again, also of those who came meanwhile and live."""
    assert successor.rendezvous.close([os.getpid(), 2**22 + 1]), "somebody goes on"
    assert successor.rendezvous.close(), "and a second time"
    await say(folder, "7 100\n")
    assert daemon.heard == [(os.getpid(), start_time(os.getpid()), False), (7, 100, False)]
    assert not daemon.rendezvous.close()
    assert not (folder / "daemon").exists()


async def test_the_one_before_was_killed(folder: Path, daemon: Daemon) -> None:
    """Its files are there, and nobody reads: there is nothing to give back."""
    os.makedirs(folder)
    os.mkfifo(folder / "shims")
    (folder / "daemon").write_text("1 1 -\n")
    daemon.open()
    assert not daemon.rendezvous.close()
    assert not (folder / "daemon").exists()


async def test_a_folder_that_cannot_be(folder: Path, daemon: Daemon) -> None:
    folder.parent.write_text("a file")
    with pytest.raises(RelayError, match=r"cannot meet shims in .*: (not a directory|file exists)"):
        daemon.open()


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files away")
async def test_a_folder_of_another_user(folder: Path, daemon: Daemon) -> None:
    os.makedirs(folder)
    os.chown(folder, 65534, -1)
    with pytest.raises(RelayError, match="cannot meet shims in"):
        daemon.open()
    assert os.listdir(folder) == []
