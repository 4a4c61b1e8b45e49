"""Connect alone: a scripted target, a reactor that the test turns by hand, real sockets."""

from __future__ import annotations

import errno
import os
import select
import socket
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from v6fwd.client_ip.proxy.read import Header
from v6fwd.errors import ClientRefusedError
from v6fwd.model import Address, Endpoint
from v6fwd.relay.deadlines import Deadlines
from v6fwd.relay.reactor import Reactor
from v6fwd.relay.sockets import reset_on_close
from v6fwd.relay.tcp.connect import FIRST_SIZE, Connect
from v6fwd.relay.tcp.forward import TcpForward

OUT = select.EPOLLOUT
CLIENT = Address(bytes(15) + b"\1", 5)
DIALLED = Address(bytes(15) + b"\1", 80)
REFUSED = OSError(errno.ECONNREFUSED, "")


class Site:
    """Everything that a Connect asks for, and the flow that it reports to."""

    def __init__(self) -> None:
        self.client, mine = socket.socketpair()
        mine.setblocking(False)
        self.client_fd = mine.detach()
        self.script: list[OSError | ClientRefusedError | int] = []
        """What the attempts to connect give, in turn."""
        self.asked: list[int] = []
        self.addresses = 1
        self.can_refresh = False
        self.resolved: Callable[[], None] | None = None
        self.later: list[Callable[[], None]] = []
        self.watched: dict[int, Any] = {}
        self.passed_on: list[tuple[int, int]] = []
        self.reports: list[tuple[Any, ...]] = []
        self.headers = iter([b""])
        self.path = ""
        self.takes = True
        self._ours: list[socket.socket] = [self.client]
        reactor = cast("Reactor", self)
        self.connects = Deadlines(reactor, 5.0)
        self.connect: Connect | None = None

    # -- the reactor --

    @property
    def loop(self) -> Site:
        return self

    def clock(self) -> float:
        return 0.0

    def call_later(self, delay: float, callback: Callable[..., None], *args: object) -> Any:  # noqa: ARG002
        self.later.append(lambda: callback(*args))
        return SimpleNamespace(cancel=lambda: None)

    def watch(self, fd: int, mask: int, handler: Any) -> None:  # noqa: ARG002
        self.watched[fd] = handler

    def pass_on(self, fd: int, mask: int) -> None:
        self.passed_on.append((fd, mask))

    def close_fd(self, fd: int) -> None:
        self.watched.pop(fd, None)
        os.close(fd)

    # -- the target --

    def __len__(self) -> int:
        return self.addresses

    def dial(self, number: int, source: Address | None) -> int:  # noqa: ARG002
        self.asked.append(number)
        step = self.script.pop(0)
        if isinstance(step, int):
            return step
        raise step

    def refresh(self, then: Callable[[], None]) -> bool:
        if self.can_refresh:
            self.resolved = then
        return self.can_refresh

    def a_target(self) -> socket.socket:
        """The next attempt connects to this."""
        theirs, ours = socket.socketpair()
        ours.setblocking(False)
        theirs.settimeout(5)
        self._ours.append(theirs)
        self.script.append(ours.detach())
        return theirs

    # -- the flow --

    def connected(
        self, fd: int, held: bytes, moved: int, *, watched: bool, client_ended: bool
    ) -> None:
        self.reports.append(("connected", held, moved, watched, client_ended))
        if not self.takes:
            raise MemoryError
        self._ours.append(socket.socket(fileno=fd))

    def connect_failed(self, error: OSError) -> None:
        self.reports.append(("failed", error.errno))

    def client_refused(self, why: str) -> None:
        self.reports.append(("refused", why))

    def client_reset(self) -> None:
        self.reports.append(("client reset",))

    def on_exception(self, error: Exception) -> None:
        self.reports.append(("exception", error))

    # -- what the test does --

    def begin(self, said: bytes = b"") -> Connect:
        """Start to connect; the bytes of the client that came before."""
        first = next(self.headers)
        headers = [first]
        told = Header(0, CLIENT, DIALLED)

        def write(_source: Address, _destination: Address) -> bytes:
            headers.append(next(self.headers, headers[-1]))
            return headers.pop(0)

        forward = SimpleNamespace(
            target=self,
            write_header=write if first else None,
            resources=SimpleNamespace(reactor=self, connects=self.connects),
            forward=SimpleNamespace(target=Endpoint("", 0, path=self.path)),
        )
        self.connect = Connect(
            self, cast("TcpForward", forward), self.client_fd, CLIENT, told, said
        )
        self.connect.start()
        return self.connect

    def event(self, mask: int = OUT) -> None:
        """The one watched descriptor has something to tell."""
        ((_, handler),) = self.watched.items()
        handler.on_event(mask)

    def close(self) -> None:
        if self.connect is not None:
            self.connect.stop()
        os.close(self.client_fd)
        for sock in self._ours:
            sock.close()


