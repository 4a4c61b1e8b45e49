"""`answers.py HOST FIRST LAST`: asks the web server behind every port, until the last answers.

Says `asking` when it begins; then, once each port has answered, the body that all gave.
A port that refuses is asked again; a wrong answer ends it with 1.
"""

from __future__ import annotations

import contextlib
import socket
import sys
import time

_TIMEOUT = 30.0
_PAUSE = 0.002


def _ask(host: str, port: int) -> str | None:
    """The body, or None where nobody listens yet."""
    with contextlib.suppress(ConnectionRefusedError):
        with socket.create_connection((host, port), _TIMEOUT) as sock:
            sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
            answer = b""
            while data := sock.recv(4096):
                answer += data
        head, _, body = answer.partition(b"\r\n\r\n")
        if b" 200 " not in head.partition(b"\r\n")[0]:
            raise SystemExit(f"port {port} answered {head[:40]!r}")
        return body.decode()
    return None


def _all(host: str, ports: range) -> set[str]:
    bodies = set()
    until = time.monotonic() + _TIMEOUT
    for port in ports:
        while (body := _ask(host, port)) is None:
            if time.monotonic() > until:
                raise SystemExit(f"port {port} did not answer in {_TIMEOUT:.0f} s")
            time.sleep(_PAUSE)
        bodies.add(body)
    return bodies


if __name__ == "__main__":
    print("asking", flush=True)
    answers = _all(sys.argv[1], range(int(sys.argv[2]), int(sys.argv[3]) + 1))
    if len(answers) != 1:
        raise SystemExit(f"the ports gave {len(answers)} different answers")
    print(answers.pop(), end="", flush=True)
