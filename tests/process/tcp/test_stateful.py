"""Any order of writes, reads, ends and resets on a TCP flow, and what each end may see of it.

A program of steps is drawn, run on both ends of a new flow, and then both ends are brought to
their end. What holds for every program:

- What comes is a prefix of what was sent; behind a clean end of stream it is all of it, and the
  sender had ended its stream.
- Where nobody resets, closes or idles, all of it comes in both directions.
- No descriptor is left, and the log has the sum of the bytes that came.
"""

from __future__ import annotations

import contextlib
import re
import select
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from tests.support.deep import examples
from tests.support.rig import MIB, QUIET, Rig, noise, reset

PATIENCE = 4.0
"""Seconds without a byte: shorter than elsewhere, since a failure is tried again."""
PERIOD = MIB - 59
"""Bytes after which a stream repeats itself; odd to every size of a buffer."""
MOST = 24 * MIB
"""Bytes that are written in one direction, at most."""
NOISE = {who: noise(PERIOD, seed) * 2 for seed, who in enumerate(("client", "target"))}


@dataclass(frozen=True)
class Kind:
    """A relay: its options, and what its clients say first and its targets hear first."""

    options: tuple[str, ...] = ()
    header: bool = False
    accepts: bool = False
    idles: bool = False


V2 = ("--client-ip", "proxy-v2")
ACCEPT = ("--accept-proxy", "::1")
KINDS = {
    "plain": Kind(),
    "proxy-v2": Kind(V2, header=True),
    "accept-proxy": Kind(ACCEPT, accepts=True),
    "accept-proxy, proxy-v2": Kind((*ACCEPT, *V2), header=True, accepts=True),
}
IDLE = Kind(("--idle-timeout", "0.2"), idles=True)
FAR = ("2001:db8::7", 4242)
"""Who the client says that it speaks for."""


@pytest.fixture(scope="module", params=KINDS)
def relay(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Rig, Kind]]:
    """A relay process for all programs of a kind."""
    kind = KINDS[request.param]
    with serving(tmp_path_factory.mktemp("stateful"), kind) as rig:
        yield rig, kind


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """One that ends flows that idle."""
    with serving(tmp_path_factory.mktemp("impatient"), IDLE) as rig:
        yield rig


@contextlib.contextmanager
def serving(folder: Path, kind: Kind) -> Iterator[Rig]:
    """A relay process."""
    rig = Rig(folder).start("--log-flows", *kind.options)
    try:
        yield rig
    finally:
        rig.end()
    assert "internal error" not in rig.process.log
    assert "Traceback" not in rig.process.log


# ---- an end of a flow -----------------------------------------------------------------------


def header(source: tuple[str, int], destination: tuple[str, int]) -> bytes:
    """A PROXY header of version 2 for TCP over IPv6, by its specification, section 2.2."""
    addresses = b"".join(
        socket.inet_pton(socket.AF_INET6, host) for host, _ in (source, destination)
    )
    ports = struct.pack("!HH", source[1], destination[1])
    return b"\r\n\r\n\0\r\nQUIT\n" + b"\x21\x21\0\x24" + addresses + ports


