"""A TCP flow: whatever one end says, the other hears. `side` moves the bytes."""

from __future__ import annotations

from v6fwd.client_ip.proxy.read import Header
from v6fwd.model import ClientIP
from v6fwd.relay.tcp.connect import Connect
from v6fwd.relay.tcp.side import Side, join
from v6fwd.relay.tcp.stream import StreamFlow
from v6fwd.relay.tcp.unix_side import UnixSide


class TcpFlow(StreamFlow):
    """Connects at once, and passes everything on."""

    __slots__ = ()

    def identified(self, header: Header | None, rest: bytes) -> None:
        """Connect to the target; `rest` goes behind the PROXY header."""
        fd, source = self._client_fd, self._source
        self._wait = connect = Connect(self, self._forward, fd, source, header, rest)
        connect.start()

    def connected(
        self, fd: int, held: bytes, moved: int, *, watched: bool, client_ended: bool
    ) -> None:
        """Let the sides move the bytes from here on."""
        client = Side(self._client_fd, self)
        target = (UnixSide if self._forward.forward.target.path else Side)(fd, self)
        self.client, self.target = client, target
        connect, self._wait = self._wait, None
        if self._forward.forward.client_ip is ClientIP.TRANSPARENT:
            self._forward.note_shown(self._source)
        join(client, target, held, moved, watched=watched)
        client.watch()
        if self._started >= self._forward.looks.look_from:
            self._watch_answer(connect)
        if client_ended:
            client.ended = True
            if not client.blocked:
                self.ended(client)
