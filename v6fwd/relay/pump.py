"""The contract between a stream's flow and the pump that moves its bytes.

A flow hears *what happened*, in the words of the methods below. How the pump learns it is the
pump's own affair: today it is epoll, and event masks, edge-triggering and short reads stay in
`reactor`, `tcp/side` and `tcp/connect`. A pump on io_uring would call the same methods.

    accepted -> header_came -> connected -> (ended | broke)* -> the flow closes

- A method is called when something changed, never once for each read or write.
- Each of the three waits (for a header, for a target, for a client to close) is an object that
  reports exactly once, unless it was told to `stop` before.
- A method may close the flow. Whoever called it looks at `closed` and returns.
- `blocked` of an end is a state and no event. Only HTTP has to hear that an end has *drained*:
  it sets `attends`, and its own sides call it then.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag

from v6fwd.model.lean import TYPE_CHECKING, NamedTuple, Protocol, TypeVar
from v6fwd.relay.admission import NOT_PRESERVED
from v6fwd.relay.ends import End

if TYPE_CHECKING:
    from v6fwd.client_ip.proxy.read import Header

_Side = TypeVar("_Side", contravariant=True)


class Wait(Protocol):
    """What a flow waits for before, or after, its ends exchange bytes."""

    def stop(self) -> None:
        """Give back what the wait holds, and report nothing any more."""


class FlowEvents(Protocol[_Side]):
    """What a flow hears of its two ends while bytes move."""

    closed: bool
    """Whether the flow is over. Nothing of it may be touched then."""

    def ended(self, side: _Side) -> None:
        """All that `side` will ever send has been passed on."""

    def broke(self, side: _Side) -> None:
        """The connection of `side` was reset or died."""

    def on_exception(self, error: Exception) -> None:
        """An exception that nobody expected. It costs this flow and no other."""


class HeaderEvents(Protocol):
    """What a flow hears while it waits for the PROXY header of its client."""

    def header_came(self, header: Header, rest: bytes) -> None:
        """The header is whole; `rest` is what followed it."""

    def header_failed(self, why: str) -> None:
        """The client sent no header in time, or a bad one."""

    def client_reset(self) -> None:
        """The client's connection was reset."""

    def abort(self, end: End) -> None:
        """The client has closed without a byte."""

    def on_exception(self, error: Exception) -> None:
        """An exception that nobody expected. It costs this flow and no other."""


class ConnectEvents(Protocol):
    """What a flow hears of the connection to its target: one of the first four, and once."""

    def connected(
        self, fd: int, held: bytes, moved: int, *, watched: bool, client_ended: bool
    ) -> None:
        """The target is there, and `fd` is the flow's, which drops the wait.

        It took `moved` bytes of the client's; `held` are for it, too, and did not fit.
        `watched`: the pump watches `fd` already. `client_ended`: the client sends no more.
        """

    def connect_failed(self, error: OSError) -> None:
        """The target cannot be reached."""

    def dialled(self, fd: int, first: bytes, header_size: int) -> bool:
        """A connection to the target is on its way: whether another pump waits for it.

        If so, that pump has `fd`, and writes `first` and what the client says behind it. An
        exception means that it has not.
        """

    def is_joined(self) -> bool:
        """Whether that pump is connected already."""

    def pair_connected(self) -> None:
        """See PairEvents."""

    def leave_pair(self) -> None:
        """Ask for that descriptor back."""

    def client_refused(self, why: str, label: str = NOT_PRESERVED) -> None:
        """The target must not get this client: `label` for the metrics, `why` for the log."""

    def client_reset(self) -> None:
        """The client's connection was reset meanwhile."""

    def on_exception(self, error: Exception) -> None:
        """An exception that nobody expected. It costs this flow and no other."""


class Stopped(NamedTuple):
    """What a pump of pairs gives back of a flow that it stopped."""

    reason: int
    """A `Reason`."""
    errno: int
    flags: int
    """`Flags`, or-ed."""
    first: bytes
    """What the target has not got of what was to come first."""
    up: bytes
    """Read from the client, and not taken by the target."""
    down: bytes
    moved_up: int
    moved_down: int


