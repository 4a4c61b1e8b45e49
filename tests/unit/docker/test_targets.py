"""Targets by container, with an Engine of the test's own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.support.fake_engine import HEAD, FakeEngine, hangs, says
from tests.support.relaying import until
from v6fwd.docker import targets
from v6fwd.docker.engine.containers import UnknownContainerError, find_named, read_containers
from v6fwd.docker.targets import ContainerTargets
from v6fwd.errors import RelayError
from v6fwd.log import Log
from v6fwd.model import NO_NETNS, ClientIP, Endpoint, Forward, Transparent, pair_up

ID = "0123456789abcdef"


def container(
    name: str, number: str = ID, state: str = "running", **networks: str
) -> dict[str, Any]:
    """An item of the Engine's list; `networks` are its addresses."""
    return {
        "Id": number,
        "Names": [f"/{name}"],
        "State": state,
        "NetworkSettings": {"Networks": {n: {"IPAddress": ip} for n, ip in networks.items()}},
    }


def to(target: str, **more: Any) -> Forward:
    ((listen, endpoint),) = pair_up("[::]:8080", target)
    return Forward(listen, endpoint, **more)


WEB = to("docker:web:80")


class Site:
    """An Engine, and forwards that are open."""

    def __init__(self, folder: Path) -> None:
        self.engine = FakeEngine(folder / "engine.sock")
        self.log_file = (folder / "log").open("w+")
        self.targets = ContainerTargets(self.engine.host, Log(fd=self.log_file.fileno()))
        self.forwards = {WEB.listen: WEB}
        self.changes: list[str] = []

    @property
    def log(self) -> str:
        self.log_file.seek(0)  # to a file, lines have time and level in front
        return re.sub(r"(?m)^\S+ \S+ \w+: ", "", self.log_file.read())

    def says(self, *containers: dict[str, Any]) -> None:
        """What the Engine answers from now on."""
        self.engine.containers = says(HEAD + json.dumps(containers).encode())
        self.engine.tell()

    def happens(self, action: str) -> None:
        """Tell of an event of the container."""
        event = {"Type": "container", "Action": action, "Actor": {"ID": ID}}
        self.engine.tell(json.dumps(event).encode() + b"\n")

    def has_asked(self, times: int) -> bool:
        """Whether the Engine was asked for its containers so many times."""
        return self.engine.asked("/containers/json") >= times

    async def begin(self) -> None:
        await self.targets.begin(lambda: self.forwards.values(), self.change)

    def change(self, forward: Forward) -> None:
        self.forwards[forward.listen] = forward
        self.changes.append(forward.target.host)

    async def comes_to(self, *hosts: str) -> None:
        """Wait until the target has had these addresses."""
        await until(lambda: len(self.changes) >= len(hosts))
        assert self.changes == list(hosts)


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    site = Site(tmp_path)
    await site.engine.start()
    yield site
    site.targets.close()
    await site.engine.stop()
    site.log_file.close()


async def test_a_container_is_followed(site: Site) -> None:
    site.says(container("web", bridge="172.17.0.2"))
    await site.begin()
    assert site.changes == ["172.17.0.2"]
    site.says(
        container("web", state="exited", bridge=""), container("db", "9", bridge="172.17.0.2")
    )
    await site.comes_to("172.17.0.2", "")
    site.says(container("web", "77", bridge="172.17.0.3"))
    await site.comes_to("172.17.0.2", "", "172.17.0.3")
    assert site.log.splitlines() == [
        "target docker:web:80 of [::]:8080 is at 172.17.0.2",
        (
            "target docker:web:80 of [::]:8080 is nowhere: container web is not running;"
            " its clients are refused"
        ),
        "target docker:web:80 of [::]:8080 is at 172.17.0.3",
    ]


async def test_nothing_is_said_twice(site: Site) -> None:
    site.says(container("web", bridge="172.17.0.2"))
    await site.begin()
    for _ in range(3):
        asked = site.engine.asked("/containers/json")
        site.engine.tell()
        await until(partial(site.has_asked, asked + 1))
    assert site.changes == ["172.17.0.2"]
    assert len(site.log.splitlines()) == 1


@pytest.mark.parametrize(
    ("target", "host", "why"),
    [
        ("docker:web:80", "10.1.0.2", ""),
        ("docker:web@b:80", "10.2.0.2", ""),
        (f"docker:{ID}:80", "10.1.0.2", ""),
        ("docker:0123456@b:80", "10.2.0.2", ""),
        ("docker:web@c:80", "", "container web is not in network c; its networks: a, b"),
        ("docker:webb:80", "", "there is no container webb"),
        ("docker:0:80", "", "the ids of 2 containers begin with 0"),
        ("docker:0ff:80", "10.1.0.9", ""),
        ("docker:outside:80", "", "container outside has no address of its own"),
        ("docker:old:80", "", "container old is not running"),
    ],
)
async def test_names(site: Site, target: str, host: str, why: str) -> None:
    site.says(
        container("web", a="10.1.0.2", b="10.2.0.2"),
        container("0ff", "fff", a="10.1.0.9"),
        container("twin", "0fff", a="10.1.0.3"),
        container("outside", "e1", host=""),
        container("old", "e2", "exited", a="10.1.0.4"),
    )
    site.forwards = {WEB.listen: to(target)}
    await site.begin()
    assert site.forwards[WEB.listen].target.host == host
    assert why in site.log
    assert str(site.forwards[WEB.listen].target) == target


