"""A service of Swarm as a target: which task is dialled, and what waits for others."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from v6fwd.errors import RelayError
from v6fwd.model import Address, Balance, Endpoint, Mesh, Protocol
from v6fwd.relay.pump import PairPump
from v6fwd.relay.reactor import Reactor
from v6fwd.relay.targets.mesh import AGAIN, CUT_GRACE, GRACE, MeshTarget, TaskAddress
from v6fwd.relay.tcp.flow import TcpFlow
from v6fwd.relay.tcp.forward import TcpForward
from v6fwd.relay.transparent.privileged import MeshSocket, PrivilegedOps

CLIENT = Address(bytes((192, 0, 2, 7)), 4711)
ONE, OTHER = "10.0.0.6", "10.0.0.7"


class FakeOps:
    """Makes sockets here, and notes what was asked."""

    def __init__(self) -> None:
        self.asked: list[MeshSocket] = []
        self.error: Exception | None = None

    def mesh_socket(self, request: MeshSocket) -> socket.socket:
        self.asked.append(request)
        if self.error is not None:
            raise self.error
        kind = socket.SOCK_STREAM if request.protocol is Protocol.TCP else socket.SOCK_DGRAM
        return socket.socket(socket.AF_INET, kind)


class FakeLoop(asyncio.SelectorEventLoop):
    """Notes what is to be called later, and calls at once what is to be called soon."""

    def __init__(self) -> None:
        super().__init__()
        self.timers: list[tuple[float, Any]] = []

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., object], *words: Any
    ) -> None:
        self.timers.append((delay, lambda: callback(*words)))

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *words: Any
    ) -> None:
        callback(*words)


class Bench:
    """A target with FakeOps."""

    def __init__(self) -> None:
        self.ops = FakeOps()
        self.loop = FakeLoop()
        self.now = 100.0
        self.sought = 0
        self.reactor = Reactor(self.loop, clock=lambda: self.now)
        ops = cast("PrivilegedOps", self.ops)
        self.target = MeshTarget(Endpoint("web", 80), self.reactor, ops, self.seek)

    def seek(self) -> None:
        self.sought += 1

    def follow(
        self,
        *local: str,
        remote: tuple[str, ...] = (),
        hops: tuple[str, ...] = (),
        identity: str = "1",
    ) -> None:
        self.target.follow(Mesh("/sandbox", identity, local, remote, hops, 40848))

    def follow_least(self, *local: str) -> None:
        self.target.follow(Mesh("/sandbox", "1", local, balance=Balance.LEAST_FLOWS))

    def first(self) -> str:
        """The task that the next flow tries first."""
        task = self.target.order(CLIENT)[0][1][0]
        assert isinstance(task, str)
        return task


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.reactor.close()
    bench.loop.close()


def close(fd: int) -> None:
    socket.socket(fileno=fd).close()


def test_a_task_is_dialled_from_the_namespace(bench: Bench) -> None:
    bench.follow(ONE)
    close(bench.target.dial(None, CLIENT, 60))
    request = MeshSocket("/sandbox", Protocol.TCP, bytes((10, 0, 0, 6)), 80, 60, "1")
    assert bench.ops.asked == [request]


def test_a_flow_that_speaks_first_says_so(bench: Bench) -> None:
    """Its first bytes acknowledge the task's SYN."""
    bench.follow(ONE)
    close(bench.target.dial(None, CLIENT, speaks=True))
    assert bench.ops.asked[0].speaks


def test_an_address_of_the_order_is_dialled(bench: Bench) -> None:
    bench.follow(ONE, remote=(OTHER,))
    order = bench.target.order(CLIENT)
    assert [address[1][:2] for address in order] == [(ONE, 80), (OTHER, 80)]
    close(bench.target.dial(order[1], CLIENT))
    assert bench.ops.asked[0].task == bytes((10, 0, 0, 7))


def test_no_task(bench: Bench) -> None:
    with pytest.raises(OSError, match="no task now"):
        bench.target.dial(None, CLIENT)
    assert len(bench.target) == 0


def test_nothing_leads_back_to_a_listener(bench: Bench) -> None:
    """The addresses are another namespace's, and may be this host's own, too."""
    bench.follow("127.0.0.1")
    assert bench.target.found == ()


@pytest.mark.parametrize(
    ("error", "grace"),
    [
        (OSError(errno.ECONNREFUSED, ""), GRACE),
        (OSError(errno.ENETUNREACH, ""), CUT_GRACE),
        (RelayError("there is no namespace"), GRACE),
    ],
)
def test_a_flow_waits_for_other_tasks(bench: Bench, error: Exception, grace: float) -> None:
    bench.follow(ONE)
    bench.ops.error = error
    with pytest.raises(OSError):  # noqa: PT011 - of each kind
        bench.target.dial(None, CLIENT)
    told: list[str] = []
    assert bench.target.others(lambda: told.append("one"), 100.0)
    assert bench.target.others(lambda: told.append("two"), 99.0)
    assert bench.sought == 2, "the Engine is asked at once"
    assert not told
    bench.follow(ONE)
    assert not told, "nothing has changed"
    bench.follow(ONE, identity="2")
    assert told == ["one", "two"], "dockerd has made another namespace"
    bench.loop.timers[0][1]()
    assert told == ["one", "two"]
    bench.ops.error = error
    with pytest.raises(OSError):  # noqa: PT011 - of each kind
        bench.target.dial(None, CLIENT)
    bench.now += grace - 0.5
    assert bench.target.others(lambda: None, 100.0)
    bench.now += 0.5
    assert not bench.target.others(lambda: None, 100.0), "it has waited for long enough"
    assert bench.target.others(lambda: None, 101.0), "each flow has its own time"


