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

from tests.support.attempting import Attempting
from v6fwd.client_ip.proxy.read import Header
from v6fwd.errors import ClientRefusedError
from v6fwd.model import Address, Endpoint, Limits, Mesh
from v6fwd.relay.deadlines import Deadlines
from v6fwd.relay.limits import hops as hops_module
from v6fwd.relay.limits.hops import MOST, START, Hops
from v6fwd.relay.pump import Flags, Reason, Stopped
from v6fwd.relay.reactor import Reactor
from v6fwd.relay.sockets import reset_on_close
from v6fwd.relay.tcp.connect import Connect
from v6fwd.relay.tcp.first_bytes import FIRST_SIZE, FirstBytes
from v6fwd.relay.tcp.forward import TcpForward

OUT = select.EPOLLOUT
CLIENT = Address(bytes(15) + b"\1", 5)
DIALLED = Address(bytes(15) + b"\1", 80)
REFUSED = OSError(errno.ECONNREFUSED, "")


class Site(Attempting):
    """Everything that a Connect asks for, and the flow that it reports to."""

    def __init__(self) -> None:
        self.client, mine = socket.socketpair()
        mine.setblocking(False)
        self.client_fd = mine.detach()
        self.script: list[OSError | ClientRefusedError | int] = []
        """What the attempts to connect give, in turn."""
        self.asked: list[int] = []
        self.addresses = 1
        self.live: Any = None
        self.mesh = Mesh()
        self.tlvs = b""
        self.is_old = False
        self.verdicts: list[tuple[int, bool]] = []
        """Which addresses failed, and which answered."""
        self.can_refresh = False
        self.resolved: Callable[[], None] | None = None
        self.later: list[Callable[[], None]] = []
        self.soon: list[Callable[[], None]] = []
        self.rounds = 0
        self.hops = Hops(lambda: 0.0)
        self.speaks: list[bool] = []
        self.hop_limits: list[int] = []
        self.watched: dict[int, Any] = {}
        self.passed_on: list[tuple[int, int]] = []
        self.reports: list[tuple[Any, ...]] = []
        self.headers = iter([b""])
        self.path = ""
        self.takes = True
        self.pair_takes = False
        """Whether another pump waits for the target, which has `pair` then."""
        self.pair = -1, b"", 0
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
        def call() -> None:
            callback(*args)
            self.settle()

        def cancel() -> None:
            if call in self.later:
                self.later.remove(call)

        self.later.append(call)
        return SimpleNamespace(cancel=cancel)

    def call_soon(self, callback: Callable[..., None], *args: object) -> Any:
        self.soon.append(lambda: callback(*args))
        return None

    def settle(self) -> None:
        """Do what is to be done soon."""
        while self.soon:
            assert len(self.connects) == 1, "within the time limit"
            self.rounds += 1
            self.soon.pop(0)()

    def watch(self, fd: int, mask: int, handler: Any) -> None:  # noqa: ARG002
        self.watched[fd] = handler

    def change_handler(self, fd: int, handler: Any) -> None:
        assert fd in self.watched
        self.watched[fd] = handler

    def pass_on(self, fd: int, mask: int) -> None:
        self.passed_on.append((fd, mask))

    def close_fd(self, fd: int) -> None:
        self.watched.pop(fd, None)
        os.close(fd)

    # -- the target --

    @property
    def is_name(self) -> bool:
        return self.addresses > 1

    def renew(self, then: Callable[[], None]) -> bool:
        if self.is_old:
            self.is_old, self.resolved = False, then
            return True
        return False

    def order(self, _source: Any = None) -> list[Any]:
        return list(range(self.addresses))

    def failed(self, address: int) -> None:
        self.verdicts.append((address, False))

    def answered(self, address: int) -> None:
        self.verdicts.append((address, True))

    def dial(
        self,
        number: int | None,
        source: Address | None,  # noqa: ARG002
        hop_limit: int = 0,
        *,
        speaks: bool = False,
    ) -> int:
        self.speaks.append(speaks)
        self.hop_limits.append(hop_limit)
        self.asked.append(number or 0)
        step = self.script.pop(0)
        if isinstance(step, int):
            return step
        raise step

    def refresh(self, then: Callable[[], None]) -> bool:
        if self.can_refresh:
            self.resolved = then
        return self.can_refresh

    def a_silent_target(self) -> int:
        """The next attempt has no answer; gives its descriptor."""
        sock = socket.socket()
        sock.setblocking(False)
        self.script.append(sock.detach())
        return cast("int", self.script[-1])

    def answers(self, fd: int) -> socket.socket:
        """A silent target is connected now."""
        theirs, ours = socket.socketpair()
        theirs.settimeout(5)
        self._ours.append(theirs)
        os.dup2(ours.fileno(), fd)
        os.set_blocking(fd, False)
        ours.close()
        self.watched[fd].on_event(OUT)
        return theirs

    def breaks(self, fd: int) -> None:
        """A silent target refuses now."""
        refusing = socket.socket()
        refusing.setblocking(False)
        with socket.socket() as unheard:
            unheard.bind(("127.0.0.1", 0))
            refusing.connect_ex(unheard.getsockname())
        os.dup2(refusing.detach(), fd)
        select.select([fd], [fd], [], 20)
        self.watched[fd].on_event(select.EPOLLERR | select.EPOLLHUP)

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

    def dialled(self, fd: int, first: bytes, header_size: int) -> bool:
        if self.pair_takes:
            self.pair = fd, first, header_size
        return self.pair_takes

    def is_joined(self) -> bool:
        return False

    def pair_connected(self) -> None:
        self.reports.append(("pair connected",))

    def leave_pair(self) -> None:
        self.reports.append(("leave pair",))

    def connect_failed(self, error: OSError) -> None:
        self.reports.append(("failed", error.errno))

    def client_refused(self, why: str, label: str = "") -> None:
        self.reports.append(("refused", why, label))

    def client_reset(self) -> None:
        self.reports.append(("client reset",))

    def on_exception(self, error: Exception) -> None:
        self.reports.append(("exception", error))

    # -- what the test does --

    def begin(self, said: bytes = b"") -> Connect:
        """Start to connect; the bytes of the client that came before."""
        first = next(self.headers)
        headers = [first]
        told = Header(0, CLIENT, DIALLED, self.tlvs)

        def write(_source: Address, _destination: Address) -> bytes:
            headers.append(next(self.headers, headers[-1]))
            return headers.pop(0)

        forward = SimpleNamespace(
            target=self,
            write_header=write if first else None,
            resources=SimpleNamespace(reactor=self, connects=self.connects, hops=self.hops),
            forward=SimpleNamespace(
                listen="[::]:1",
                target=Endpoint("", 0, path=self.path),
                limits=Limits(),
                mesh=self.mesh,
                pass_tlvs=0,
            ),
        )
        its = cast("TcpForward", forward)
        self.connect = Connect(self, its, FirstBytes(its, self.client_fd, CLIENT, told, said))
        self.connect.start()
        self.settle()
        return self.connect

    def event(self, mask: int = OUT) -> None:
        """The one watched descriptor has something to tell."""
        ((_, handler),) = self.watched.items()
        handler.on_event(mask)
        self.settle()

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


