"""Which engine there is, and why there is no ring."""

from __future__ import annotations

import errno
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.support.logged import Logged
from v6fwd.log import Log, LogFormat
from v6fwd.model import RelayEngine
from v6fwd.relay import ring
from v6fwd.relay.ring import choose as module
from v6fwd.relay.ring.choose import ENVIRONMENT, choose, probe, tell_engine

NOT_PERMITTED = "io_uring_setup is not permitted: a seccomp policy, of a container say"


class FakeRing:
    closed = False

    def close(self) -> None:
        self.closed = True


@pytest.fixture(autouse=True)
def native(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A module that opens rings, on a kernel that is new enough."""
    one = SimpleNamespace(Ring=FakeRing)
    monkeypatch.setitem(sys.modules, "v6fwd.relay.ring._ring", one)
    monkeypatch.setattr(ring, "_ring", one, raising=False)
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    monkeypatch.setattr(module, "_release", lambda: "6.1.0-18-amd64")
    return one


def test_a_ring_is_used_where_it_is_wanted() -> None:
    assert choose(RelayEngine.RING).name == "ring"
    chosen = choose(RelayEngine.EPOLL)
    assert (chosen.name, chosen.why) == ("epoll", "")


def test_auto_is_the_ring_where_flows_can_begin_on_the_native_epoll(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "is_native", lambda: True)
    assert choose(RelayEngine.AUTO).name == "ring"
    monkeypatch.setattr(module, "is_native", lambda: False)
    chosen = choose(RelayEngine.AUTO)
    assert (chosen.name, chosen.why) == ("epoll", "")
    assert choose(RelayEngine.RING).name == "ring"


def test_the_environment_says_what_auto_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ring", "epoll"):
        monkeypatch.setenv(ENVIRONMENT, name)
        assert choose(RelayEngine.AUTO).name == name


def test_a_probe_closes_what_it_opened() -> None:
    chosen = probe(RelayEngine.RING)
    assert isinstance(chosen.ring, FakeRing)
    assert chosen.ring.closed


def test_a_ring_that_only_the_privileged_may_open_is_none_for_workers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "io_uring_disabled"
    file.write_text("1\n")
    monkeypatch.setattr(module, "_SYSCTL", file)
    assert choose(RelayEngine.RING).name == "ring"
    chosen = probe(RelayEngine.RING)
    assert (chosen.name, chosen.why) == ("epoll", "kernel.io_uring_disabled = 1")


@pytest.mark.parametrize("release", ["5.15.0-91-generic", "6.0.9", "nonsense"])
def test_an_old_kernel(monkeypatch: pytest.MonkeyPatch, release: str) -> None:
    monkeypatch.setattr(module, "_release", lambda: release)
    chosen = choose(RelayEngine.RING)
    assert chosen.ring is None
    assert "older than 6.1" in chosen.why


def test_no_module(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "v6fwd.relay.ring._ring", None)
    monkeypatch.delattr(ring, "_ring")
    assert "not built" in choose(RelayEngine.RING).why


@pytest.mark.parametrize(
    ("number", "sysctl", "why"),
    [
        (errno.EPERM, "2", "kernel.io_uring_disabled = 2"),
        (errno.EPERM, "0", "io_uring_setup is not permitted: a seccomp policy, of a container say"),
        (
            errno.EPERM,
            None,
            "io_uring_setup is not permitted: a seccomp policy, of a container say",
        ),
        (errno.ENOSYS, "0", "io_uring_setup: function not implemented"),
        (
            errno.ENOMEM,
            "0",
            "io_uring_setup: cannot allocate memory: RLIMIT_MEMLOCK may be too low",
        ),
    ],
)
def test_a_kernel_that_refuses(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    native: SimpleNamespace,
    number: int,
    sysctl: str | None,
    why: str,
) -> None:
    def refuse() -> FakeRing:
        raise OSError(number, "")

    native.Ring = refuse
    file = tmp_path / "io_uring_disabled"
    if sysctl is not None:
        file.write_text(f"{sysctl}\n")
    monkeypatch.setattr(module, "_SYSCTL", file)
    chosen = choose(RelayEngine.RING)
    assert (chosen.name, chosen.why) == ("epoll", why)


def test_one_line_names_the_engine(monkeypatch: pytest.MonkeyPatch, logged: Logged) -> None:
    monkeypatch.setattr(module, "is_native", lambda: True)
    tell_engine(logged.log, choose(RelayEngine.EPOLL))
    tell_engine(logged.log, choose(RelayEngine.AUTO))
    assert logged.lines() == [], "what is usual, and what was asked for"
    tell_engine(logged.log, choose(RelayEngine.RING))
    assert logged.lines() == [("engine", "engine: ring")]


@pytest.mark.parametrize(
    ("wanted", "level"), [(RelayEngine.RING, "warning"), (RelayEngine.AUTO, "info")]
)
def test_one_line_says_why_there_is_no_ring(
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    wanted: RelayEngine,
    level: str,
) -> None:
    """A machine without io_uring is an ordinary one, unless the ring was asked for."""
    monkeypatch.setattr(module, "is_native", lambda: True)
    monkeypatch.setattr(module, "_release", lambda: "5.10.0")
    tell_engine(Log(LogFormat.TEXT, fd=2), choose(wanted))
    said = capfd.readouterr().err
    assert said.endswith(f"{level}: engine: epoll, no ring: Linux 5.10 is older than 6.1\n")