def test_a_name_goes_before_an_id_that_begins_so() -> None:
    every = read_containers([container("abc", "fff"), container("web", "abc1")])
    assert find_named(every, "abc").name == "abc"
    assert find_named(every, "abc1").name == "web"
    with pytest.raises(UnknownContainerError):
        find_named(every, "")


async def test_transparent_enters_by_the_process(site: Site) -> None:
    site.says(container("web", bridge="172.17.0.2"))
    pid = os.getpid()
    site.engine.inspect = says(HEAD + json.dumps({"State": {"Pid": pid}}).encode())
    plain, routed = (
        to("docker:web:80", client_ip=ClientIP.TRANSPARENT, transparent=Transparent(netns=netns))
        for netns in ("", NO_NETNS)
    )
    routed = replace(routed, listen=Endpoint("::", 8081))
    site.forwards = {each.listen: each for each in (plain, routed)}
    await site.begin()
    now = [forward.transparent.netns for forward in site.forwards.values()]
    assert now == [str(pid), NO_NETNS]
    assert "nowhere" not in site.log
    site.says(container("web", state="exited", bridge=""))
    await until(lambda: site.forwards[plain.listen].target.is_absent)
    assert site.forwards[plain.listen] == plain


async def test_an_engine_that_is_not_there(site: Site) -> None:
    await site.engine.stop()
    with pytest.raises(RelayError, match=r"follow docker:web:80: .*; is Docker running"):
        await site.begin()
    assert site.targets.resolved(WEB).target.is_absent
    site.says(container("web", bridge="172.17.0.2"))
    await site.engine.start()
    await site.comes_to("172.17.0.2")


async def test_an_engine_that_does_not_answer(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "PATIENCE", 0.01)
    site.engine.containers = hangs
    with pytest.raises(RelayError, match="Docker has not answered yet"):
        await site.begin()


async def test_an_engine_that_ends_moves_nothing(site: Site) -> None:
    """Nobody gives addresses away meanwhile; containers may live on (live-restore)."""
    site.says(container("web", bridge="172.17.0.2"))
    await site.begin()
    await site.engine.stop()
    await until(lambda: "until it answers these stay where they were: docker:web:80" in site.log)
    assert site.targets.resolved(WEB).target.host == "172.17.0.2"
    site.says(container("web", bridge="172.17.0.5"))
    await site.engine.start()
    await site.comes_to("172.17.0.2", "172.17.0.5")


async def test_forwards_that_come_later(site: Site) -> None:
    site.says(container("web", bridge="172.17.0.2"))
    site.forwards = {}
    await site.begin()
    assert site.engine.paths == [], "nobody needs the Engine"
    site.forwards = {WEB.listen: WEB}
    site.targets.follow()
    await site.comes_to("172.17.0.2")
    site.forwards = {WEB.listen: to("docker:web:81")}
    site.targets.follow()
    assert site.changes == ["172.17.0.2", "172.17.0.2"], "at once"


async def test_another_engine(site: Site, tmp_path: Path) -> None:
    site.says(container("web", bridge="172.17.0.2"))
    await site.begin()
    other = FakeEngine(tmp_path / "other.sock")
    other.containers = says(HEAD + json.dumps([container("web", bridge="10.9.0.2")]).encode())
    await other.start()
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(other.stop)
        site.targets.use(other.host)
        await until(lambda: site.changes[-1:] == ["10.9.0.2"])
        await asyncio.sleep(0)


async def test_a_container_that_has_ended_is_listed_as_running_for_a_while(site: Site) -> None:
    """As Engine 20.10 does, which tells of its end before it has put it down."""
    site.says(container("web", bridge="172.17.0.2"))
    await site.begin()
    site.happens("die")
    await site.comes_to("172.17.0.2", "")
    assert "container web is not running" in site.log
    site.happens("start")
    await site.comes_to("172.17.0.2", "", "172.17.0.2")


async def test_events_that_were_lost(site: Site) -> None:
    site.says(container("web", bridge="172.17.0.2"))
    await site.begin()
    site.happens("die")
    await site.comes_to("172.17.0.2", "")
    await site.engine.stop()
    await site.engine.start()
    await site.comes_to("172.17.0.2", "", "172.17.0.2")


async def test_an_address_that_two_have(site: Site) -> None:
    """The list is of two moments: one of them has ended."""
    site.says(container("web", back="10.1.0.2"), container("db", "9", other="10.1.0.2"))
    await site.begin()
    assert site.changes == ["10.1.0.2"], "networks may overlap"
    site.says(container("web", back="10.1.0.2"), container("db", "9", back="10.1.0.2"))
    await site.comes_to("10.1.0.2", "")
    assert "container db has its address 10.1.0.2, too" in site.log


@pytest.mark.parametrize("event", [b"{}", b'{"Type":"container","Actor":[]}', b"[]", b"7"])
async def test_odd_events(site: Site, event: bytes) -> None:
    site.says(container("web", bridge="172.17.0.2"))
    await site.begin()
    site.engine.tell(event + b"\n")
    site.says(container("web", bridge="172.17.0.3"))
    await site.comes_to("172.17.0.2", "172.17.0.3")


async def test_the_end_of_a_container_needs_no_answer(site: Site) -> None:
    site.says(container("web", bridge="172.17.0.2"))
    await site.begin()
    site.engine.containers = hangs
    site.happens("die")
    await site.comes_to("172.17.0.2", "")
