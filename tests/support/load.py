"""For tests under steady load: clients that connect, exchange bytes and leave, and their echo."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections import Counter
from collections.abc import Iterator

from tests.support.process import eventually
from tests.support.relaying import echo


class Load:
    """Runs in a thread of its own. What became of clients is counted by word in `results`."""

    def __init__(self, port: int, clients: int, think: float) -> None:
        self.results: Counter[str] = Counter()
        self.target_port = 0
        self.port = port
        self._clients = clients
        self._think = think
        self._serial = 0
        self._stop = False
        self._listening = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    @contextlib.contextmanager
    def target(self) -> Iterator[None]:
        """Have the echo server while the block runs; clients come with `running`."""
        self._thread.start()
        assert self._listening.wait(10)
        try:
            yield
        finally:
            self._stop = True
            self._thread.join(30)
            assert not self._thread.is_alive()

    def some_more(self, count: int = 200) -> None:
        """Wait until `count` more clients have been served."""
        until = self.results["served"] + count
        eventually(lambda: self.results["served"] >= until, f"{count} more clients are served")

    def begin(self, port: int) -> None:
        """Let clients come to `port` from now on."""
        self.port = port

    @property
    def unhappy(self) -> dict[str, int]:
        """Whatever happened to clients but being served."""
        return {word: count for word, count in self.results.items() if word != "served"}

    async def _run(self) -> None:
        server = await asyncio.start_server(_echo, "127.0.0.1", 0, backlog=1024)
        self.target_port = server.sockets[0].getsockname()[1]
        self._listening.set()
        async with server:
            await asyncio.gather(*(self._client() for _ in range(self._clients)))

    async def _client(self) -> None:
        while not self._stop:
            if not self.port:
                await asyncio.sleep(0.01)
                continue
            self._serial += 1
            self.results[await self._visit(b"%020d" % self._serial)] += 1
            await asyncio.sleep(self._think)

    async def _visit(self, words: bytes) -> str:
        """One client's whole life, in a word."""
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_INET6) as sock:
            sock.setblocking(False)
            try:
                async with asyncio.timeout(20):
                    await loop.sock_connect(sock, ("::1", self.port))
                    await loop.sock_sendall(sock, words)
                    sock.shutdown(socket.SHUT_WR)
                    answer = b""
                    while piece := await loop.sock_recv(sock, 4096):
                        answer += piece
            except ConnectionRefusedError:
                return "refused"
            except TimeoutError:
                return "left waiting"
            except OSError:  # ENOTCONN is a reset, too, seen by shutdown
                return "reset"
        if answer == words:
            return "served"
        return "cut" if words.startswith(answer) else "corrupted"


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        await echo(reader, writer)


@contextlib.contextmanager
def loading(clients: int = 20, think: float = 0.0) -> Iterator[Load]:
    """An echo server, and clients as soon as `begin` says where."""
    load = Load(0, clients, think)
    with load.target():
        yield load
