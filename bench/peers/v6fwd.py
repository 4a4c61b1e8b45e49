"""v6fwd itself, as a user starts it."""

from __future__ import annotations

import platform
from collections.abc import Sequence

from bench import installed
from bench.peers.base import HEADER_HTTP, HEADER_OFF, HEADER_ON, TRANSPARENT, Peer, Relay, Route
from bench.processes import UDP
from bench.trial import Trial
from v6fwd import __version__
from v6fwd.demo.lab import lab_obstacle

_NAMES = {
    HEADER_OFF: "v6fwd",
    HEADER_ON: "v6fwd-proxy-v2",
    HEADER_HTTP: "v6fwd-http",
    TRANSPARENT: "v6fwd-transparent",
}
_MODES = {
    HEADER_OFF: "none",
    HEADER_ON: "proxy-v2",
    HEADER_HTTP: "x-forwarded-for",
    TRANSPARENT: "transparent",
}


class V6fwd(Peer):
    """One process, one thread."""

    product = "v6fwd"

    def __init__(self, header: str = HEADER_OFF) -> None:
        self.header = header
        self.name = _NAMES[header]

    def obstacle(self) -> str | None:
        """See Peer."""
        return lab_obstacle() if self.header == TRANSPARENT else None

    def version(self) -> str:
        """See Peer."""
        return f"{__version__} (Python {platform.python_version()})"

    def start(self, trial: Trial, routes: Sequence[Route]) -> Relay:
        """See Peer. The routes are a range: ports in a row on both sides."""
        ground = trial.ground
        listen = f"[{ground.listen_host}]:{_ports([route.listen for route in routes])}"
        listen += "/udp" if routes[0].protocol == UDP else ""
        target = f"{ground.target_host}:{_ports([route.target for route in routes])}"
        words = ["--client-ip", _MODES[self.header]]
        if self.header == TRANSPARENT:
            words += ["--target-netns", ground.target_netns]
            words += ["--pseudo-store", str(trial.folder / "pseudo.sqlite")]
        process = trial.start("host", installed.program(), "forward",
                              listen, target, *words)  # fmt: skip
        trial.wait(process, lambda: "ready: " in trial.log(process), self.name)
        return self._relay(trial, routes, [process.pid])


def _ports(ports: Sequence[int]) -> str:
    return str(ports[0]) if len(ports) == 1 else f"{ports[0]}-{ports[-1]}"
