"""Giving up root: `user = ...`, with all that still has to work then."""

from __future__ import annotations

import os
import pwd
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemon import ServeProcess
from tests.support.process import PATIENCE, eventually, free_port
from tests.support.rig import echoed
from tests.support.servers import open_folder
from v6fwd.daemon.privileges import NET_BIND_SERVICE, become, give_folder
from v6fwd.demo.lab import Lab
from v6fwd.errors import RelayError

pytestmark = pytest.mark.netns  # root is what is given up

NOBODY = pwd.getpwnam("nobody")


def status(pid: int) -> dict[str, str]:
    """/proc/PID/status by name."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def capabilities(pid: int) -> set[int]:
    """What a process may still do, and what it may take back."""
    told = status(pid)
    either = int(told["CapPrm"], 16) | int(told["CapEff"], 16) | int(told["CapInh"], 16)
    return {number for number in range(64) if either >> number & 1}


def is_nobody(pid: int) -> bool:
    """Whether nothing of another user is left: real, effective, saved and file system ids."""
    told = status(pid)
    uids, gids = set(told["Uid"].split()), set(told["Gid"].split())
    groups = {*map(int, told["Groups"].split())}
    return (uids, gids, groups) == (
        {str(NOBODY.pw_uid)},
        {str(NOBODY.pw_gid)},
        {*os.getgrouplist("nobody", NOBODY.pw_gid)},
    )


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(PATIENCE)
        yield server


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where nobody may enter: it reads the configuration at a reload."""
    with open_folder() as folder:
        yield folder


@pytest.fixture
def daemon(folder: Path) -> Iterator[ServeProcess]:
    """A daemon in a folder that is not root's alone."""
    process = ServeProcess(folder)
    yield process
    process.end()
    assert "Traceback" not in process.log


@pytest.fixture
def successor(folder: Path) -> Iterator[ServeProcess]:
    """A second one."""
    process = ServeProcess(folder, "successor")
    yield process
    process.end()


def served(port: int, server: socket.socket) -> None:
    """A client gets through to the target."""
    with socket.create_connection(("::1", port), PATIENCE) as client, server.accept()[0] as behind:
        echoed(client, behind, b"hello")


def test_a_daemon_of_nobody(
    daemon: ServeProcess, successor: ServeProcess, server: socket.socket, folder: Path
) -> None:
    """Serving, a dead worker, a reload, a takeover: all without root."""
    daemon.control = successor.control = folder / "run" / "control.sock"
    target = f"127.0.0.1:{server.getsockname()[1]}"
    port, later = free_port("::1"), free_port("::1")
    daemon.configure((f"[::1]:{port}", target), more='user = "nobody"')
    daemon.run()
    served(port, server)
    assert daemon.control.parent.stat().st_uid == NOBODY.pw_uid
    for pid in (daemon.pid, *daemon.workers()):
        assert is_nobody(pid)
        assert status(pid)["NoNewPrivs"] == "1"
    assert capabilities(daemon.pid) == {NET_BIND_SERVICE}
    assert all(capabilities(pid) == set() for pid in daemon.workers())
    daemon.kill_worker(daemon.workers()[0])
    assert all(is_nobody(pid) and not capabilities(pid) for pid in daemon.workers())
    daemon.configure((f"[::1]:{port}", target), (f"[::1]:{later}", target), more='user = "nobody"')
    daemon.reload()
    served(later, server)
    successor.run()
    assert daemon.wait() == 0
    served(port, server)
    assert is_nobody(successor.pid)
    assert daemon.control.exists()


def test_a_reload_may_open_a_port_below_1024(daemon: ServeProcess, folder: Path, lab: Lab) -> None:
    """In a namespace, where nobody else has them."""
    daemon.control = folder / "run" / "control.sock"
    more = 'user = "nobody"'
    daemon.configure(("[::1]:80", "127.0.0.1:9"), more=more)
    daemon.start("-c", str(daemon.config), prefix=lab.command("host"))
    daemon.configure(("[::1]:80", "127.0.0.1:9"), ("[::1]:81", "127.0.0.1:9"), more=more)
    daemon.reload()
    assert daemon.forward("[::1]:81")["state"] == "open"


def test_who_is_not_root_cannot_become_another(daemon: ServeProcess, tmp_path: Path) -> None:
    daemon.control = tmp_path / "control.sock"
    daemon.configure(more='user = "daemon"')
    daemon.config.chmod(0o644)
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    daemon.start("-c", str(daemon.config), ready=False, preexec=lambda: os.setuid(NOBODY.pw_uid))
    assert daemon.wait() == 1
    eventually(lambda: daemon.log, "a word about it")
    assert "cannot" in daemon.log
    assert "operation not permitted" in daemon.log
    assert "Traceback" not in daemon.log


def test_a_folder_with_files_of_others_is_not_given_away(tmp_path: Path) -> None:
    (tmp_path / "mail").touch()
    give_folder(str(tmp_path / "control.sock"), "nobody")
    assert tmp_path.stat().st_uid == 0
    (tmp_path / "mail").unlink()
    (tmp_path / "control.sock").touch()
    (tmp_path / ".control.sock.17").touch()
    give_folder(str(tmp_path / "control.sock"), "nobody")
    assert tmp_path.stat().st_uid == NOBODY.pw_uid


def test_leases_are_no_files_of_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of mode transparent: they are in the default socket's folder, whoever was here before."""
    leases = tmp_path / "netns"
    leases.mkdir()
    give_folder(str(tmp_path / "control.sock"), "nobody")
    assert tmp_path.stat().st_uid == 0
    monkeypatch.setattr("v6fwd.daemon.privileges.LEASES", leases)
    give_folder(str(tmp_path / "control.sock"), "nobody")
    assert tmp_path.stat().st_uid == NOBODY.pw_uid
    assert leases.stat().st_uid == 0


def test_a_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RelayError, match=r"cannot give .*/file to nobody: "):
        give_folder(str(tmp_path / "file" / "control.sock"), "nobody")


def test_becoming_is_for_good() -> None:
    """A forked process, since there is no way back."""
    pid = os.fork()
    if not pid:
        answers = 0
        try:
            become("nobody", keep=(NET_BIND_SERVICE,))
            answers |= is_nobody(os.getpid()) << 0
            answers |= (capabilities(os.getpid()) == {NET_BIND_SERVICE}) << 1
            try:
                os.setresuid(0, 0, 0)
            except PermissionError:
                answers |= 1 << 2
            become("nobody")  # once more: fewer capabilities, no error
            answers |= (capabilities(os.getpid()) == set()) << 3
        finally:
            os._exit(answers)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0b1111
