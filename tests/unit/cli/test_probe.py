"""`v6fwd probe` as a command: arguments, exit statuses, and a server of a few lines."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator

import pytest
from click.testing import CliRunner, Result

from tests.support.process import free_port
from v6fwd.cli import main


def run(*words: str) -> Result:
    """Run a command line in this process."""
    return CliRunner().invoke(main, ("probe", *words), prog_name="v6fwd")


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("80",), "'80' is not an address and port"),
        (("127.0.0.1:80-81",), "is not one port"),
        (("unix:/run/x",), "is not one port"),
        (("127.0.0.1:80/sctp",), "protocol 'sctp'"),
        (("127.0.0.1:80", "--client", "example"), "'example' is not an IP address"),
        (("127.0.0.1:80", "--path", "/x y"), "printable ASCII"),
        (("127.0.0.1:80", "--host", "x\r\ny"), "printable ASCII"),
        (("127.0.0.1:80", "--speaks", "gopher"), "'gopher' is not one of"),
        (("127.0.0.1:53/udp", "--speaks", "http"), "over UDP a probe speaks DNS alone"),
        (("127.0.0.1:80", "--patience", "0"), "is not a time"),
    ],
)
def test_bad_arguments(words: tuple[str, ...], why: str) -> None:
    result = run(*words)
    assert result.exit_code == 2
    assert why in result.output


def test_nobody_listens() -> None:
    result = run(f"127.0.0.1:{free_port()}")
    assert result.exit_code == 1
    assert result.output.count("\n") == 1
    assert "connection refused" in result.output


class Server:
    """Answers every connection with what `answer` makes of its first bytes."""

    def __init__(self) -> None:
        self.got: list[bytes] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def answer(self, data: bytes) -> bytes:
        """b"" for a close."""
        return b"" if data else b"?"

    def close(self) -> None:
        """End it."""
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(10)

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(5)
                data = connection.recv(1 << 17)
                self.got.append(data)
                connection.sendall(self.answer(data))


@pytest.fixture
def server() -> Iterator[Server]:
    one = Server()
    yield one
    one.close()


def test_it_sends_nothing_but_openings(server: Server) -> None:
    """A server that closes on everything gets headers, GET, ClientHello, DNS; and few of them."""
    result = run(f"127.0.0.1:{server.port}", "--json")
    assert result.exit_code == 1
    report = json.loads(result.output)
    assert (report["mode"], report["speaks"], report["needs_attention"]) == (None, "unknown", True)
    assert len(server.got) <= 15
    payloads = {_without_header(data) for data in server.got}
    assert all(
        payload.startswith((b"GET / HTTP/1.1\r\n", b"\x16\x03\x01", b"\0\x11v6")) or not payload
        for payload in payloads
    )


def _without_header(data: bytes) -> bytes:
    if data.startswith(b"PROXY "):
        return data.partition(b"\r\n")[2]
    if data.startswith(b"\r\n\r\n\0"):
        return data[16 + int.from_bytes(data[14:16], "big") :]
    return data


def test_terminal_codes_of_a_server_stay_out(server: Server) -> None:
    server.answer = lambda data: b"HTTP/1.1 200 \x1b[2Jready: 1 forwards\r\n\r\n"  # type: ignore[method-assign] # noqa: ARG005
    result = run(f"127.0.0.1:{server.port}")
    assert "\x1b[2J" not in result.output
    assert "[2Jready" in result.output