@pytest.fixture
def site() -> Iterator[Site]:
    one = Site()
    yield one
    one.close()


def ended_by_reset(target: socket.socket) -> bool:
    """Whether a target's end sees that it was given up; a socketpair knows only an end."""
    return target.recv(1) == b""


def test_a_client_that_has_spoken_needs_no_event(site: Site) -> None:
    target = site.a_target()
    site.client.send(b"hello")
    site.begin()
    assert site.reports == [("connected", b"", 5, False, False)]
    assert target.recv(100) == b"hello"
    assert not site.watched


def test_a_silent_client_is_connected_by_an_event(site: Site) -> None:
    site.a_target()
    site.begin()
    assert site.reports == []
    assert len(site.connects) == 1
    site.event()
    assert site.reports == [("connected", b"", 0, True, False)]
    assert len(site.connects) == 0


def test_what_came_with_the_event_is_passed_on(site: Site) -> None:
    """The target's first bytes have had their edge already."""
    site.a_target()
    site.begin()
    (fd,) = site.watched
    site.event(OUT | select.EPOLLIN)
    assert site.passed_on == [(fd, OUT | select.EPOLLIN)]


def test_header_and_first_bytes_go_together(site: Site) -> None:
    target = site.a_target()
    site.headers = iter([b"HEADER"])
    site.client.send(b"hello")
    site.begin()
    assert target.recv(100) == b"HEADERhello"
    assert site.reports == [("connected", b"", 5, False, False)], "the header is not counted"


def test_a_header_goes_without_bytes(site: Site) -> None:
    target = site.a_target()
    site.headers = iter([b"HEADER"])
    site.begin()
    assert target.recv(100) == b"HEADER"
    assert site.reports == [("connected", b"", 0, False, False)]


def test_what_was_said_behind_the_own_header_goes_first(site: Site) -> None:
    target = site.a_target()
    site.headers = iter([b"HEADER"])
    site.client.send(b" later")
    site.begin(b"said")
    assert target.recv(100) == b"HEADERsaid", "what comes now waits for its side"
    assert site.reports == [("connected", b"", 4, False, False)]


def test_no_more_than_so_much_is_read_ahead(site: Site) -> None:
    site.a_target()
    site.client.send(bytes(2 * FIRST_SIZE))
    site.begin()
    assert site.reports == [("connected", b"", FIRST_SIZE, False, False)]


def test_what_does_not_fit_is_held(site: Site) -> None:
    target = site.a_target()
    site.begin(bytes(4 << 20))
    ((_, held, moved, *_),) = site.reports
    assert held
    assert len(held) + moved == 4 << 20
    assert len(target.recv(1 << 20)) > 0


def test_a_client_that_has_ended(site: Site) -> None:
    site.a_target()
    site.client.shutdown(socket.SHUT_WR)
    site.begin()
    site.event()
    assert site.reports == [("connected", b"", 0, True, True)]


def test_the_next_address_is_tried(site: Site) -> None:
    site.addresses = 3
    site.script = [REFUSED, OSError(errno.ENETUNREACH, "")]
    site.a_target()
    site.begin(b"x")
    assert site.asked == [0, 1, 2]
    assert site.reports == [("connected", b"", 1, False, False)]


def test_the_last_failure_is_reported(site: Site) -> None:
    site.addresses = 2
    site.script = [OSError(errno.ENETUNREACH, ""), REFUSED]
    site.begin()
    assert site.reports == [("failed", errno.ECONNREFUSED)]


