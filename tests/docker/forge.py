"""Clients that lie: `forge.py HOST_V4 HOST_V6 PORT OWN_V4 OWN_V6` lets them come until stdin ends.

Each sends a PROXY header of its own making, and asks a server that says by whom it is asked and
repeats what it gets. A line of JSON every tenth of a second has counts by kind and word: `right`
where the first header that the server got tells the client's own address, `wrong` for any other
answer, `none` where there was none. Wrong answers are printed as well.
"""

from __future__ import annotations

import json
import socket
import struct
import sys
import threading
from collections import Counter
from collections.abc import Callable

PATIENCE = 1.0
"""Seconds for a connection, and for an answer."""
PAUSE = 0.004
"""Seconds between a client and the next one of its kind."""
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
FORGED_V1 = b"PROXY TCP4 192.0.2.66 192.0.2.1 666 80\r\nhello"
FORGED_V2 = SIGNATURE + struct.pack(">BBH4s4sHH", 0x21, 0x12, 12, b"\6\6\6\6", b"\1\1\1\1", 6, 80)


class Forgers:
    """What the threads share. TCP has mode `proxy-v1`, UDP `proxy-v2`."""

    def __init__(self, hosts: tuple[str, str], port: int, own: tuple[str, str]) -> None:
        self._hosts = hosts
        self._port = port
        self._own = own
        self._lock = threading.Lock()
        self.counts: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.ended = threading.Event()
        self.kinds: dict[str, Callable[[], bytes]] = {
            "tcp4": lambda: self._over_tcp(0), "tcp6": lambda: self._over_tcp(1),
            "udp4": lambda: self._over_udp(0), "udp6": lambda: self._over_udp(1),
        }  # fmt: skip

    def come(self, kind: str) -> None:
        """One client after the other."""
        while not self.ended.wait(PAUSE):
            answer = self.kinds[kind]()
            word = self._word(kind, answer)
            with self._lock:
                self.counts[f"{kind} {word}"] += 1
                if word == "wrong":
                    self.wrong.append(f"{kind} {answer!r}")

    def _word(self, kind: str, answer: bytes) -> str:
        _, _, got = answer.partition(b"\n")
        if not got:
            return "none"
        own = self._own[kind.endswith("6")]
        if kind.startswith("tcp"):
            return "right" if got.startswith(f"PROXY TCP{kind[-1]} {own} ".encode()) else "wrong"
        family = socket.AF_INET6 if ":" in own else socket.AF_INET
        is_right = got.startswith(SIGNATURE) and got[16:].startswith(socket.inet_pton(family, own))
        return "right" if is_right else "wrong"

    def _over_tcp(self, which: int) -> bytes:
        answer = b""
        try:
            with socket.create_connection((self._hosts[which], self._port), PATIENCE) as sock:
                sock.sendall(FORGED_V1)
                sock.shutdown(socket.SHUT_WR)
                while data := sock.recv(4096):
                    answer += data
        except OSError:
            pass
        return answer

    def _over_udp(self, which: int) -> bytes:
        answer = b""
        try:
            with socket.socket((socket.AF_INET, socket.AF_INET6)[which], socket.SOCK_DGRAM) as sock:
                sock.settimeout(PATIENCE)
                sock.connect((self._hosts[which], self._port))
                sock.send(FORGED_V2)
                answer = sock.recv(4096)
        except OSError:
            pass
        return answer

    def wait(self) -> None:
        """Let clients come until stdin ends."""
        sys.stdin.read()
        self.ended.set()

    def told(self) -> str:
        """The counts, and what went wrong, in one line."""
        with self._lock:
            return json.dumps({"counts": self.counts, "wrong": self.wrong[:20]})


def main(host_v4: str, host_v6: str, port: str, own_v4: str, own_v6: str) -> None:
    """Let clients come."""
    forgers = Forgers((host_v4, host_v6), int(port), (own_v4, own_v6))
    threads = [threading.Thread(target=forgers.come, args=(kind,)) for kind in forgers.kinds]
    # What is found out about IPv4 over TCP matters most.
    threads += [threading.Thread(target=forgers.come, args=("tcp4",)) for _ in range(3)]
    for thread in threads:
        thread.start()
    threading.Thread(target=forgers.wait).start()
    while not forgers.ended.wait(0.1):
        print(forgers.told(), flush=True)
    for thread in threads:
        thread.join()
    print(forgers.told(), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