def test_a_thousand_that_refuse_let_others_have_their_turn(site: Site) -> None:
    site.addresses = 1001
    site.script = [REFUSED] * 1000
    site.a_target()
    site.begin(b"x")
    assert site.asked == list(range(1001))
    assert site.rounds == 1000
    assert site.reports == [("connected", b"", 1, False, False)]


def test_a_silent_address_is_raced(site: Site) -> None:
    """The winner has the client's bytes, and the loser only a reset."""
    site.addresses = 2
    loser = site.a_silent_target()
    winner = site.a_silent_target()
    site.begin()
    assert site.asked == [0]
    site.later.pop()()
    assert site.asked == [0, 1]
    site.client.send(b"hello")
    assert site.answers(winner).recv(100) == b"hello"
    assert site.reports == [("connected", b"", 5, True, False)]
    assert site.verdicts == [(1, True), (0, False)]
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(loser)
    assert list(site.watched) == [winner]


def test_a_silent_address_may_still_win(site: Site) -> None:
    site.addresses = 2
    winner, loser = site.a_silent_target(), site.a_silent_target()
    site.begin()
    site.later.pop()()
    site.client.send(b"hello")
    assert site.answers(winner).recv(100) == b"hello"
    assert site.reports == [("connected", b"", 5, True, False)]
    assert site.verdicts == [(1, False), (0, True)]
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(loser)


