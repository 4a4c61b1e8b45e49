"""Sides that let a native module pass usual messages on, where it was built.

It takes the place of `os.read`, `quick` and `os.write` for a whole message without a body of its
own: three steps of Python in place of some fifteen. Everything else goes the way of RequestSide
and ResponseSide, which are complete without it.
"""

from __future__ import annotations

import os
import select

from v6fwd.client_ip.http.syntax import Kind
from v6fwd.relay.http.request_side import RequestSide
from v6fwd.relay.http.response_side import ResponseSide
from v6fwd.relay.http.side import HttpSide
from v6fwd.relay.pairs.native import PURE

try:
    from v6fwd.relay.http import _pass as _module
except ImportError:  # no compiler
    _module = None  # type: ignore[assignment]
else:
    pass_request, pass_response = _module.pass_request, _module.pass_response

_IN = select.EPOLLIN
_PLAIN = Kind.PLAIN  # an enum's members are slow to look up

Sides = tuple[type[RequestSide], type[ResponseSide]]


class _Native(HttpSide):
    """What becomes of a message that was not passed on as a whole."""

    __slots__ = ()

    def hold_rest(self, sent: int, rest: bytes) -> None:
        """Hold what the other side did not take; with `sent` < 0 its connection broke."""
        if sent < 0:
            self.flow.broke(self.other)
            return
        self.moved += sent
        self.held = rest
        self._block()


class NativeRequestSide(_Native, RequestSide):
    """Passes a usual request on in one call."""

    __slots__ = ()

    def on_event(self, mask: int) -> None:
        known = self.stream.known
        if (
            known is None
            or mask != _IN
            or self.blocked
            or self.queued
            or self.ended
            or not self.usual
        ):
            super().on_event(mask)
            return
        try:
            passed = pass_request(self.fd, self.other.fd, known)
        except OSError:
            self.flow.broke(self)
            return
        if isinstance(passed, bytes):
            self.came(passed)
        elif passed:
            if not self.exchange.began(_PLAIN):
                self.http.pause_requests()
            if isinstance(passed, int):
                self.moved += passed
            else:
                self.hold_rest(*passed)


class NativeResponseSide(_Native, ResponseSide):
    """Passes a usual response on in one call."""

    __slots__ = ()

    def on_event(self, mask: int) -> None:
        if (
            mask != _IN
            or self.blocked
            or self.queued
            or self.ended
            or not (self.usual and self.stream.awaits_usual())
        ):
            super().on_event(mask)
            return
        try:
            passed = pass_response(self.fd, self.other.fd)
        except OSError:
            self.flow.broke(self)
            return
        if isinstance(passed, bytes):
            self.came(passed)
        elif passed:
            self.stream.answered()
            if isinstance(passed, int):
                self.moved += passed
            else:
                self.hold_rest(*passed)
            if self.http.attends and not self.flow.closed:
                self.http.answers_moved()


def is_native() -> bool:
    """Whether there is such a module, to be used."""
    return _module is not None and not os.environ.get(PURE)


def sides() -> Sides:
    """The classes of both ends of an HTTP flow."""
    return (NativeRequestSide, NativeResponseSide) if is_native() else (RequestSide, ResponseSide)
