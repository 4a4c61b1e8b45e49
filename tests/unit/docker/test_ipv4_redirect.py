"""Redirecting IPv4 clients while nft fails, comes back, and other changes come in between."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator, Callable, Iterable
from ipaddress import ip_network
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from tests.support.logged import Logged
from v6fwd.docker import iptables_chain, ipv4_clients, ipv4_redirect
from v6fwd.docker.adopted_ports import AdoptedPort
from v6fwd.docker.ipv4_clients import Ipv4Clients, Lingering
from v6fwd.docker.ipv4_redirect import Ipv4Redirect
from v6fwd.docker.nft import Element, Guarded, RedirectTable
from v6fwd.docker.policy.modes import needs_all
from v6fwd.errors import RelayError
from v6fwd.model import ClientIP, Endpoint, Forward, Guard

A, B, C = (Endpoint("0.0.0.0", port) for port in (80, 81, 82))


class FakeTable(RedirectTable):
    """`elements` are what the table has, None without one; `fails` says why nothing can be done."""

    def __init__(self) -> None:
        self.elements: set[Element] | None = {C}  # a crash has left it
        self.skeleton = ["a chain"]
        self.fails = ""
        self.calls: list[str] = []

    def _begin(self, call: str) -> None:
        self.calls.append(call)
        if self.fails:
            raise RelayError(self.fails)

    def reset(self, endpoints: Iterable[Element] = ()) -> None:
        self._begin("reset")
        self.skeleton = ["a chain"]
        self.elements = set(endpoints)

    def add(self, *endpoints: Element) -> None:
        if endpoints:
            self._begin("add")
            assert self.elements is not None
            self.elements |= set(endpoints)

    def remove(self, *endpoints: Element) -> None:
        if endpoints:
            self._begin("remove")
            assert self.elements is not None
            self.elements -= set(endpoints)

    def content(self) -> tuple[object, frozenset[Element]]:
        if self.elements is None:
            raise RelayError("no such table")
        return self.skeleton, frozenset(self.elements)

    def left_behind(self) -> set[Element]:
        return set(self.elements or ())

    def close(self) -> None:
        self._begin("close")
        self.elements = None


@pytest.fixture
def table() -> FakeTable:
    return FakeTable()


@pytest.fixture
async def redirect(
    logged: Logged, table: FakeTable, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Ipv4Redirect]:
    monkeypatch.setattr(ipv4_redirect, "RETRY", 0.0)
    redirect = Ipv4Redirect(logged.log, table)
    yield redirect
    redirect.close(keep=True)


async def turns() -> None:
    """Let every timer that is due go off, and those that it sets."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_what_a_crash_has_left_goes(redirect: Ipv4Redirect, table: FakeTable) -> None:
    redirect.set([])
    assert table.elements is None
    redirect.set([])
    assert table.calls == ["close"], "known by now"


async def test_changes(redirect: Ipv4Redirect, table: FakeTable) -> None:
    redirect.set([A, B])
    assert table.elements == {A, B}
    redirect.set([B, A])
    assert table.calls == ["reset"]
    redirect.set([B, C])
    assert table.elements == {B, C}
    redirect.set([])
    assert table.elements is None
    redirect.set([A])
    assert table.elements == {A}
    assert table.calls == ["reset", "add", "remove", "close", "reset"]


async def test_changes_that_may_wait_go_together(redirect: Ipv4Redirect, table: FakeTable) -> None:
    redirect.set([A, B, C])
    for desired in ([A, B], [A], []):
        redirect.set(desired, at_once=False)
    assert table.calls == ["reset"]
    await asyncio.sleep(2 * ipv4_redirect.GATHER)
    assert table.elements is None
    assert table.calls == ["reset", "close"]


async def test_a_change_that_is_taken_back(redirect: Ipv4Redirect, table: FakeTable) -> None:
    redirect.set([A])
    redirect.set([], at_once=False)
    redirect.set([A], at_once=False)
    await asyncio.sleep(2 * ipv4_redirect.GATHER)
    assert table.calls == ["reset"]