def test_the_resolver_is_asked_once(site: Site) -> None:
    site.can_refresh = True
    site.script = [REFUSED, REFUSED]
    site.begin()
    assert (site.reports, len(site.connects)) == ([], 1)
    assert site.resolved is not None
    site.resolved()
    assert site.asked == [0, 0]
    assert site.reports == [("failed", errno.ECONNREFUSED)]
    assert len(site.connects) == 0


def test_a_new_address_gets_a_new_header_and_the_same_bytes(site: Site) -> None:
    """The target's namespace may have changed its mind about the header; the client has not."""
    site.can_refresh = True
    first = site.a_target()
    site.headers = iter([b"OLD", b"NEWER"])
    site.client.send(b"hello")
    first.close()  # so writing fails
    site.begin()
    second = site.a_target()
    assert site.resolved is not None
    site.resolved()
    assert second.recv(100) == b"NEWERhello"
    assert site.reports == [("connected", b"", 5, False, False)]


def test_a_target_that_breaks_while_it_is_waited_for(site: Site) -> None:
    """SO_ERROR tells why. The mask is not asked: it may be stale."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        sock = socket.socket()
        sock.setblocking(False)
        sock.connect_ex(closed.getsockname())
        select.select([], [sock], [], 5)
        site.script = [sock.detach()]
        site.begin()
        (fd,) = site.watched
        site.event()
    assert site.reports == [("failed", errno.ECONNREFUSED)]
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(fd)


def test_the_connect_timeout_leaves_no_time_for_others(site: Site) -> None:
    site.addresses, site.can_refresh = 2, True
    target = site.a_target()
    connect = site.begin()
    connect.expired()
    assert site.reports == [("failed", errno.ETIMEDOUT)]
    assert site.asked == [0]
    assert ended_by_reset(target)


def test_a_client_that_cannot_be_shown(site: Site) -> None:
    site.script = [ClientRefusedError("no way")]
    site.begin()
    assert site.reports == [("refused", "no way")]


def test_a_client_that_is_reset(site: Site) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        mine = server.accept()[0]
    mine.setblocking(False)
    os.dup2(mine.fileno(), site.client_fd)
    mine.close()
    reset_on_close(client.fileno())
    client.close()
    target = site.a_target()
    site.begin()
    assert site.reports == [("client reset",)]
    assert ended_by_reset(target)


@pytest.mark.parametrize(
    ("number", "path"), [(errno.EMFILE, ""), (errno.ENFILE, ""), (errno.EAGAIN, "/socket")]
)
def test_what_is_short_is_waited_for(site: Site, number: int, path: str) -> None:
    site.path = path
    site.script = [OSError(number, "")]
    site.begin(b"x")
    assert (site.reports, len(site.connects)) == ([], 1)
    site.a_target()
    site.later.pop()()
    assert site.asked == [0, 0]
    assert site.reports == [("connected", b"", 1, False, False)]


def test_a_full_queue_that_is_no_unix_socket_is_a_failure(site: Site) -> None:
    site.script = [OSError(errno.EAGAIN, "")]
    site.begin()
    assert site.reports == [("failed", errno.EAGAIN)]


def _nothing(_site: Site) -> None:
    pass


def _for_descriptors(site: Site) -> None:
    site.script.insert(0, OSError(errno.EMFILE, ""))


def _for_the_resolver(site: Site) -> None:
    site.can_refresh = True
    site.script.insert(0, REFUSED)


@pytest.mark.parametrize("waits", [_nothing, _for_descriptors, _for_the_resolver])
def test_who_was_stopped_reports_nothing(site: Site, waits: Callable[[Site], None]) -> None:
    target = site.a_target()
    waits(site)
    connect = site.begin()
    asked = list(site.asked)
    connect.stop()
    for callback in [*site.later[1:], *([site.resolved] if site.resolved else [])]:
        callback()
    assert (site.reports, site.asked, len(site.connects)) == ([], asked, 0)
    if waits is _nothing:
        assert ended_by_reset(target)
        assert not site.watched
    else:
        os.close(cast("int", site.script.pop()))


def test_a_flow_that_fails_to_take_the_target_leaks_no_descriptor(site: Site) -> None:
    target = site.a_target()
    site.takes = False
    with pytest.raises(MemoryError):
        site.begin(b"x")
    assert site.connect is not None
    site.connect.stop()
    assert target.recv(1) == b"x"
    assert ended_by_reset(target)
