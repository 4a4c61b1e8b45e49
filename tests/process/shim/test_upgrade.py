"""What shims that run while the package is upgraded know of it: names, lines and arguments.

They are release 0.1's, and change with no release that may meet shims of the one before.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
from pathlib import Path

import pytest

from tests.support.logged import Logged
from tests.support.process import eventually, free_port
from tests.support.shim import Shim
from v6fwd.docker.intake import Intake
from v6fwd.docker.shim import process
from v6fwd.docker.shim.holder import find_holder
from v6fwd.docker.shim.listening import LISTEN_FD
from v6fwd.docker.shim.published import ServedBy, published_ports, split_command
from v6fwd.docker.shim.rendezvous import DEFAULT_FOLDER, Rendezvous
from v6fwd.model import Protocol

OLD = Path(__file__).with_name("v6fwd-docker-proxy-0.1.0")


@pytest.fixture
def old_shim(shim: Shim) -> Shim:
    """A shim of release 0.1 in the place of the present one."""
    shutil.copy(OLD, shim.command[-1])
    return shim


def test_a_shim_of_0_1_falls_back_to_standalone_mode(old_shim: Shim) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = free_port("::1")
        old_shim.proxy(Protocol.TCP, "::1", port, server.getsockname())
        assert old_shim.all_status() == b"0\n"
        with socket.create_connection(("::1", port)) as client, server.accept()[0] as accepted:
            client.sendall(b"hello")
            assert accepted.recv(5) == b"hello"
        [mine] = [each for each in published_ports() if each.pid == old_shim.pid]
        assert mine.served_by is ServedBy.STANDALONE
        assert old_shim.stop() == 0


class Recorder:
    """A handler that adopts whatever comes, and answers dockerd."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, process.Shim]] = []

    def adopt(self, shim: process.Shim) -> None:
        shim.answer()
        self.calls.append(("adopt", shim))

    def stop(self, shim: process.Shim) -> None:
        self.calls.append(("stop", shim))
        shim.tell(process.LET_GO)

    def ended(self, shim: process.Shim) -> None:
        self.calls.append(("ended", shim))


@pytest.fixture
def run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "run"
    monkeypatch.setenv("V6FWD_RUN_DIR", str(folder))
    return folder


async def test_a_shim_of_0_1_is_adopted(old_shim: Shim, run_folder: Path) -> None:
    """And its holder has the arguments that release 0.1 knows it by."""
    logged, recorder = Logged(), Recorder()
    intake = Intake(recorder, logged.log)
    intake.open()
    port = free_port("::1")
    environment = {"V6FWD_RUN_DIR": str(run_folder), "V6FWD_SHIM_PATIENCE": "600"}
    old_shim.proxy(Protocol.TCP, "::1", port, ("127.0.0.1", 9), environment=environment)
    eventually(lambda: _holder_words(old_shim.pid) is not None, "the shim becomes the holder")
    await intake.scan()
    assert old_shim.all_status() == b"0\n"
    [(call, shim)] = recorder.calls
    assert (call, shim.pid, shim.flags.forward.listen.port) == ("adopt", old_shim.pid, port)
    words = _holder_words(old_shim.pid)
    assert words is not None
    assert words[:4] == [str(find_holder()), f"{run_folder}/shims", "600", old_shim.command[-1]]
    assert words[4:6] == ["-proto", "tcp"]
    assert os.readlink(f"/proc/{old_shim.pid}/fd/5") == f"{run_folder}/rest"
    old_shim.send(signal.SIGUSR2)
    eventually(lambda: "ready: 1 forwards" in old_shim.log, "standalone mode")
    assert old_shim.stop() == 0
    intake.close()
    logged.close()


def _holder_words(pid: int) -> list[str] | None:
    words = Path(f"/proc/{pid}/cmdline").read_text().removesuffix("\0").split("\0")
    split = split_command(words)
    return words if split is not None and split[0] is ServedBy.DAEMON else None


async def test_names_and_lines_in_the_run_folder(tmp_path: Path) -> None:
    assert DEFAULT_FOLDER == "/run/v6fwd"
    lines: list[tuple[int, int, bool]] = []
    rendezvous = Rendezvous(tmp_path, lambda *line: lines.append(line))
    rendezvous.open(Path("/opt/hold-x86_64"))
    assert {name for name in os.listdir(tmp_path) if name[0] != "."} == {"shims", "rest", "daemon"}
    assert (tmp_path / "shims").is_fifo()
    assert (tmp_path / "rest").is_fifo()
    daemon = (tmp_path / "daemon").read_text()
    assert re.fullmatch(rf"{os.getpid()} [0-9]+ /opt/hold-x86_64\n", daemon)
    fd = os.open(tmp_path / "shims", os.O_WRONLY | os.O_NONBLOCK)
    os.write(fd, b"7 100\n8 200 stop\n")
    os.close(fd)
    rendezvous._read()
    assert lines == [(7, 100, False), (8, 200, True)]
    assert not rendezvous.close()


def test_signals_and_descriptors() -> None:
    assert (process.TAKEN, process.LET_GO) == (signal.SIGUSR1, signal.SIGUSR2)
    assert (process.STATUS_FD, LISTEN_FD, process.REST_FD) == (3, 4, 5)