def test_the_silent_one_is_waited_for_when_the_others_refuse(site: Site) -> None:
    site.addresses = 3
    silent = site.a_silent_target()
    site.script += [REFUSED, REFUSED]
    site.begin()
    site.later.pop()()
    assert (site.asked, site.reports, len(site.connects)) == ([0, 1, 2], [], 1)
    site.answers(silent)
    assert site.reports == [("connected", b"", 0, True, False)]


def test_a_silent_one_that_fails_late_matters_if_it_was_the_last(site: Site) -> None:
    site.addresses = 2
    for _ in range(2):
        site.a_silent_target()
    connect = site.begin()
    site.later.pop()()
    connect.earlier_failed(REFUSED)
    assert (site.reports, len(site.connects)) == ([], 1), "the second may still answer"


def test_a_silent_one_that_fails_when_all_others_have(site: Site) -> None:
    site.addresses = 3
    site.a_silent_target()
    site.script += [REFUSED, REFUSED]
    connect = site.begin()
    site.later.pop()()
    race: Any = connect._race
    race._drop(race._earlier.popitem()[0])  # as Race.told does before it reports
    connect.earlier_failed(REFUSED)
    assert (site.reports, len(site.connects)) == ([("failed", errno.ECONNREFUSED)], 0)


def test_time_is_up_for_all_addresses_together(site: Site) -> None:
    site.addresses, site.can_refresh = 3, True
    fds = [site.a_silent_target() for _ in range(3)]
    connect = site.begin()
    for _ in range(2):
        site.later.pop()()
    connect.expired()
    assert site.reports == [("failed", errno.ETIMEDOUT)]
    assert sorted(site.verdicts) == [(0, False), (1, False), (2, False)]
    assert site.resolved is not None, "the name may have moved"
    for fd in fds:
        with pytest.raises(OSError, match="Bad file"):
            os.fstat(fd)


def test_a_race_ends_with_its_flow(site: Site) -> None:
    site.addresses = 3
    fds = [site.a_silent_target() for _ in range(2)]
    connect = site.begin()
    site.later.pop()()
    connect.stop()
    site.later.clear()
    assert (site.reports, site.watched, len(site.connects)) == ([], {}, 0)
    for fd in fds:
        with pytest.raises(OSError, match="Bad file"):
            os.fstat(fd)