async def test_one_that_cannot_wait_takes_the_others_along(
    redirect: Ipv4Redirect, table: FakeTable
) -> None:
    redirect.set([A])
    redirect.set([], at_once=False)
    redirect.set([B])
    assert table.elements == {B}
    await asyncio.sleep(2 * ipv4_redirect.GATHER)
    assert table.calls == ["reset", "add", "remove"]


async def test_tried_again_until_it_works(
    redirect: Ipv4Redirect, table: FakeTable, logged: Logged
) -> None:
    table.fails = "nft is busy"
    redirect.set([A])
    await turns()
    redirect.set([A, B])
    await turns()
    assert logged.lines() == [
        ("not-diverted", "IPv4 clients reach the containers without a header: nft is busy")
    ]
    assert len(table.calls) > 3
    table.fails = ""
    await turns()
    assert table.elements == {A, B}
    count = len(table.calls)
    await turns()
    assert len(table.calls) == count


async def test_a_change_that_fails_is_made_good(redirect: Ipv4Redirect, table: FakeTable) -> None:
    """Whatever nft did before it failed: all is written anew."""
    redirect.set([A])
    table.fails = "no"
    redirect.set([B])
    table.elements, table.fails = {A, B, C}, ""
    await turns()
    assert table.elements == {B}


async def test_without_nft_nothing_desired_is_nothing_said(
    redirect: Ipv4Redirect, table: FakeTable, logged: Logged
) -> None:
    table.fails = "there is no nft"
    redirect.set([])
    await turns()
    assert (logged.lines(), table.calls) == ([], ["close"])
    redirect.set([A])
    redirect.set([])
    await turns()
    assert table.calls[-1] == "close", "not tried again: nothing was ever there"
    assert len(table.calls) == 3


async def test_what_is_there_is_removed_in_the_end(
    redirect: Ipv4Redirect, table: FakeTable, logged: Logged
) -> None:
    redirect.set([A])
    table.fails = "nft is busy"
    redirect.set([])
    await turns()
    assert logged.lines() == [
        ("not-diverted", "IPv4 clients of closed ports are still redirected: nft is busy")
    ]
    table.fails = ""
    await turns()
    assert table.elements is None


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("fails", ["", "no"])
async def test_the_end(redirect: Ipv4Redirect, table: FakeTable, keep: bool, fails: str) -> None:
    redirect.set([A, B])
    table.fails = fails
    redirect.set([A], at_once=False)
    redirect.close(keep=keep)
    redirect.close(keep=keep)
    count = len(table.calls)
    assert table.elements == ({A, B} if keep or fails else None)
    await asyncio.sleep(2 * ipv4_redirect.GATHER)
    assert len(table.calls) == count, "nothing goes on"


