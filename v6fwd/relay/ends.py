"""How a flow ended, and why a target could not be reached: for the log, the metrics and `status`.

The value of a member is its text in the log. The same text is the key that counters carry from a
worker to the daemon and to `v6fwd status`, where `End(text)` and `Cause(text)` find the member.
"""

from __future__ import annotations

import errno
from enum import StrEnum

from v6fwd.errors import reason
from v6fwd.model.lean import TypeVar

_E = TypeVar("_E", bound=StrEnum)

OTHER = "other"
"""The label of an end or a cause that has none of its own."""


class End(StrEnum):
    """How a flow ended. `label` is its value in the metrics."""

    text: str
    """The value as a plain str, which marshal takes; a member it does not."""
    label: str
    is_error: bool
    """Whether something went wrong that an operator may want to look into."""

    def __new__(cls, text: str, label: str, is_error: bool = False) -> End:
        """Make a member of a row below."""
        member = str.__new__(cls, text)
        member._value_ = member.text = text
        member.label = label
        member.is_error = is_error
        return member

    CLOSED = "closed", "closed"
    CLOSED_BEFORE_HEADER = "closed before a header", "closed"
    """A load balancer that tests whether a port is open."""
    CLOSED_BEFORE_REQUEST = "closed before a request", "closed"
    """Browsers open connections that they may need, and close those that they did not."""
    NO_REQUEST = "no request in time", "no-request"
    EXPIRED = "expired", "expired"
    IDLE = "idle timeout", "idle"
    TUNNEL = "tunnel timeout", "idle"
    HALF_CLOSED = "half-closed timeout", "half-closed"
    STOPPED = "stopped", "cut"
    RESET_BY_CLIENT = "reset by client", "reset-by-client"
    RESET_BY_TARGET = "reset by target", "reset-by-target"
    BANNED = "banned", "banned"
    KILLED = "ended by v6fwd flows --kill", "killed"
    DEAD_PEER = "an end acknowledges nothing", "dead-peer"
    REFUSED = "refused", "refused", True
    TARGET_FAILED = "target failed", "target-failed", True
    NO_ANSWER = "target closed without an answer", "no-answer", True
    CUT_ANSWER = "target closed in the middle of a response", "cut-answer", True
    SLOW_ANSWER = "target did not answer in time", "no-answer", True
    BAD_ANSWER = "target", "bad-answer", True
    EVICTED = "evicted", "evicted", True
    INTERNAL_ERROR = "internal error", "internal-error", True
    CUT = "cut at stop", "cut", True
    LOST = "lost with its worker", "lost", True

    def told(self, detail: str = "") -> str:
        """The text for a line in the log, with what is known besides."""
        return f"{self.text}: {detail}" if detail else self.text


class Cause(StrEnum):
    """Why a target could not be reached, by the errno of connect(2). `label` is for the metrics.

    An errno that is not here is counted by its text in the log, and its label is OTHER.
    """

    text: str
    """The value as a plain str."""
    label: str

    def __new__(cls, number: int, label: str) -> Cause:
        """Make a member of a row below."""
        words = reason(OSError(number, ""))
        member = str.__new__(cls, words)
        member._value_ = member.text = words
        member.label = label
        return member

    REFUSED = errno.ECONNREFUSED, "refused"
    TIMEOUT = errno.ETIMEDOUT, "timeout"
    RESET = errno.ECONNRESET, "reset"
    HOST_UNREACHABLE = errno.EHOSTUNREACH, "host-unreachable"
    HOST_DOWN = errno.EHOSTDOWN, "host-unreachable"
    NETWORK_UNREACHABLE = errno.ENETUNREACH, "network-unreachable"
    NO_ADDRESS = errno.EADDRNOTAVAIL, "no-address"
    FORBIDDEN = errno.EACCES, "forbidden"
    NOT_PERMITTED = errno.EPERM, "forbidden"
    NO_SOCKET = errno.ENOENT, "no-socket"
    NO_DESCRIPTOR = errno.EMFILE, "no-descriptor"
    NO_DESCRIPTOR_IN_SYSTEM = errno.ENFILE, "no-descriptor"
    NO_BUFFERS = errno.ENOBUFS, "no-memory"
    NO_MEMORY = errno.ENOMEM, "no-memory"


def end_of(text: str) -> End | None:
    """The member with this text; None if there is none, as in the counters of another version."""
    return _find(End, text)


def cause_of(text: str) -> Cause | None:
    """The member with this text; None if connect(2) failed with an errno that has no member."""
    return _find(Cause, text)


def _find(kind: type[_E], text: str) -> _E | None:
    try:
        return kind(text)
    except ValueError:
        return None
