"""For tests of the Docker controller in the test's own event loop: real shims, an Engine of ours.

The Engine answers what it is told. The supervisor has no workers: what it would serve is in
`served`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support.fake_engine import HEAD, FakeEngine, hangs, says
from tests.support.logged import Logged
from tests.support.process import PATIENCE
from tests.support.shim import Shim
from v6fwd.config import Docker
from v6fwd.config.rules import Rule
from v6fwd.daemon.supervisor import Supervisor
from v6fwd.docker.controller import Controller
from v6fwd.model import Limits, Protocol

TARGET = ("127.0.0.1", 9)


def container(
    which: str,
    port: int,
    label: str = "",
    *,
    address: str = TARGET[0],
    network: str = "bridge",
    target: int = TARGET[1],
) -> dict[str, Any]:
    """One in the Engine's list, which publishes a port."""
    ports = {"PrivatePort": target, "PublicPort": port, "Type": "tcp"}
    return {
        "Id": which * 64,
        "Names": [f"/name-{which}"],
        "Image": "httpd",
        "State": "running",
        "Labels": {"v6fwd.client-ip": label} if label else {},
        "Ports": [{"IP": host, **ports} for host in ("0.0.0.0", "::")] if port else [],
        "NetworkSettings": {"Networks": {network: {"IPAddress": address}}},
    }


class Controlled:
    """One daemon after the other, in one run folder."""

    def __init__(self, folder: Path) -> None:
        self.run_folder = folder / "run"
        self.engine = FakeEngine(folder / "engine.sock")
        self.logged = Logged()

    async def begin(self, *rules: Rule) -> None:
        """Start a daemon."""
        self.supervisor = Supervisor(1, Limits(), self.logged.log)
        self.controller = Controller(Docker(self.engine.host, rules), Limits(), self.logged.log)
        await self.controller.begin(self.supervisor)

    def end(self) -> None:
        """Stop it, as SIGTERM does."""
        self.controller.close(succeeded=False)
        self.supervisor.listen_sockets.close_all()

    def tell(self, *containers: dict[str, Any]) -> None:
        """Have the Engine list these, and tell that something has changed."""
        self.engine.containers = says(HEAD + json.dumps(containers).encode())
        self.engine.tell()

    def silence(self) -> None:
        """Have the Engine accept connections, and answer nothing."""
        self.engine.containers = self.engine.events = hangs

    def publish(self, shim: Shim, port: int, *, host: str = "::") -> None:
        """Start a shim as dockerd does, without a socket of its own."""
        environment = {"V6FWD_RUN_DIR": str(self.run_folder), "V6FWD_SHIM_PATIENCE": "600"}
        shim.proxy(Protocol.TCP, host, port, TARGET, environment=environment)

    async def adopted(self, shim: Shim, port: int, *, host: str = "::") -> None:
        """Start a shim, and wait until its port is adopted: dockerd starts the container then."""
        self.publish(shim, port, host=host)
        await self.until(shim.has_answered)

    async def until(self, condition: Callable[[], object]) -> None:
        """Let others go on until it is so."""
        async with asyncio.timeout(PATIENCE):
            while not condition():  # noqa: ASYNC110 - others do not know what we wait for
                await asyncio.sleep(0.001)

    @property
    def served(self) -> dict[str, str]:
        """The mode of each forward."""
        forwards = self.supervisor.forwards.values()
        return {str(forward.listen): str(forward.client_ip) for forward in forwards}

    @property
    def held(self) -> dict[str, str]:
        """Why each of the others is not served."""
        return {each["listen"]: each["why"] for each in self.controller.held()}
