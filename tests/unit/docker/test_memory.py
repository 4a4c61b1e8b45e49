"""Which container a shim belongs to, over a restart of the daemon."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from tests.support.logged import Logged
from v6fwd.docker import memory as module
from v6fwd.docker.engine.containers import Container, HostPort
from v6fwd.docker.memory import NAME, Memory
from v6fwd.docker.shim.process import start_time
from v6fwd.model import Protocol

ME = os.getpid()
PORTS = frozenset({HostPort("::", 8080, 80, Protocol.TCP), HostPort("", 53, 53, Protocol.UDP)})
WEB = Container("4f", "web", "httpd", {"v6fwd.client-ip": "proxy-v2"}, {"n": ("10.0.0.2",)}, PORTS)


class FakeShim:
    """As much of a shim as is looked at."""

    def __init__(self, pid: int, started: int) -> None:
        self.pid, self.started = pid, started


def shim(pid: int = 7, started: int = 100) -> Any:
    return FakeShim(pid, started)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state"


def remembered(folder: Path, logged: Logged) -> Memory:
    """What the next daemon knows."""
    memory = Memory(folder, logged.log)
    memory.load()
    return memory


def test_the_same_shim_has_the_same_container(folder: Path, logged: Logged) -> None:
    remembered(folder, logged).keep({shim(): WEB})
    again = remembered(folder, logged)
    assert again.container_of(shim()) == WEB
    assert again.container_of(shim(started=101)) is None, "the number was used again"
    assert again.container_of(shim(8)) is None
    again.keep({})
    assert remembered(folder, logged).container_of(shim()) is None
    assert logged.lines() == []


def test_labels_of_other_programs_are_not_kept(folder: Path, logged: Logged) -> None:
    labels = {"secret": "key", "v6fwd.client-ip.80": "none"}
    remembered(folder, logged).keep({shim(): Container("1", "a", labels=labels)})
    assert "secret" not in (folder / NAME).read_text()
    found = remembered(folder, logged).container_of(shim())
    assert found is not None
    assert found.labels == {"v6fwd.client-ip.80": "none"}


@pytest.mark.parametrize(("started", "lives"), [(start_time(ME), True), (1, False)])
def test_a_container_whose_process_is_another(
    folder: Path, logged: Logged, started: int, lives: bool
) -> None:
    """Mode transparent enters the namespace of that process."""
    container = Container("1", "a", pid=ME, started=started)
    remembered(folder, logged).keep({shim(): container})
    assert remembered(folder, logged).container_of(shim()) == (container if lives else None)


def test_a_shim_that_has_ended_is_not_kept(folder: Path, logged: Logged) -> None:
    remembered(folder, logged).keep({shim(started=0): WEB})
    assert remembered(folder, logged).container_of(shim(started=0)) is None


def test_void_after_a_reboot(
    folder: Path, logged: Logged, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remembered(folder, logged).keep({shim(): WEB})
    (tmp_path / "boot_id").write_text("another\n")
    monkeypatch.setattr(module, "BOOT_ID", tmp_path / "boot_id")
    assert remembered(folder, logged).container_of(shim()) is None


def test_written_for_root_alone_and_only_on_changes(folder: Path, logged: Logged) -> None:
    memory = remembered(folder, logged)
    memory.keep({shim(): WEB})
    found = (folder / NAME).stat()
    assert stat.S_IMODE(found.st_mode) == 0o600
    memory.keep({shim(): WEB})
    assert (folder / NAME).stat().st_ino == found.st_ino


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b'{"boot": 1', b"null", b"[" * 99])
def test_nonsense_is_told_and_costs_the_memory_alone(
    folder: Path, logged: Logged, content: bytes
) -> None:
    folder.mkdir(mode=0o700)
    (folder / NAME).write_bytes(content)
    (folder / NAME).chmod(0o600)
    assert remembered(folder, logged).container_of(shim()) is None
    [(event, text)] = logged.lines()
    assert event == "not-remembered"
    assert text.startswith(f"cannot use {folder / NAME}: ")


@pytest.mark.skipif(ME == 1 or os.geteuid() != 0, reason="gives files away")
def test_what_nobody_has_written_is_not_believed(folder: Path, logged: Logged) -> None:
    remembered(folder, logged).keep({shim(): WEB})
    content = json.loads((folder / NAME).read_text())
    os.chown(folder / NAME, 65534, -1)
    assert content["shims"]
    assert remembered(folder, logged).container_of(shim()) is None
    assert [event for event, _ in logged.lines()] == ["not-remembered"]


def test_a_folder_that_cannot_be(tmp_path: Path, logged: Logged) -> None:
    (tmp_path / "file").touch()
    memory = remembered(tmp_path / "file" / "state", logged)
    memory.keep({shim(): WEB})
    assert memory.container_of(shim()) == WEB, "this daemon knows it"
    assert {event for event, _ in logged.lines()} == {"not-remembered"}
