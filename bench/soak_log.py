"""What became of flows, by the daemon's own log (log-flows): the evidence of `bench.soak`.

A worker logs a line for each flow that it ends. One that is killed logs none, and nobody else can
end its flows. So a connection that broke without a line, while a worker was killed, was that
worker's; one with a line was ended by a worker that lived, and the line says why. Ports alone do
not tell whose a connection was: the kernel gives the same port again within half a second.
"""

from __future__ import annotations

import json
import subprocess
from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

KEPT = 180.0
"""Seconds for which ends are remembered: longer than any client lives, and than two events."""
SLACK = 0.005
"""Seconds between two readings of the clock that are meant to be one: the log has milliseconds."""
_TROUBLE = {"defect", "failed", "orphaned", "worker-failed", "worker-killed", "log-dropped"}


@dataclass(frozen=True, slots=True)
class Broken:
    """A client whose connection broke. Times are seconds since 1970."""

    what: str
    ports: tuple[int, int]
    """Its own, and the daemon's."""
    began: float
    """Before it connected."""
    broke: float


@dataclass(frozen=True, slots=True)
class Ended:
    """A flow that a worker has ended."""

    began: float
    at: float
    how: str


class FlowLog:
    """The daemon's log, read as it grows."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._at = 0
        self._ended: dict[tuple[int, int], list[Ended]] = defaultdict(list)
        self.died: list[int] = []
        """Process ids of workers that have died."""
        self.trouble: list[str] = []
        """Lines that no client and no killed worker can cause."""

    def read(self) -> None:
        """Take what is new, whole lines alone, and give back the disk that it took."""
        with self._path.open("rb") as file:
            file.seek(self._at)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._at += len(whole)
        for line in whole.splitlines():
            self._take(json.loads(line))
        self._forget()
        if whole:
            punch = ["fallocate", "--punch-hole", "--offset", "0", "--length", str(self._at)]
            subprocess.run([*punch, self._path], check=False, stderr=subprocess.DEVNULL)

    def _take(self, record: dict[str, object]) -> None:
        event = record["event"]
        if event == "flow" and not str(record["listen"]).endswith("/udp"):
            at = datetime.fromisoformat(str(record["time"])).timestamp()
            began = at - float(str(record["seconds"]))
            ports = _port(record["client"]), _port(record["listen"])
            self._ended[ports].append(Ended(began, at, str(record["end"])))
        elif event == "worker-died":
            self.died.append(int(str(record["pid"])))
        elif event in _TROUBLE:
            self.trouble.append(str(record["text"]))

    def _forget(self) -> None:
        newest = max((ends[-1].at for ends in self._ended.values()), default=0.0)
        for ports, ends in list(self._ended.items()):
            if ends[-1].at < newest - KEPT:
                del self._ended[ports]

    def end_of(self, broken: Broken) -> str | None:
        """How a worker has ended this very connection; None if none has."""
        for ended in self._ended.get(broken.ports, ()):
            if broken.began - SLACK <= ended.began <= broken.broke + SLACK:
                return ended.how
        return None


def _port(address: object) -> int:
    """Of an address, or of an endpoint."""
    return int(str(address).rpartition(":")[2])