@dataclass
class End:
    """One end of a flow: what it sent and saw."""

    who: str
    sock: socket.socket
    prefix: bytes = b""
    """What the other end must see before anything that was sent here."""
    sent: int = 0
    received: bytearray = field(default_factory=bytearray)
    ended: bool = False
    """It has ended its stream."""
    gone: bool = False
    """It has reset its connection or closed it."""
    unheard: bool = False
    """A write has failed."""
    saw: str = ""
    """How what it reads ended: "end", "reset", or not yet."""

    def piece(self, start: int, size: int) -> bytes:
        """Part of its stream."""
        begin = start % PERIOD
        size = min(size, len(NOISE[self.who]) - begin)
        return NOISE[self.who][begin : begin + size]

    @property
    def can_write(self) -> bool:
        """Whether it may still send."""
        over = self.ended or self.gone or self.unheard or self.saw == "reset"
        return not over and self.sent < MOST

    def write(self, size: int, flags: int = 0) -> int:
        """Send up to `size` bytes, as many as there is room for; gives how many that were."""
        if not self.can_write:
            return 0
        try:
            count = self.sock.send(self.piece(self.sent, size), flags)
        except BlockingIOError:
            return 0
        except (ConnectionResetError, BrokenPipeError) as error:
            self._broken(error)
            return 0
        self.sent += count
        return count

    def _broken(self, error: OSError) -> None:
        """Read what has come before; send(2) has taken ECONNRESET from recv(2), which then gives 0.

        EPIPE is a reset behind an end of stream (RFC 9293, CLOSE-WAIT), and that end was clean.
        """
        self.unheard = True
        self.drain()
        if isinstance(error, ConnectionResetError) or not self.saw:
            self.saw = "reset"

    def read(self, size: int) -> bool:
        """Read up to `size` bytes; False where nothing more comes now."""
        if self.gone or self.saw:
            return False
        try:
            data = self.sock.recv(size)
        except BlockingIOError:
            return False
        except ConnectionResetError:
            self.saw = "reset"
            return False
        if not data:
            self.saw = "end"
        self.received += data
        return bool(data)

    def drain(self) -> None:
        """Read all that is there."""
        while self.read(MIB):
            pass

    def finish(self) -> None:
        """End its stream."""
        if not (self.ended or self.gone):
            self.ended = True
            with contextlib.suppress(OSError):  # it has been reset
                self.sock.shutdown(socket.SHUT_WR)

    def leave(self, *, cut: bool) -> None:
        """Reset its connection, or close it as a program does that ends."""
        if self.gone:
            return
        self.gone = True
        if cut:
            reset(self.sock)
        else:
            self.ended = True
            self.sock.close()


@dataclass
class Flow:
    """Both ends."""

    client: End
    target: End
    idled: bool = False

    def other(self, end: End) -> End:
        """The other one."""
        return self.target if end is self.client else self.client

    @property
    def ends(self) -> tuple[End, End]:
        """Both."""
        return self.client, self.target

    @property
    def is_abnormal(self) -> bool:
        """Whether somebody did what may cost bytes."""
        return self.idled or any(end.gone for end in self.ends)

    def until(self, condition: str, who: End) -> None:
        """Read at both ends until `who` has what it waits for: "all" that was sent, or an "end"."""
        other = self.other(who)
        want = len(other.prefix) + other.sent
        while not (who.gone or who.saw) and (condition == "end" or len(who.received) < want):
            readers = [end.sock for end in self.ends if not (end.gone or end.saw)]
            ready, _, _ = select.select(readers, [], [], PATIENCE)
            assert ready, f"{who.who} waits for {condition} at byte {len(who.received)} of {want}"
            for end in self.ends:
                if end.sock in ready:
                    end.read(MIB)

    def check(self) -> None:
        """What must hold at any time."""
        for end in self.ends:
            source = self.other(end)
            whole = len(source.prefix) + source.sent
            assert len(end.received) <= whole
            if end.saw == "end":
                assert source.ended, f"{end.who}: a clean end that nobody sent"
                assert len(end.received) == whole, f"{end.who}: a cut stream ends as if whole"
            elif end.saw == "reset":
                assert self.is_abnormal, f"{end.who} was reset for nothing"
            assert_streams(source, bytes(end.received))

    def close(self) -> None:
        """Bring both to their end, and compare."""
        for end in self.ends:
            end.finish()
        for end in self.ends:
            self.until("end", end)
        self.check()
        for end in self.ends:
            assert end.gone or end.saw == "end" or self.is_abnormal
            end.sock.close()


def assert_streams(source: End, received: bytes) -> None:
    """What came is what was sent, up to there."""
    prefix, data = received[: len(source.prefix)], received[len(source.prefix) :]
    assert prefix == source.prefix[: len(prefix)]
    for start in range(0, len(data), PERIOD):
        piece = data[start : start + PERIOD]
        assert piece == NOISE[source.who][: len(piece)], f"{source.who}: corrupt after {start}"


# ---- programs -------------------------------------------------------------------------------

SIZES = st.one_of(
    st.sampled_from([1, 65_535, 65_536, 65_537, 131_072, 200_000, 3 * MIB]), st.integers(1, 4000)
)
STEPS = st.one_of(
    st.tuples(st.just("write"), SIZES),
    st.tuples(st.just("read"), SIZES),
    st.tuples(st.sampled_from(["all", "all", "urgent", "fill", "finish"]), st.just(0)),
    st.tuples(st.sampled_from(["reset", "close", "idle"]), st.just(0)),
)
PROGRAMS = st.lists(st.tuples(st.sampled_from(["client", "target"]), STEPS), max_size=14)
ROOMS = st.sampled_from([4096, 4 * MIB])
"""Bytes of each buffer of an end."""
EARLY = st.lists(st.one_of(st.tuples(st.just("write"), SIZES), st.just(("finish", 0))), max_size=3)


