"""The end of a flow whose target is a unix socket."""

from __future__ import annotations

from v6fwd.relay.tcp.side import Side


class UnixSide(Side):
    """Is always read to the end.

    A read ends short behind descriptors that were sent along, though more follows
    (unix_stream_read_generic() in Linux).
    """

    __slots__ = ()

    def _move(self, *, to_end: bool) -> None:  # noqa: ARG002
        super()._move(to_end=True)

    def _move_last(self) -> None:
        self._move(to_end=True)