def test_a_flow_looks_again_without_a_change(bench: Bench) -> None:
    """A server that is starting refuses at first."""
    told: list[str] = []
    bench.target.others(lambda: told.append("one"), 100.0)
    [(delay, then)] = bench.loop.timers
    assert delay == AGAIN
    then()
    assert told == ["one"]


def test_nodes_come_behind_tasks(bench: Bench) -> None:
    """But before those that failed lately."""
    bench.follow(ONE, hops=(OTHER,))
    task, node = bench.target.order(CLIENT)
    assert (task[1].host, task[1].port, bench.target.is_hop(task)) == (ONE, 80, False)
    assert (node[1].host, node[1].port, bench.target.is_hop(node)) == (OTHER, 40848, True)
    close(bench.target.dial(node, CLIENT))
    assert (bench.ops.asked[0].task, bench.ops.asked[0].port) == (bytes((10, 0, 0, 7)), 40848)
    bench.target.failed(task)
    assert [each[1].host for each in bench.target.order(CLIENT)] == [OTHER, ONE]
    bench.target.failed(node)
    assert [each[1].host for each in bench.target.order(CLIENT)] == [ONE, OTHER]
    assert bench.sought == 2


def test_a_session_keeps_its_task(bench: Bench) -> None:
    bench.follow(ONE, OTHER)
    fd, address = bench.target.connect_datagrams(CLIENT)
    close(fd)
    assert bench.ops.asked[0].protocol is Protocol.UDP
    assert not bench.target.has_moved(address)
    bench.target.was_refused(address)
    assert bench.target.has_moved(address), "another one may answer"
    bench.target.answered(address)
    assert not bench.target.has_moved(address)
    task = address[1][0]
    bench.follow(*({ONE, OTHER} - {task}))
    assert bench.target.has_moved(address), "it has left the service"
    bench.follow()
    assert not bench.target.has_moved(address), "there is nowhere to go"


def test_a_lonely_task_that_refuses_is_kept(bench: Bench) -> None:
    bench.follow(ONE)
    fd, address = bench.target.connect_datagrams(CLIENT)
    close(fd)
    bench.target.was_refused(address)
    assert not bench.target.has_moved(address)


def test_closed_it_leads_nowhere(bench: Bench) -> None:
    bench.follow(ONE)
    bench.target.close()
    with pytest.raises(OSError, match="no task now"):
        bench.target.dial(None, CLIENT)


def test_least_flows_until_the_descriptor_is_closed(bench: Bench) -> None:
    bench.follow_least(ONE, OTHER)
    connection = bench.target.dial(None, CLIENT)
    busy = socket.inet_ntoa(bench.ops.asked[0].task)
    [idle] = {ONE, OTHER} - {busy}
    assert [bench.first() for _ in range(4)] == [idle] * 4
    sessions = []
    for _ in range(2):
        fd, address = bench.target.connect_datagrams(CLIENT)
        sessions.append(fd)
        assert address[1][0] in {ONE, OTHER}
    assert [bench.ops.asked[1].task] == [socket.inet_aton(idle)], "sessions count, too"
    for fd in sessions:
        bench.reactor.close_fd(fd)
    assert [bench.first() for _ in range(4)] == [idle] * 4
    bench.reactor.close_fd(connection)
    assert {bench.first() for _ in range(4)} == {ONE, OTHER}


def test_least_flows_where_another_pump_closes(bench: Bench) -> None:
    """The ring closes descriptors itself."""
    bench.follow_least(ONE, OTHER)
    fd = bench.target.dial(None, CLIENT)
    assert len({bench.first() for _ in range(4)}) == 1
    bench.reactor.tell_closed(fd)
    assert len({bench.first() for _ in range(4)}) == 2
    bench.reactor.close_fd(fd)
    assert len({bench.first() for _ in range(4)}) == 2, "told once"


def test_a_flow_tells_that_a_native_pump_closes_its_target(bench: Bench) -> None:
    told: list[int] = []
    bench.reactor.when_closed(77, lambda: told.append(77))
    flow = TcpFlow.__new__(TcpFlow)
    flow._pump = cast("PairPump", SimpleNamespace(drop=told.append))
    resources = SimpleNamespace(reactor=bench.reactor)
    flow._forward = cast("TcpForward", SimpleNamespace(resources=resources))
    flow._pair, flow._target_fd = 3, 77
    flow._close_client()
    assert told == [3, 77]


def test_least_flows_where_a_descriptor_was_closed_by_hand(bench: Bench) -> None:
    """As for want of memory: its number comes again, and the flow of before is none."""
    bench.follow_least(ONE, OTHER)
    close(bench.target.dial((socket.AF_INET, TaskAddress(ONE, 80, "1")), CLIENT))
    again = bench.target.dial((socket.AF_INET, TaskAddress(OTHER, 80, "1")), CLIENT)
    assert [bench.first() for _ in range(4)] == [ONE] * 4
    bench.reactor.close_fd(again)


def test_nothing_is_counted_in_other_orders(bench: Bench) -> None:
    bench.follow(ONE, OTHER)
    fd = bench.target.dial(None, CLIENT)
    assert {bench.first() for _ in range(4)} == {ONE, OTHER}
    bench.reactor.close_fd(fd)