async def test_a_host_without_nft(
    logged: Logged, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    redirect = Ipv4Redirect(logged.log)
    redirect.set([])
    assert logged.lines() == []
    redirect.set([], [A])
    assert logged.lines() == [], "perhaps nobody needs it"
    redirect.set([A])
    [(event, text)] = logged.lines()
    assert event == "not-diverted"
    assert text.endswith("proxy-* needs the command nft (package nftables) for IPv4")
    redirect.close(keep=False)


def nothing(_: FakeTable) -> None:
    """Nobody has changed anything."""


def the_table(table: FakeTable) -> None:
    table.elements = None


def an_element(table: FakeTable) -> None:
    table.elements = {B}


def a_chain(table: FakeTable) -> None:
    table.skeleton = []


@pytest.mark.parametrize("lost", [nothing, the_table, an_element, a_chain])
async def test_what_others_delete_is_restored(
    redirect: Ipv4Redirect, table: FakeTable, logged: Logged, lost: Callable[[FakeTable], None]
) -> None:
    redirect.set([A], [B])
    lost(table)
    table.calls.clear()
    redirect.check()
    assert table.elements == {A, B}
    assert table.calls == ["reset"] * (lost is not nothing)
    assert [event for event, _ in logged.lines()] == ["redirect-restored"] * (lost is not nothing)
    redirect.check()
    assert len(table.calls) == (lost is not nothing)


async def test_nothing_is_restored_where_nothing_was(
    redirect: Ipv4Redirect, table: FakeTable
) -> None:
    redirect.check()
    redirect.set([])
    redirect.check()
    assert table.calls == ["close"]


def test_lingering_ends_with_an_answer_to_a_later_question() -> None:
    lingering = Lingering([A])
    lingering.add([B], 3)
    assert {*lingering} == {A, B}
    lingering.answered(0)
    assert {*lingering} == {A, B}, "nothing has been answered"
    lingering.answered(3)
    assert {*lingering} == {B}
    lingering.answered(4)
    assert not any(lingering)


NO_SHIM: Any = None


def port(listen: Endpoint, mode: ClientIP, *, is_open: bool = True) -> AdoptedPort:
    return AdoptedPort(NO_SHIM, Forward(listen, A, mode), None, is_open)


def both(*listens: Endpoint) -> set[Element]:
    """What the two tables have for published ports of the container A."""
    return {element for listen in listens for element in (listen, Guarded(listen.port, A))}


def program(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


NO_CHAINS = """echo '{"nftables": [{"metainfo": {"json_schema_version": 1}}]}'"""
USER_CHAIN = NO_CHAINS.replace(
    "]}'", """, {"chain": {"table": "filter", "name": "DOCKER-USER"}}]}'"""
)
NO_NFT = "echo no >&2; exit 1"
DENIED = "echo 'Permission denied (you must be root)' >&2; exit 4"
LIST = "echo '-N DOCKER-USER'; echo '-A DOCKER-USER -s 192.0.2.7/32 -j DROP'"


@pytest.fixture
async def tables(
    table: FakeTable, logged: Logged, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> AsyncIterator[Ipv4Clients]:
    """A host without iptables, whose IPv4 clients are redirected by `table`."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(iptables_chain, "_LEGACY_TABLES", tmp_path / "legacy")
    monkeypatch.setattr(ipv4_clients, "Ipv4Redirect", lambda log: Ipv4Redirect(log, table))
    monkeypatch.setattr(ipv4_clients, "drop_waiting", lambda hosts: None)  # noqa: ARG005
    table.elements = None
    clients = Ipv4Clients(logged.log)
    clients.scanned([])
    yield clients
    program(tmp_path / "nft", NO_CHAINS)
    clients.close(keep=False)


@pytest.mark.parametrize("nft", [USER_CHAIN, NO_NFT, "echo []", ""])
@pytest.mark.parametrize("iptables", ["", DENIED])
async def test_clients_whom_docker_user_cannot_judge_are_dropped(
    tables: Ipv4Clients, table: FakeTable, logged: Logged, tmp_path: Path, nft: str, iptables: str
) -> None:
    """They have a guard and no redirect, until iptables can be run."""
    if nft:
        program(tmp_path / "nft", nft)
    if iptables:
        program(tmp_path / "iptables", iptables)
    tables.apply([port(A, ClientIP.PROXY_V2), port(B, ClientIP.NONE, is_open=False)])
    assert table.elements == {Guarded(A.port, A), Guarded(B.port, A)}
    [text] = [text for event, text in logged.lines() if event == "docker-user"]
    assert text.startswith(f"{A}, {B}: IPv4 clients are dropped, as the rules of DOCKER-USER ")
    assert text.endswith("v6fwd needs the command iptables and CAP_NET_ADMIN")
    program(tmp_path / "iptables", LIST)
    program(tmp_path / "iptables-restore", "")
    tables.check()
    assert table.elements == both(A, B)


async def test_no_rules_of_docker_for_iptables_need_no_iptables(
    tables: Ipv4Clients, table: FakeTable, logged: Logged, tmp_path: Path
) -> None:
    """`"iptables": false` of dockerd; DOCKER-USER may come later, or be in the older tables."""
    program(tmp_path / "nft", NO_CHAINS)
    tables.apply([port(A, ClientIP.PROXY_V2)])
    assert table.elements == both(A)
    assert logged.lines() == []
    (tmp_path / "legacy").write_text("nat\nfilter\n")
    tables.check()
    assert table.elements == {Guarded(A.port, A)}
    (tmp_path / "legacy").write_text("nat\n")
    tables.check()
    assert table.elements == both(A)
    program(tmp_path / "nft", USER_CHAIN)
    tables.check()
    assert table.elements == {Guarded(A.port, A)}
    tables.apply([])
    assert table.elements is None


async def test_a_chain_that_is_there_stays_while_iptables_waits_for_others(
    tables: Ipv4Clients, table: FakeTable, logged: Logged, tmp_path: Path, monkeypatch: Any
) -> None:
    program(tmp_path / "nft", USER_CHAIN)
    program(tmp_path / "iptables", LIST)
    program(tmp_path / "iptables-restore", "")
    tables.apply([port(A, ClientIP.PROXY_V2)])
    late = Mock(side_effect=subprocess.TimeoutExpired("iptables", 10))
    monkeypatch.setattr("subprocess.run", late)
    tables.apply([port(A, ClientIP.PROXY_V2), port(B, ClientIP.PROXY_V2)])
    assert table.elements == {A, Guarded(A.port, A), Guarded(B.port, A)}
    tables.apply([port(A, ClientIP.PROXY_V2)])
    assert table.elements == both(A)
    assert {event for event, _ in logged.lines()} >= {"docker-user"}


async def test_whose_clients_are_redirected(
    table: FakeTable, logged: Logged, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # this host's iptables is none of our business
    program(tmp_path / "nft", NO_CHAINS)
    monkeypatch.setattr(iptables_chain, "_LEGACY_TABLES", tmp_path / "legacy")
    monkeypatch.setattr(ipv4_clients, "Ipv4Redirect", lambda log: Ipv4Redirect(log, table))
    dropped: list[str] = []
    monkeypatch.setattr(ipv4_clients, "drop_waiting", dropped.extend)
    clients = Ipv4Clients(logged.log)
    clients.begin()
    d, six = Endpoint("0.0.0.0", 83), Endpoint("::", 80)
    ports = [
        port(A, ClientIP.PROXY_V2),
        port(B, ClientIP.NONE),
        port(six, ClientIP.PROXY_V2),
        port(d, ClientIP.NONE, is_open=False),
    ]
    clients.apply(ports)
    assert table.elements == {C}, "what a former daemon left stays until all shims are known"
    clients.scanned(ports)
    assert table.elements == both(A, d) | {C}, "and until the Engine has answered"
    clients.answered(1)
    coming = Endpoint("0.0.0.0", 84)
    assert dropped == [], "their containers run"
    clients.apply(ports, [Forward(coming, A), Forward(six, Endpoint("192.0.2.9", 80))])
    assert dropped == [A.host]
    assert table.elements == both(A, d, coming)
    assert [clients.ended(each, 1) for each in ports] == [True, False, False, True]
    clients.apply([])
    assert table.elements == both(A, d)
    clients.close(keep=False)  # and watch no more
    assert table.elements == both(A, d), "the next daemon asks the Engine"


@pytest.mark.parametrize(
    ("mode", "guard", "needs"),
    [
        (ClientIP.NONE, Guard(), False),
        (ClientIP.NONE, Guard(client_prefix=128), False),
        (ClientIP.NONE, Guard(allow=(ip_network("::/0"),)), True),
        (ClientIP.NONE, Guard(deny=(ip_network("::/0"),)), True),
        (ClientIP.FORWARDED, Guard(client_flows=1), True),
        (ClientIP.TRANSPARENT, Guard(client_rate=1), True),
        (ClientIP.X_FORWARDED_FOR, Guard(), False),
        (ClientIP.PROXY_V1, Guard(), True),
    ],
)
def test_who_needs_ipv4_clients_too(mode: ClientIP, guard: Guard, needs: bool) -> None:
    """They would walk round an allow list."""
    assert needs_all(Forward(A, A, mode, guard=guard)) is needs
