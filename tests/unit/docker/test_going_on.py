"""What goes on beside each other for Docker: one that fails does not end or hold up the rest."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.support.fake_engine import HEAD, FakeEngine, says
from tests.support.logged import Logged
from tests.support.relaying import until
from tests.unit.relay.test_deadlines import FakeReactor as TurnedByHand
from v6fwd.docker import adopted_ports, controller, nft, prestart
from v6fwd.docker.adopted_ports import AdoptedPorts
from v6fwd.docker.controller import Controller
from v6fwd.docker.decisions import Decisions
from v6fwd.docker.engine.client import EngineApi
from v6fwd.docker.engine.containers import Container, HostPort
from v6fwd.docker.ipv4_redirect import Ipv4Redirect
from v6fwd.docker.nft import RedirectTable
from v6fwd.docker.prestart import Prestart
from v6fwd.docker.shim.rendezvous import Rendezvous
from v6fwd.errors import RelayError
from v6fwd.model import Endpoint, Forward, Limits, Protocol


def no_memory(*_: object, **__: object) -> None:
    raise MemoryError


def later(call_later: Any, delay: float, call: Any, *words: object) -> Any:
    """As a loop does it, with words for the call."""
    return call_later(delay, functools.partial(call, *words))


# ---- shims ----------------------------------------------------------------------------------


async def test_a_shim_behind_one_that_fails(tmp_path: Path, reported: list[str]) -> None:
    """dockerd starts many at once, and several lines are read together."""
    heard: list[int] = []

    def on_line(pid: int, _started: int, _stops: bool) -> None:
        heard.append(pid)
        if pid == 7:
            raise MemoryError

    rendezvous = Rendezvous(tmp_path / "run", on_line)
    rendezvous.open(None)
    fd = os.open(tmp_path / "run" / "shims", os.O_WRONLY | os.O_NONBLOCK)
    os.write(fd, b"7 100\n8 200\n9 300 stop\n")
    os.close(fd)
    await until(lambda: 9 in heard)
    assert heard == [7, 8, 9]
    assert reported == ["MemoryError()"]
    rendezvous.close()


class Ports:
    """Adopted ports, as far as decisions need them."""

    def __init__(self, *ports: Any) -> None:
        self._ports = ports
        self.waiting: list[Any] = []
        self.served: list[Any] = []

    def __iter__(self) -> Any:
        return iter(self._ports)

    def await_mode(self, port: Any, decide: Callable[[Any], None]) -> None:  # noqa: ARG002
        self.waiting.append(port)

    def hold(self, port: Any, why: str, *, is_usual: bool = False) -> None:
        pass

    def serve(self, port: Any, forward: Forward) -> None:  # noqa: ARG002
        self.served.append(port)


def port(number: int) -> Any:
    """An adopted port that is not open."""
    forward = Forward(Endpoint("::", number), Endpoint("172.17.0.2", 80))
    return SimpleNamespace(forward=forward, is_open=False, shim=SimpleNamespace())


def container(*numbers: int) -> Container:
    """One that publishes these."""
    published = [HostPort("::", number, 80, Protocol.TCP) for number in numbers]
    addresses = {"bridge": ("172.17.0.2",)}
    return Container("a" * 64, "one", addresses=addresses, ports=frozenset(published))


class Modes:
    """Fails for one port."""

    def keep(self, containers: object) -> None:
        pass

    def of(self, forward: Forward, container: object) -> Forward | None:  # noqa: ARG002
        if forward.listen.port == 80:
            raise MemoryError
        return forward


def decisions(ports: Ports) -> Decisions:
    """They remember nothing."""
    one: Any = Decisions(cast("Any", ports), cast("Any", Modes()), cast("Any", None), lambda: False)
    one._remember = lambda: None
    return cast("Decisions", one)


async def test_a_port_behind_one_that_fails(reported: list[str]) -> None:
    unlucky, lucky = port(80), port(81)
    ports = Ports(unlucky, lucky)
    decisions(ports).changed([container(80, 81)])
    assert ports.served == [lucky]
    assert reported == ["MemoryError()"]


def test_a_port_whose_time_is_over_is_not_forgotten() -> None:
    """The look after HOLD seconds fails: there is another one."""
    one = port(80)
    ports = Ports(one)
    with pytest.raises(MemoryError):
        decisions(ports)._hold_ended(one)
    assert ports.waiting == [one]


async def test_how_long_clients_wait_for_the_mode(
    logged: Logged, monkeypatch: pytest.MonkeyPatch
) -> None:
    """5 s: an Engine that starts is asked in vain meanwhile. dockerd waits no longer than 16."""
    loop: Any = TurnedByHand()
    monkeypatch.setattr("asyncio.get_running_loop", lambda: loop)
    monkeypatch.setattr(loop, "call_later", functools.partial(later, loop.call_later))
    ports = AdoptedPorts(cast("Any", SimpleNamespace(forwards={})), Limits(), logged.log)
    one, decided = port(80), list[Any]()
    ports.await_mode(one, decided.append)
    loop.advance(loop.now + 4.9)
    assert decided == []
    loop.advance(loop.now + 0.1)
    assert decided == [one]
    assert vars(controller)["HOLD"] == adopted_ports.HOLD, "a start waits as long for its ports"


# ---- containers that start ------------------------------------------------------------------


class Starting:
    """A container that has the placeholder address."""

    def __init__(self, *, fails: bool) -> None:
        self.fails = fails
        self.looks = self.closed = 0
        self.container: Any = object()
        self.fd, self._other = os.pipe()
        self.policy = SimpleNamespace(namespace=SimpleNamespace(process=self.fd))

    def listens(self) -> bool:
        self.looks += 1
        if self.fails:
            raise RelayError("no such namespace")
        return True

    def close(self) -> None:
        self.closed += 1
        if self.fails:
            raise MemoryError

    def end(self) -> None:
        """Close the descriptors."""
        for fd in (self.fd, self._other):
            os.close(fd)


async def test_containers_that_start_beside_one_that_fails(
    logged: Logged, monkeypatch: pytest.MonkeyPatch, reported: list[str]
) -> None:
    monkeypatch.setattr(prestart, "LOOK_INTERVAL", 0.001)
    one: Any = Prestart(logged.log)
    bad, good = Starting(fails=True), Starting(fails=False)
    one._starting = {"bad": bad, "good": good}
    one._look_soon()
    await until(lambda: bad.looks > 2)
    assert (good.looks, good.closed) == (1, 1)
    assert set(reported) == {"RelayError('no such namespace')"}
    late = Starting(fails=False)
    one._starting["late"] = late
    one.close()
    assert (bad.closed, late.closed) == (1, 1)
    for each in (bad, good, late):
        each.end()


async def test_the_redirect_goes_though_something_else_stays(
    reported: list[str], logged: Logged
) -> None:
    """IPv4 clients would be sent to ports that nobody serves."""
    closed: list[bool] = []
    one: Any = Controller.__new__(Controller)
    one._has_begun, one._tasks, one._ports, one._mesh = True, set(), {}, None
    one._log = logged.log
    one._prestart = SimpleNamespace(close=no_memory)
    one._intake = SimpleNamespace(close=lambda: False)
    one._ipv4_clients = SimpleNamespace(close=lambda *, keep: closed.append(keep))
    one.close(succeeded=False)
    assert closed == [False]
    assert reported == ["MemoryError()"]


# ---- answers of others ----------------------------------------------------------------------

FOREIGN: tuple[Any, ...] = (
    {"nftables": [{"set": {"name": "theirs", "elem": [80]}}]},
    {"nftables": [{"set": {"name": "theirs", "elem": [{"range": [1, 2]}]}}]},
    {"nftables": [{"set": {"name": "theirs", "elem": [{"concat": ["sctp", 80]}]}}]},
    {"nftables": [{"set": {}, "chain": {}}]},
    {"nftables": [1]},
    {"nftables": None},
    {},
    [],
)


@pytest.mark.parametrize("listing", FOREIGN, ids=json.dumps)
async def test_a_table_with_something_of_others(
    listing: Any, logged: Logged, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told as an error, and so made anew; before, the check ended there."""
    monkeypatch.setattr(nft, "_nft", lambda *_, **__: listing)
    with pytest.raises(RelayError):
        RedirectTable().content()
    redirect: Any = Ipv4Redirect(logged.log)
    redirect._watch.stop()
    assert redirect.left_behind() == set()
    redirect._desired = redirect._applied = frozenset([Endpoint("0.0.0.0", 80)])
    redirect.check()
    assert [event for event, _ in logged.lines()] == ["redirect-restored"]
    redirect.close(keep=True)


def test_nft_that_answers_no_json(monkeypatch: pytest.MonkeyPatch) -> None:
    done = SimpleNamespace(returncode=0, stdout="[" * 100_000, stderr="")
    monkeypatch.setattr("subprocess.run", lambda *_, **__: done)
    with pytest.raises(RelayError, match="JSON"):
        RedirectTable().content()


@pytest.mark.parametrize(
    "answer",
    [b"[]", b"1", b'{"State": [1]}', b'{"State": {"Pid": "x"}}', b'{"State": {"Pid": []}}',
     b'{"State": {"Pid": 1e999}}', b'{"State": {"Pid": -1}}', b'{"State": {"Pid": true}}',
     b'{"State": {"Pid": 99999999999}}'],
)  # fmt: skip
async def test_a_process_that_is_none(tmp_path: Path, answer: bytes) -> None:
    """The Engine is asked again later: an exception would have been the last of that container."""
    engine = FakeEngine(tmp_path / "engine.sock")
    engine.inspect = says(HEAD + answer)
    await engine.start()
    assert await EngineApi(engine.host).pid("one") == 0
    await engine.stop()
