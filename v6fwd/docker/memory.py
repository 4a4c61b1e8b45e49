"""Remembers over a restart of the daemon which container each living shim belongs to.

An Engine that is silent cannot be asked, and a port whose mode is not known is not served. A shim
lives exactly as long as its container publishes the port, so what was learnt of the container holds
for as long as the shim is the same process. The file is void after a reboot, as process ids are.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from v6fwd.docker.engine.containers import Container, HostPort
from v6fwd.docker.policy.guards import PREFIX
from v6fwd.docker.shim.process import NoShimError, Shim, start_time
from v6fwd.errors import reason
from v6fwd.folder import TrustedFolder
from v6fwd.log import Log
from v6fwd.model import Protocol

NAME = "docker-ports.json"
MAX_SIZE = 16 << 20
"""Bytes that are read: thousands of ports with a label or two."""
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Memory:
    """Containers by shim. Failing to read or write is logged, and costs the memory alone."""

    def __init__(self, folder: Path, log: Log) -> None:
        self._folder = folder
        self._log = log
        self._boot = BOOT_ID.read_text().strip()
        self._known: dict[str, Container] = {}
        """By shim, as process id and start time."""

    def load(self) -> None:
        """Read what a former daemon knew, as far as it is of this boot."""
        if not (self._folder / NAME).exists():
            return
        try:
            with TrustedFolder(self._folder) as folder:
                content = json.loads(folder.read(NAME, MAX_SIZE))
            if content.get("boot") == self._boot:
                self._known = {key: _container(each) for key, each in content["shims"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            why = reason(error) if isinstance(error, OSError) else repr(error)
            self._warn(f"cannot use {self._folder / NAME}: {why}")

    def container_of(self, shim: Shim) -> Container | None:
        """Return what is known of a shim's container; None where its process is another one."""
        container = self._known.get(_key(shim))
        if container is None or (container.pid and not _lives(container)):
            return None
        return container

    def keep(self, known: Mapping[Shim, Container]) -> None:
        """Remember these, and nothing else; writes what has changed."""
        fresh = {_key(shim): _with_own_labels(container) for shim, container in known.items()}
        fresh.pop("", None)
        if fresh == self._known:
            return
        self._known = fresh
        shims = {key: _plain(container) for key, container in fresh.items()}
        try:
            with TrustedFolder(self._folder) as folder:
                folder.write(NAME, json.dumps({"boot": self._boot, "shims": shims}).encode())
        except OSError as error:
            self._warn(f"cannot write {self._folder / NAME}: {reason(error)}")

    def _warn(self, why: str) -> None:
        text = f"{why}; after a restart, ports wait until Docker answers"
        self._log.limited("docker-state", "not-remembered", text, burst=1)


def _key(shim: Shim) -> str:
    return f"{shim.pid} {shim.started}" if shim.started else ""


def _lives(container: Container) -> bool:
    try:
        return start_time(container.pid) == container.started
    except NoShimError:
        return False


def _with_own_labels(container: Container) -> Container:
    """Leave out the labels of other programs, which may be long, and may be secrets."""
    labels = {key: text for key, text in container.labels.items() if key.startswith(PREFIX)}
    return replace(container, labels=labels)


def _plain(container: Container) -> dict[str, Any]:
    ports = [[*port] for port in sorted(container.ports)]
    return {**asdict(container), "ports": ports}


def _container(plain: dict[str, Any]) -> Container:
    """Raises KeyError, TypeError or ValueError for what `_plain` has not written."""
    addresses = {name: tuple(some) for name, some in plain["addresses"].items()}
    ports = frozenset(
        HostPort(host, int(port), int(target), Protocol(protocol))
        for host, port, target, protocol in plain["ports"]
    )
    return Container(**{**plain, "addresses": addresses, "ports": ports})
