"""What the daemon answers about bans, and when it ends them; workers are played."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.support.logged import Logged
from v6fwd.daemon import bans as module
from v6fwd.daemon.bans import AT_ONCE, PARTS, Banning
from v6fwd.daemon.pool import Done
from v6fwd.daemon.sources import passing
from v6fwd.daemon.supervisor import Supervisor
from v6fwd.relay.limits.bans import MOST, BanTable


class Office:
    """A Banning, its workers and its clock."""

    def __init__(self, path: Path, logged: Logged) -> None:
        self.now = 1000.0
        self.demands: list[tuple[Any, ...]] = []
        self.told = 0
        self.passing = 3
        self.done = Done()
        self.table = BanTable(lambda: self.now)
        pool = SimpleNamespace(demand=self._demand, tell_bans=self._tell)
        parts = SimpleNamespace(pool=pool, bans=self.table, forwards={})
        supervisor = cast("Supervisor", parts)
        clock = lambda: self.now  # noqa: E731
        self.banning = Banning(supervisor, path, logged.log, lambda: self.passing, clock)

    async def _demand(self, *what: Any) -> Done:
        self.demands.append(what)
        return self.done

    def _tell(self) -> None:
        self.told += 1

    async def ask(self, do: str, *networks: str, **more: Any) -> Any:
        """The answer to a request."""
        return await self.banning.change({"do": do, "networks": [*networks], **more})


@pytest.fixture
async def office(tmp_path: Path, logged: Logged) -> AsyncIterator[Office]:
    office = Office(tmp_path / "state" / "daemon" / "bans", logged)
    yield office
    office.banning.close()
    office.table.close()


async def test_who_is_banned_is_named(office: Office) -> None:
    answer = await office.ask("ban", "2001:db8::5/64", "2001:db8::7/64", seconds=60)
    ban = {"network": "2001:db8::/64", "pseudo": "", "until": 1060, "change": "new"}
    rest = {"ended": 0, "missing": [], "unkept": "", "passing": 0, "done": True}
    assert answer == {"bans": [ban]} | rest
    assert office.demands == [("bans",)]


async def test_ipv4_clients_may_pass_by(office: Office) -> None:
    assert (await office.ask("ban", "203.0.113.7"))["passing"] == 3
    assert (await office.ask("ban", "2001:db8::7"))["passing"] == 0


def test_ports_that_ipv4_clients_pass_by() -> None:
    ports = [{"ipv4": each} for each in ("docker", "v6fwd", "", "docker")]
    docker = SimpleNamespace(report=lambda: {"published": ports})
    other = SimpleNamespace(report=dict)
    assert passing(cast("Any", [docker, other])) == 2


async def test_workers_that_do_not_answer_are_named(office: Office) -> None:
    office.done.missing.append(4711)
    office.done.numbers["[::]:80"] += 5
    answer = await office.ask("ban", "2001:db8::7")
    assert (answer["missing"], answer["ended"]) == ([4711], 5)


async def test_a_full_table_is_told_and_the_others_are_banned(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("v6fwd.relay.limits.bans.MOST", 2)
    answer = await office.ask("ban", "2001:db8::1", "2001:db8::2", "2001:db8::3")
    assert answer["error"] == (f"no room for more than {MOST} bans; 2 of these are banned",)
    assert len(office.table) == 2
    assert office.demands == [("bans",)]


@pytest.mark.parametrize(
    "request_",
    [
        {"networks": []},
        {"networks": "::1"},
        {"networks": [7]},
        {"networks": ["2001:db8::1"], "seconds": 0},
        {"networks": ["2001:db8::1"], "seconds": True},
        {"networks": ["2001:db8::1"], "seconds": "60"},
        {"networks": ["2001:db8::1"], "seconds": float("nan")},
        {"networks": ["2001:db8::1"], "seconds": 1e9},
        {"networks": ["2001:db8::1", "::/0"]},
        {"networks": ["2001:db8::1", "127.0.0.1"]},
        {"networks": ["2001:db8::1"] * (AT_ONCE + 1)},
    ],
)
async def test_a_request_that_cannot_be_met_changes_nothing(
    office: Office, request_: dict[str, Any]
) -> None:
    answer = await office.banning.change({"do": "ban"} | request_)
    assert len(answer["error"]) == 1
    assert (len(office.table), office.demands) == (0, [])


async def test_a_request_to_end_flows_says_which(office: Office) -> None:
    assert "error" in await office.ask("kill")
    assert "error" in await office.ask("kill", all=False)
    assert office.demands == []
    await office.ask("kill", "2001:db8::5", listens=["[::]:80"])
    ((what, networks, listens),) = office.demands
    assert (what, [*map(str, networks)], listens) == ("end", ["2001:db8::5/128"], ("[::]:80",))


async def test_workers_look_no_more_once_the_last_ban_is_over(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SWEEP_EVERY", 0.0)
    await office.ask("ban", "2001:db8::7", seconds=60)
    office.banning.load(beside=False)
    for _ in range(2 * PARTS):
        await asyncio.sleep(0)
    assert (len(office.table), office.told) == (1, 0)
    office.now += 61
    while len(office.table):  # noqa: ASYNC110 - the sweeps' own pace
        await asyncio.sleep(0)
    assert office.told == 1


async def test_all_bans_end(office: Office) -> None:
    await office.ask("ban", "2001:db8::7", "192.0.2.0/24")
    answer = await office.ask("unban", all=True)
    assert {each["network"] for each in answer["bans"]} == {"2001:db8::7", "192.0.2.0/24"}
    assert [*office.banning.listed()] == []
