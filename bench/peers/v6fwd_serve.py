"""v6fwd as a daemon: `v6fwd serve` with worker processes."""

from __future__ import annotations

from collections.abc import Sequence

from bench import installed
from bench.peers.base import MANY_AT_ONCE, Relay, Route
from bench.peers.v6fwd import V6fwd
from bench.trial import Trial

_HEAD = """\
workers = {workers}
[control]
socket = ""
"""
_FORWARD = """\
[[forward]]
listen = "[{ground.listen_host}]:{route.listen}"
target = "{ground.target_host}:{route.target}"
"""


class V6fwdServe(V6fwd):
    """A supervisor and so many workers; beside HAProxy and nginx with as many."""

    only = MANY_AT_ONCE

    def __init__(self, workers: int) -> None:
        super().__init__()
        self.workers = workers
        self.name = f"v6fwd-serve-{workers}"

    def config(self, trial: Trial, routes: Sequence[Route]) -> str:
        """The text of v6fwd.toml."""
        blocks = [_FORWARD.format(ground=trial.ground, route=route) for route in routes]
        return _HEAD.format(workers=self.workers) + "".join(blocks)

    def start(self, trial: Trial, routes: Sequence[Route]) -> Relay:
        """See Peer."""
        path = trial.write("v6fwd.toml", self.config(trial, routes))
        process = trial.start("host", installed.program(), "serve", "-c", path)
        trial.wait(process, lambda: "ready: " in trial.log(process), self.name)
        return self._relay(trial, routes, [process.pid])