def test_an_old_answer_is_renewed_first(site: Site) -> None:
    site.addresses, site.is_old = 2, True
    site.a_target()
    site.begin(b"x")
    assert (site.asked, site.reports, len(site.connects)) == ([], [], 1)
    assert site.resolved is not None
    site.resolved()
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
    """SO_ERROR tells why."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        sock = socket.socket()
        sock.setblocking(False)
        sock.connect_ex(closed.getsockname())
        select.select([], [sock], [], 5)
        site.script = [sock.detach()]
        site.begin()
        (fd,) = site.watched
        site.event(select.EPOLLOUT | select.EPOLLERR | select.EPOLLHUP)
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
    assert site.reports == [("refused", "no way", "")]


def test_a_client_that_is_reset(site: Site) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        mine = server.accept()[0]
    mine.setblocking(False)
    os.dup2(mine.fileno(), site.client_fd)
    mine.close()
    reset_on_close(client.fileno())
    client.close()
    site.begin()
    assert site.reports == [("client reset",)]
    assert site.asked == []


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


@pytest.mark.parametrize(
    ("received", "sent"), [(64, START), (255, START), (START, START - 1), (START - 5, START - 6)]
)
def test_relays_are_counted_once_a_loop_is_suspected(
    site: Site, monkeypatch: pytest.MonkeyPatch, received: int, sent: int
) -> None:
    monkeypatch.setattr(hops_module, "received_hop_limit", lambda _: received)
    target = site.a_target()
    site.hops.suspect()
    site.begin(b"x")
    assert target.recv(1) == b"x"
    assert site.hop_limits == [sent]


def test_no_relays_are_counted_before(site: Site) -> None:
    target = site.a_target()
    site.begin(b"x")
    assert target.recv(1) == b"x"
    assert site.hop_limits == [0]


def test_a_flow_of_a_loop_goes_no_further(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hops_module, "received_hop_limit", lambda _: START - MOST)
    site.hops.suspect()
    site.begin(b"x")
    assert [(report[0], report[2]) for report in site.reports] == [("refused", "loop")]
    assert (site.asked, len(site.connects)) == ([], 0)


def waited_for(site: Site, said: bytes = b"") -> Connect:
    """Begin where another pump waits for the target."""
    site.pair_takes = True
    site.a_target()
    return site.begin(said)


def stopped(reason: Reason, *, flags: int = 0, up: bytes = b"", error: int = 0) -> Stopped:
    """What that pump gives back before it has written anything."""
    return Stopped(reason, error, flags, b"HEADERsaid", up, b"", 0, 0)


def test_another_pump_waits_and_reads(site: Site) -> None:
    site.headers = iter([b"HEADER"])
    site.client.send(b" later")
    connect = waited_for(site, b"said")
    assert site.pair[1:] == (b"HEADERsaid", 6), "it reads the rest itself"
    assert not site.watched
    assert len(site.connects) == 1, "within the time limit"
    connect.joined()
    assert len(site.connects) == 0
    assert site.reports == []


def test_a_target_that_fails_the_other_pump_is_tried_again(site: Site) -> None:
    """What the client has said by then goes to the next address."""
    site.headers = iter([b"HEADER"])
    site.can_refresh = True
    connect = waited_for(site, b"said")
    connect.pair_stopped(
        site.pair[0], stopped(Reason.FAILED, up=b" more", error=errno.ECONNREFUSED)
    )
    site.pair_takes = False
    target = site.a_target()
    assert site.resolved is not None
    site.resolved()
    assert target.recv(100) == b"HEADERsaid more"


def test_the_time_limit_takes_the_target_back(site: Site) -> None:
    site.headers = iter([b"HEADER"])
    connect = waited_for(site)
    connect.expired()
    assert site.reports == [("leave pair",)]
    connect.pair_stopped(site.pair[0], stopped(Reason.ASKED))
    assert site.reports[1:] == [("failed", errno.ETIMEDOUT)]


def test_a_client_that_is_reset_while_the_other_pump_waits(site: Site) -> None:
    site.headers = iter([b"HEADER"])
    connect = waited_for(site)
    connect.pair_stopped(site.pair[0], stopped(Reason.BROKE, flags=Flags.BROKE_CLIENT))
    assert site.reports == [("client reset",)]


def test_want_of_memory_in_the_other_pump_costs_the_flow(site: Site) -> None:
    site.headers = iter([b"HEADER"])
    connect = waited_for(site)
    connect.pair_stopped(site.pair[0], stopped(Reason.MEMORY))
    ((kind, error),) = site.reports
    assert kind == "exception"
    assert isinstance(error, MemoryError)
    connect.stop()
