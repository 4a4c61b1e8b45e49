"""Who takes part where, and in which configuration."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench.ground import Loopback
from bench.peers import PEERS
from bench.peers import limit as limits
from bench.peers.base import HEADER_OFF, MANY_AT_ONCE, Peer, Route
from bench.peers.haproxy import HAProxy
from bench.peers.limit import Limit, why_not_built
from bench.peers.nginx import Nginx
from bench.peers.v6fwd_serve import V6fwdServe
from bench.scenarios import SCENARIOS
from v6fwd.config import load

ROUTES = [Route(8080, 9090)]
TWO = ("v6fwd-serve-2", "haproxy-2", "nginx-2")
LIMITS = ("limit-epoll", "limit-ring")


def named(name: str) -> Peer:
    return next(peer for peer in PEERS if peer.name == name)


def scenarios_of(name: str) -> set[str]:
    """Those that it takes part in."""
    peer = named(name)
    return {one.name for one in SCENARIOS if one.is_about(peer) and one.unsuited(peer) is None}


def trial(folder: Path) -> Any:
    """What a peer asks of a trial to write its configuration."""
    return SimpleNamespace(ground=Loopback(), folder=folder)


@pytest.mark.parametrize("name", TWO)
def test_two_workers_have_scenarios_of_many_clients(name: str) -> None:
    assert scenarios_of(name) == set(MANY_AT_ONCE)


@pytest.mark.parametrize("name", LIMITS)
def test_the_limits_relay_tcp_without_a_header(name: str) -> None:
    plain = {"bulk up", "bulk down", "connections", "requests", "idle flows"}
    assert scenarios_of(name) == {one.name for one in SCENARIOS if one.family in plain}


def test_a_peer_is_for_scenarios_that_there_are() -> None:
    known = {one.name for one in SCENARIOS}
    assert {name for peer in PEERS for name in peer.only} <= known


def test_haproxy_with_two_threads(tmp_path: Path) -> None:
    two, plain = HAProxy(threads=2), HAProxy()
    assert "\n    nbthread 2\ndefaults\n" in two.config(trial(tmp_path), ROUTES)
    assert "nbthread" not in plain.config(trial(tmp_path), ROUTES)


def test_nginx_with_two_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.peers.nginx.stream_module", lambda: "")
    assert "worker_processes 2;" in Nginx(workers=2).config(trial(tmp_path), ROUTES)
    assert "worker_processes auto;" in Nginx().config(trial(tmp_path), ROUTES)


def test_v6fwd_with_two_workers(tmp_path: Path) -> None:
    path = tmp_path / "v6fwd.toml"
    path.write_text(V6fwdServe(2).config(trial(tmp_path), ROUTES))
    config = load(path)
    assert config.workers == 2
    assert [str(forward.listen) for forward in config.forwards] == ["[::1]:8080"]


@pytest.mark.parametrize(
    ("errors", "wanted"),
    [
        ("ring.c:12:10: fatal error: liburing.h: No such file or directory\n", "no liburing"),
        ("/usr/bin/ld: cannot find -luring: No such file\n", "no liburing"),
        ("mkdir: cannot create directory\n", "cannot be built: mkdir: cannot create directory"),
        ("In file:\nring.c:3: error: nonsense\n", "cannot be built: ring.c:3: error: nonsense"),
        ("", "cannot be built: no word why"),
    ],
)
def test_what_cannot_be_built_is_left_out_with_a_word(errors: str, wanted: str) -> None:
    assert why_not_built(errors).startswith(wanted)


def test_a_failed_build_is_an_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script(tmp_path / "build", "echo 'liburing.h: No such file or directory' >&2; exit 1")
    monkeypatch.setattr(limits, "BUILD", tmp_path / "build")
    monkeypatch.setattr(limits, "BUILT", tmp_path / "built")
    assert Limit("ring").obstacle() == "no liburing (Debian: liburing-dev)"


def test_without_a_compiler_what_is_built_runs_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "BUILT", tmp_path)
    monkeypatch.setenv("PATH", "/nowhere")
    assert Limit("epoll").obstacle() == "no gcc"
    script(tmp_path / "epoll", "exit 0")
    assert Limit("epoll").obstacle() is None


def test_a_kernel_that_has_no_io_uring_for_us_is_an_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script(tmp_path / "ring", "echo 'io_uring_setup: Operation not permitted' >&2; exit 1")
    monkeypatch.setattr(limits, "BUILT", tmp_path)
    assert Limit("ring").obstacle() == "io_uring_setup: Operation not permitted"


def test_a_program_older_than_its_source_is_built_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources, built = tmp_path / "sources", tmp_path / "built"
    for folder in (sources, built):
        folder.mkdir()
    (sources / "epoll.c").write_text("")
    script(built / "epoll", "exit 0")
    script(tmp_path / "build", f"touch {tmp_path}/called")
    for name, path in {"SOURCES": sources, "BUILT": built, "BUILD": tmp_path / "build"}.items():
        monkeypatch.setattr(limits, name, path)
    assert Limit("epoll").obstacle() is None
    assert not (tmp_path / "called").exists()
    subprocess.run(["touch", "-d", "1 hour ago", built / "epoll"], check=True)
    assert Limit("epoll").obstacle() is None
    assert (tmp_path / "called").exists()


def test_the_rest_takes_part_by_its_header() -> None:
    assert {peer.name for peer in PEERS if peer.only} == {*TWO, *LIMITS}
    assert all(peer.header == HEADER_OFF for peer in PEERS if peer.only)


def script(path: Path, text: str) -> None:
    """A program of one line."""
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
