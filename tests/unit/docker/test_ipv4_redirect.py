"""Diverting IPv4 clients while nft fails, comes back, and other changes come in between."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.support.logged import Logged
from v6fwd.docker import ipv4_redirect as diversion
from v6fwd.docker.ipv4_redirect import Ipv4Redirect
from v6fwd.docker.nft import Nat
from v6fwd.errors import RelayError
from v6fwd.model import Endpoint

A, B, C = (Endpoint("0.0.0.0", port) for port in (80, 81, 82))


class FakeNat(Nat):
    """`there` is what the table has, None without one; `fails` says why nothing can be done."""

    def __init__(self) -> None:
        self.there: set[Endpoint] | None = {C}  # a crash has left it
        self.fails = ""
        self.calls: list[str] = []

    def _begin(self, call: str) -> None:
        self.calls.append(call)
        if self.fails:
            raise RelayError(self.fails)

    def reset(self, endpoints: Iterable[Endpoint] = ()) -> None:
        self._begin("reset")
        self.there = set(endpoints)

    def add(self, *endpoints: Endpoint) -> None:
        if endpoints:
            self._begin("add")
            assert self.there is not None
            self.there |= set(endpoints)

    def remove(self, *endpoints: Endpoint) -> None:
        if endpoints:
            self._begin("remove")
            assert self.there is not None
            self.there -= set(endpoints)

    def close(self) -> None:
        self._begin("close")
        self.there = None


@pytest.fixture
def nat() -> FakeNat:
    return FakeNat()


@pytest.fixture
def diverted(logged: Logged, nat: FakeNat, monkeypatch: pytest.MonkeyPatch) -> Ipv4Redirect:
    monkeypatch.setattr(diversion, "AGAIN", 0.0)
    return Ipv4Redirect(logged.log, nat)


async def turns() -> None:
    """Let every timer that is due go off, and those that it sets."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_what_a_crash_has_left_goes(diverted: Ipv4Redirect, nat: FakeNat) -> None:
    diverted.want([])
    assert nat.there is None
    diverted.want([])
    assert nat.calls == ["close"], "known by now"


async def test_changes(diverted: Ipv4Redirect, nat: FakeNat) -> None:
    diverted.want([A, B])
    assert nat.there == {A, B}
    diverted.want([B, A])
    assert nat.calls == ["reset"]
    diverted.want([B, C])
    assert nat.there == {B, C}
    diverted.want([])
    assert nat.there is None
    diverted.want([A])
    assert nat.there == {A}
    assert nat.calls == ["reset", "add", "remove", "close", "reset"]


async def test_changes_that_may_wait_go_together(diverted: Ipv4Redirect, nat: FakeNat) -> None:
    diverted.want([A, B, C])
    for wanted in ([A, B], [A], []):
        diverted.want(wanted, at_once=False)
    assert nat.calls == ["reset"]
    await asyncio.sleep(2 * diversion.TOGETHER)
    assert nat.there is None
    assert nat.calls == ["reset", "close"]


async def test_a_change_that_is_taken_back(diverted: Ipv4Redirect, nat: FakeNat) -> None:
    diverted.want([A])
    diverted.want([], at_once=False)
    diverted.want([A], at_once=False)
    await asyncio.sleep(2 * diversion.TOGETHER)
    assert nat.calls == ["reset"]


async def test_one_that_cannot_wait_takes_the_others_along(
    diverted: Ipv4Redirect, nat: FakeNat
) -> None:
    diverted.want([A])
    diverted.want([], at_once=False)
    diverted.want([B])
    assert nat.there == {B}
    await asyncio.sleep(2 * diversion.TOGETHER)
    assert nat.calls == ["reset", "add", "remove"]


async def test_tried_again_until_it_works(
    diverted: Ipv4Redirect, nat: FakeNat, logged: Logged
) -> None:
    nat.fails = "nft is busy"
    diverted.want([A])
    await turns()
    diverted.want([A, B])
    await turns()
    assert logged.lines() == [
        ("not-diverted", "IPv4 clients go to the containers without a header: nft is busy")
    ]
    assert len(nat.calls) > 3
    nat.fails = ""
    await turns()
    assert nat.there == {A, B}
    count = len(nat.calls)
    await turns()
    assert len(nat.calls) == count


async def test_a_change_that_fails_is_made_good(diverted: Ipv4Redirect, nat: FakeNat) -> None:
    """Whatever nft did before it failed: all is written anew."""
    diverted.want([A])
    nat.fails = "no"
    diverted.want([B])
    nat.there, nat.fails = {A, B, C}, ""
    await turns()
    assert nat.there == {B}


async def test_without_nft_nothing_wanted_is_nothing_said(
    diverted: Ipv4Redirect, nat: FakeNat, logged: Logged
) -> None:
    nat.fails = "there is no nft"
    diverted.want([])
    await turns()
    assert (logged.lines(), nat.calls) == ([], ["close"])
    diverted.want([A])
    diverted.want([])
    await turns()
    assert nat.calls[-1] == "close", "not tried again: nothing was ever there"
    assert len(nat.calls) == 3


async def test_what_is_there_is_removed_in_the_end(
    diverted: Ipv4Redirect, nat: FakeNat, logged: Logged
) -> None:
    diverted.want([A])
    nat.fails = "nft is busy"
    diverted.want([])
    await turns()
    assert logged.lines() == [
        ("not-diverted", "IPv4 clients of ports that are closed still come to us: nft is busy")
    ]
    nat.fails = ""
    await turns()
    assert nat.there is None


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("fails", ["", "no"])
async def test_the_end(diverted: Ipv4Redirect, nat: FakeNat, keep: bool, fails: str) -> None:
    diverted.want([A, B])
    nat.fails = fails
    diverted.want([A], at_once=False)
    diverted.close(keep=keep)
    diverted.close(keep=keep)
    count = len(nat.calls)
    assert nat.there == ({A, B} if keep or fails else None)
    await asyncio.sleep(2 * diversion.TOGETHER)
    assert len(nat.calls) == count, "nothing goes on"


async def test_a_host_without_nft(
    logged: Logged, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    diverted = Ipv4Redirect(logged.log)
    diverted.want([])
    assert logged.lines() == []
    diverted.want([A])
    [(event, text)] = logged.lines()
    assert event == "not-diverted"
    assert text.endswith("proxy-* needs the command nft (package nftables) for IPv4")
    diverted.close(keep=False)
