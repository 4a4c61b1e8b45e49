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

from typing import Protocol, TypeVar

from v6fwd.client_ip.proxy.read import Header
from v6fwd.relay.admission import NOT_PRESERVED
from v6fwd.relay.ends import End

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

    def client_refused(self, why: str, label: str = NOT_PRESERVED) -> None:
        """The target must not get this client: `label` for the metrics, `why` for the log."""

    def client_reset(self) -> None:
        """The client's connection was reset meanwhile."""

    def on_exception(self, error: Exception) -> None:
        """An exception that nobody expected. It costs this flow and no other."""