def step(flow: Flow, end: End, what: str, size: int) -> None:
    """Do one step."""
    if what == "write":
        end.write(size)
    elif what == "urgent":
        end.write(1, socket.MSG_OOB)
    elif what == "read":
        end.read(size)
    elif what == "all":
        flow.until("all", end)
    elif what == "fill":
        while end.write(MIB) or (
            end.can_write and select.select([], [end.sock], [], QUIET / 10)[1]
        ):
            pass
    elif what == "finish":
        end.finish()
    else:
        end.leave(cut=what == "reset")


def begun(
    rig: Rig, kind: Kind, early: list[tuple[str, int]], cut: int, rooms: tuple[int, int]
) -> Flow:
    """A new flow; the client takes some steps before the target is looked at."""
    sock = rig.keep(socket.socket(socket.AF_INET6))
    for one, room in zip((sock, rig.server), rooms, strict=True):
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, room)
    sock.connect(("::1", rig.port))
    client = End("client", sock)
    said = (client.sock.getsockname()[:2], ("::1", rig.port))
    if kind.accepts:
        said = (FAR, said[1])
        whole = header(*said)
        for part in (whole[: cut % len(whole)], whole[cut % len(whole) :]):
            client.sock.sendall(part)
    if kind.header:
        client.prefix = header(*said)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setblocking(False)
    for what, size in early:
        client.write(size) if what == "write" else client.finish()
    target = End("target", rig.accept())
    target.sock.setblocking(False)
    return Flow(client, target)


def play(
    rig: Rig,
    kind: Kind,
    program: list[tuple[str, tuple[str, int]]],
    early: list[tuple[str, int]],
    cut: int,
    rooms: tuple[int, int],
) -> None:
    """Run a program, and see to it that nothing is left."""
    try:
        flow = begun(rig, kind, early, cut, rooms)
        flow.idled = kind.idles
        for who, (what, size) in program:
            end = flow.client if who == "client" else flow.target
            if what == "idle":
                wait_for_timeout(flow, kind)
            else:
                step(flow, end, what, size)
            flow.check()
        flow.close()
        event(f"abnormal: {flow.is_abnormal}")
    finally:
        rig.drop()
    rig.settled()
    assert_counted(rig, flow)


def assert_counted(rig: Rig, flow: Flow) -> None:
    """The log has the sum of bytes: those that came, and of a flow that was cut no less."""
    *_, line = rig.process.log.splitlines()
    told = re.search(r": (\d+) bytes up, (\d+) down, [0-9.]+ s, (.*)", line)
    assert told, line
    for end, number in zip((flow.target, flow.client), told.groups(), strict=False):
        came = max(0, len(end.received) - len(flow.other(end).prefix))
        assert int(number) == came or (flow.is_abnormal and int(number) > came), line
    assert flow.is_abnormal or told[3] == "closed", line


@examples(150)
@given(program=PROGRAMS, early=EARLY, cut=st.integers(0, 1000), rooms=st.tuples(ROOMS, ROOMS))
def test_any_program(
    relay: tuple[Rig, Kind],
    program: list[tuple[str, tuple[str, int]]],
    early: list[tuple[str, int]],
    cut: int,
    rooms: tuple[int, int],
) -> None:
    play(*relay, program, early, cut, rooms)


@examples(40)
@given(program=PROGRAMS, early=EARLY, cut=st.integers(0, 1000), rooms=st.tuples(ROOMS, ROOMS))
def test_any_program_that_may_idle(
    impatient: Rig,
    program: list[tuple[str, tuple[str, int]]],
    early: list[tuple[str, int]],
    cut: int,
    rooms: tuple[int, int],
) -> None:
    """A slow machine may let the time run out anywhere: bytes may be missing, none are wrong."""
    play(impatient, IDLE, program, early, cut, rooms)


def wait_for_timeout(flow: Flow, kind: Kind) -> None:
    """Do nothing until the relay has had enough; nothing at all where it never has."""
    if not kind.idles:
        return
    for end in flow.ends:
        flow.until("end", end)
