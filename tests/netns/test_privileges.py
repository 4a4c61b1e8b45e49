"""Giving up root: `user = ...`, with all that still has to work then."""

from __future__ import annotations

import ctypes
import grp
import os
import pwd
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemon import ServeProcess
from tests.support.process import PATIENCE, eventually, free_port
from tests.support.rig import echoed
from tests.support.servers import open_folder
from v6fwd.daemon.control_folder import give_folder
from v6fwd.daemon.privileges import NET_BIND_SERVICE, become
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
    assert daemon.control.parent.stat().st_uid == 0
    assert daemon.control.resolve().parent.stat().st_uid == NOBODY.pw_uid
    for pid in (daemon.pid, *daemon.workers()):
        assert is_nobody(pid)
        assert status(pid)["NoNewPrivs"] == "1"
        assert Path(f"/proc/{pid}/mem").stat().st_uid == 0  # for no other process of nobody's
    assert all(status(pid)["Seccomp"] == "2" for pid in daemon.workers())
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


def test_workers_of_root_are_nobody(daemon: ServeProcess, server: socket.socket) -> None:
    """Whoever starts the daemon by hand: those that meet the world have nothing to give."""
    port = free_port("::1")
    daemon.configure((f"[::1]:{port}", f"127.0.0.1:{server.getsockname()[1]}"))
    daemon.run()
    served(port, server)
    assert status(daemon.pid)["Uid"].split() == ["0"] * 4
    daemon.kill_worker(daemon.workers()[0])
    for pid in daemon.workers():
        told = status(pid)
        assert told["Uid"].split() == [str(NOBODY.pw_uid)] * 4
        assert told["Gid"].split() == [str(NOBODY.pw_gid)] * 4
        assert told["Groups"] == ""
        assert capabilities(pid) == set()
        assert (told["NoNewPrivs"], told["Seccomp"]) == ("1", "2")
    assert "workers run as user nobody" in daemon.log


def test_root_without_the_right_to_be_another(daemon: ServeProcess, server: socket.socket) -> None:
    """As in a container with --cap-drop ALL: workers serve without capabilities, and say so."""

    def drop() -> None:
        libc = ctypes.CDLL(None)
        for capability in (6, 7):  # CAP_SETGID, CAP_SETUID
            assert not libc.prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP

    port = free_port("::1")
    daemon.configure((f"[::1]:{port}", f"127.0.0.1:{server.getsockname()[1]}"))
    daemon.run(preexec=drop)
    served(port, server)
    assert daemon.log.count("cannot become user nobody: operation not permitted") == 2
    for pid in daemon.workers():
        assert capabilities(pid) == set()
        assert status(pid)["Seccomp"] == "2"


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


def test_the_folder_of_the_socket_stays_ours(tmp_path: Path) -> None:
    """What root trusts is beside the socket: leases, and the FIFOs where shims report."""
    run = tmp_path / "v6fwd"
    (run / "netns").mkdir(parents=True)
    give_folder(str(run / "control.sock"), "nobody")
    assert [run.stat().st_uid, (run / "netns").stat().st_uid] == [0, 0]
    assert (run / "control.sock").readlink() == Path("control/control.sock")
    assert (run / "control").stat().st_uid == NOBODY.pw_uid
    give_folder(str(run / "control.sock"), "daemon")
    assert (run / "control").stat().st_uid == pwd.getpwnam("daemon").pw_uid


def test_a_folder_that_was_given_away_comes_back(tmp_path: Path) -> None:
    """Version 0.1 gave all of /run/v6fwd to the user."""
    run = tmp_path / "v6fwd"
    run.mkdir()
    os.chown(run, NOBODY.pw_uid, NOBODY.pw_gid)
    give_folder(str(run / "control.sock"), "nobody")
    assert run.stat().st_uid == 0


def test_a_folder_of_another_user_is_not_used(tmp_path: Path) -> None:
    run = tmp_path / "v6fwd"
    run.mkdir()
    os.chown(run, pwd.getpwnam("games").pw_uid, -1)
    with pytest.raises(RelayError, match=r"^cannot give nobody a folder.*folder v6fwd belongs"):
        give_folder(str(run / "control.sock"), "nobody")


def test_a_folder_with_files_of_others_is_not_given_away(tmp_path: Path) -> None:
    (tmp_path / "control").mkdir()
    (tmp_path / "control" / "mail").touch()
    with pytest.raises(RelayError, match=r"holds 'mail', no socket of ours$"):
        give_folder(str(tmp_path / "control.sock"), "nobody")
    assert (tmp_path / "control").stat().st_uid == 0


def test_a_predecessor_answers_all_the_time(tmp_path: Path) -> None:
    """Its socket is led to; and it stays reachable if the successor does not come up."""
    path = tmp_path / "control.sock"
    with socket.socket(socket.AF_UNIX) as sock, socket.socket(socket.AF_UNIX) as client:
        sock.bind(str(path))
        sock.listen()
        give_folder(str(path), "nobody")
        give_folder(str(path), "nobody")
        client.connect(str(path))
        sock.accept()[0].close()


def test_a_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RelayError, match=r"cannot give nobody a folder for .*/file/control.sock: "):
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


def ask_as(uid: int, gid: int, path: Path, do: str) -> str:
    """What somebody else is answered at the control socket: the error, or ""."""
    code = (
        "import os, sys\n"
        "os.setgroups([]); os.setgid(int(sys.argv[1])); os.setuid(int(sys.argv[2]))\n"
        "from v6fwd.daemon.ask import AskError, ask\n"
        "try: list(ask(sys.argv[3], {'do': sys.argv[4]}))\n"
        "except AskError as error: print(error)"
    )
    words = [sys.executable, "-c", code, str(gid), str(uid), str(path), do]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.mark.parametrize("user", ["", "nobody"])
def test_the_group_reads_and_does_not_rule(
    daemon: ServeProcess, successor: ServeProcess, folder: Path, user: str
) -> None:
    group = grp.getgrnam("games")
    daemon.control = successor.control = folder / "run" / "control.sock"
    more = f'user = "{user}"' if user else ""
    daemon.configure(more=more)
    daemon.run()
    os.chown(daemon.control, -1, group.gr_gid)  # as `group` does if the user is in that group
    daemon.control.chmod(0o660)
    stranger = pwd.getpwnam("games").pw_uid
    for do in ("status", "flows", "bans"):
        assert ask_as(stranger, group.gr_gid, daemon.control, do) == ""
    for do in ("reload", "drain", "takeover", "leave", "ban", "unban", "kill"):
        told = ask_as(stranger, group.gr_gid, daemon.control, do)
        assert told == f"only root and the daemon's user may {do}"
    if user:
        assert ask_as(NOBODY.pw_uid, NOBODY.pw_gid, daemon.control, "reload") == ""
    daemon.reload()
    successor.run()
    assert daemon.wait() == 0


def test_sockets_are_taken_from_ours_only(daemon: ServeProcess, folder: Path) -> None:
    """Who may write to the folder of the control socket could hand sockets to root."""
    daemon.control = folder / "control.sock"
    daemon.configure()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(daemon.control))
        pid = os.fork()
        if not pid:
            os.setuid(NOBODY.pw_uid)
            sock.listen()  # the kernel remembers who called listen(2)
            signal.pause()
        try:
            daemon.start("-c", str(daemon.config), ready=False)
            assert daemon.wait() == 1
            uid = NOBODY.pw_uid
            told = f"cannot take over: control socket {daemon.control} is that of user {uid}\n"
            assert daemon.log == told
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
