"""Steady load: `load.py HOST PORT` has clients come until its stdin ends.

A line on stdout for every 50 that were served; the last one has a count of everything, as JSON.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
from collections import Counter

CLIENTS = 4
PATIENCE = 20.0
EVERY = 50


class Load:
    """What its threads share."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.results: Counter[str] = Counter()
        self.ended = threading.Event()
        self._address = address
        self._lock = threading.Lock()

    def come(self) -> None:
        """One client after the other."""
        while not self.ended.wait(0.005):
            word = self._ask()
            with self._lock:
                self.results[word] += 1
                if word == "served" and self.results[word] % EVERY == 0:
                    print(self.results[word], flush=True)

    def _ask(self) -> str:
        try:
            with socket.create_connection(self._address, PATIENCE) as sock:
                sock.sendall(b"hello")
                sock.shutdown(socket.SHUT_WR)
                answer = b"".join(iter(lambda: sock.recv(4096), b""))
        except OSError as error:
            return type(error).__name__
        return "served" if answer.endswith(b"hello") else f"answer {answer!r}"


def main(host: str, port: str) -> None:
    """Let clients come."""
    load = Load((host, int(port)))
    threads = [threading.Thread(target=load.come) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    sys.stdin.read()
    load.ended.set()
    for thread in threads:
        thread.join()
    print(json.dumps(load.results), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
