"""For tests of a daemon on a lab's host: clients and container have namespaces of their own."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

from tests.support.daemon import ServeProcess
from tests.support.inside import TCP, client, in_place, plain, server
from tests.support.process import PATIENCE
from v6fwd.demo.lab import CLIENT_V4, CLIENT_V6, CONTAINER_V4, HOST_V4, HOST_V6, Lab

PORT = 8080
DIALLED = {CLIENT_V6: HOST_V6, CLIENT_V4: HOST_V4}
TARGET = (f"[::]:{PORT}/tcp+udp", f"{CONTAINER_V4}:80")


class Scene:
    """A lab, a daemon on its host, and sockets that end with them."""

    def __init__(self, lab: Lab, daemon: ServeProcess, folder: Path) -> None:
        self.lab = lab
        self.daemon = daemon
        self.store = str(folder / "pseudo.sqlite")
        self._open: list[socket.socket] = []

    def configure(
        self, mode: str = "transparent", *, more: str = "", pairs: Any = (TARGET,)
    ) -> None:
        """Write a configuration whose forwards are all in this mode."""
        self.daemon.configure(*pairs, more=more)
        keys = {"client-ip": mode}
        if mode == "transparent":
            keys |= {"target-netns": self.lab.namespace("container"), "pseudo-store": self.store}
        with self.daemon.config.open("a") as file:
            file.write("\n[defaults]\n")
            file.writelines(f'{key} = "{value}"\n' for key, value in keys.items())

    def run(self) -> None:
        """Start the daemon on the host."""
        self.daemon.run(prefix=self.lab.command("host"))

    def server(self, address: str, kind: int = TCP) -> Any:
        """A server on port 80 of the container."""
        return self.keep(server(self.lab, address, 80, kind))

    def client(self, source: str = CLIENT_V6, kind: int = TCP) -> socket.socket:
        """Somebody who has connected to the daemon."""
        own = (source, 0)
        return self.keep(client(self.lab, "client", DIALLED[source], PORT, source=own, kind=kind))

    def keep(self, one: socket.socket) -> socket.socket:
        """Close a socket at the end."""
        one.settimeout(PATIENCE)
        self._open.append(one)
        return one

    def connected(self, target: Any, source: str = CLIENT_V6) -> tuple[Any, Any, str]:
        """A flow: the client, the target's end, and whom the target sees."""
        one = self.client(source)
        accepted, address = target.accept()
        self.keep(accepted)
        one.sendall(b"question")
        assert accepted.recv(100) == b"question"
        accepted.sendall(b"answer")
        assert one.recv(100) == b"answer"
        return one, accepted, plain(address)[0]

    def close(self) -> None:
        """End all sockets."""
        for one in self._open:
            one.close()

    def has_rules(self) -> bool:
        """Whether anything of ours is in the container."""
        return "proto 118" in in_place(self.lab)["rules"]