class Reason(IntEnum):
    """Why it stopped."""

    FULL = 1
    BULK = 2
    BROKE = 3
    FAILED = 4
    MEMORY = 5
    ASKED = 6
    LONELY = 7
    ODD = 8


class Flags(IntFlag):
    """What was read of the two ends before."""

    ENDED_CLIENT = 1
    ENDED_TARGET = 2
    BROKE_CLIENT = 4
    BROKE_TARGET = 8
    BULK_CLIENT = 16
    BULK_TARGET = 32


CONNECTED, FINISHED, STOPPED, READABLE, WAITING = range(5)
"""What a native pump tells: of a pair, in the lower bits of an event; the ring also that the epoll
is readable. pairs/_contract.h has these numbers, `Reason` and `Flags` as well."""
KIND_BITS = 3
KIND = (1 << KIND_BITS) - 1


class PairEvents(Protocol):
    """What a flow hears of a pump that moves the bytes of both its ends, and passes ends on."""

    def pair_connected(self) -> None:
        """The target is there, and has what was to come first."""

    def pair_waits(self) -> None:
        """The target that was dialled is not connected at once: its time limit begins."""

    def pair_finished(self) -> None:
        """Both ends have ended, and all is passed on."""

    def pair_stopped(self) -> None:
        """`take` the pair: something came that this pump does not do."""

    def on_exception(self, error: Exception) -> None:
        """An exception that nobody expected. It costs this flow and no other."""


class Turn(Protocol):
    """A turn of the reactor, in which events are told."""

    def give_up(self, handler: PairEvents, error: Exception) -> None:
        """Let a flow clean up after an exception."""


def tell(turn: Turn, owner: PairEvents, kind: int) -> None:
    """Tell an owner what has become of its pair. An exception costs that flow, and no other."""
    try:
        if kind == FINISHED:
            owner.pair_finished()
        elif kind == CONNECTED:
            owner.pair_connected()
        elif kind == STOPPED:
            owner.pair_stopped()
        else:
            owner.pair_waits()
    except Exception as error:
        turn.give_up(owner, error)


class PairPump(Protocol):
    """Moves the bytes of plain flows. A pair is known by a number; both descriptors are the pump's.

    Raises MemoryError where there is no room for another pair.
    """

    def wants(self, looked_at: bool) -> bool:
        """Whether a new flow is better served here.

        `looked_at`: the first answer of its target is to be looked at.
        """

    def wants_back(self) -> bool:
        """Whether it takes a flow in which nothing unusual is under way by now."""

    def connect(
        self, owner: PairEvents, client: int, target: int, first: bytes, header_size: int
    ) -> int:
        """Move bytes once `target` is connected: `first`, whose header is not counted, first.

        Where the pair `is_connected` when this returns, `pair_connected` does not follow.
        """

    def dial(
        self, owner: PairEvents, client: int, address: bytes, header: bytes, hop_limit: int
    ) -> tuple[int, int, bool]:
        """Connect to a struct sockaddr, and move bytes then: `header` first.

        Gives the pair, the target's descriptor, and whether `pair_waits` would tell that it takes
        time. Then, or where that is false, `pair_connected` follows, or `pair_stopped`. Raises
        OSError where there is no descriptor for it.
        """

    def is_connected(self, pair: int) -> bool:
        """Whether the target has what was to come first."""

    def take(self, pair: int) -> Stopped:
        """Have back what has stopped."""

    def join(self, owner: PairEvents, client: int, target: int, moved: tuple[int, int]) -> int:
        """Move bytes between connected ends, which the reactor watches no more."""

    def stop(self, pair: int) -> None:
        """Stop, and tell the owner with all that is held."""

    def reset(self, pair: int) -> None:
        """Let both connections end with RST."""

    def drop(self, pair: int) -> None:
        """Close both descriptors as soon as the kernel has let go of them, and tell nothing."""

    def moved(self, pair: int) -> tuple[int, int]:
        """Bytes up and down."""

    def is_half_closed(self, pair: int) -> bool:
        """Whether one end has ended, and the other not."""
