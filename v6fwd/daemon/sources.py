"""Who opens forwards beside the configuration, and who moves the targets of configured ones."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import replace

from v6fwd.config import Docker
from v6fwd.daemon.diff import ForwardDiff
from v6fwd.daemon.supervisor import Supervisor
from v6fwd.errors import RelayError
from v6fwd.log import Log
from v6fwd.model import Endpoint, Forward
from v6fwd.model.lean import Any, Protocol
from v6fwd.relay.targets.bridges import on_bridges, tell_bridges
from v6fwd.relay.targets.source import TargetSource


class ForwardSource(Protocol):
    """Opens and closes forwards of its own, such as those of published ports."""

    async def begin(self, supervisor: Supervisor) -> None:
        """Open the forwards that exist, and from then on those that appear. Raises RelayError."""

    def endpoints(self) -> Collection[Endpoint]:
        """Return the endpoints that it serves."""

    def held(self) -> list[dict[str, str]]:
        """What it does not serve although it is asked to: `listen`, `target` and `why`."""

    def report(self) -> dict[str, list[Any]]:
        """What else `status` tells of it: lists, by key."""

    def reconfigure(self, docker: Docker) -> None:
        """Apply a configuration that was reloaded."""

    def close(self, *, succeeded: bool) -> None:
        """Stop. `succeeded`: another daemon takes over. May be called more than once."""


class EngineTargets(TargetSource, Protocol):
    """A TargetSource that asks an Engine."""

    def use(self, host: str) -> None:
        """Ask the Engine at another socket from now on."""


def passing(sources: Iterable[ForwardSource]) -> int:
    """Count the published ports whose IPv4 clients reach the container by Docker's DNAT."""
    ports = (port for source in sources for port in source.report().get("published", ()))
    return sum(port["ipv4"] == "docker" for port in ports)


class Targets:
    """Brings forwards to the addresses of their containers; without a source, nothing moves."""

    def __init__(self, source: EngineTargets | None, log: Log) -> None:
        self._source = source
        self._log = log

    async def begin(
        self, forwards: Callable[[], Iterable[Forward]], change: Callable[[Forward], None]
    ) -> None:
        """Follow containers. An Engine that cannot be asked is logged, and asked again."""
        if self._source is not None:
            try:
                await self._source.begin(forwards, change)
            except RelayError as error:
                self._log.warning("engine-lost", str(error))

    def resolved(self, diff: ForwardDiff) -> ForwardDiff:
        """The same forwards, with the addresses that containers have now."""
        if self._source is None:
            return diff
        new, changed = (map(self._source.resolved, some) for some in (diff.new, diff.changed))
        return replace(diff, new=tuple(new), changed=tuple(changed))

    def follow(self, host: str) -> None:
        """Look at the forwards again after a reload; `host` is the Engine's socket."""
        if self._source is not None:
            self._source.use(host)
            self._source.follow()

    def tell(self, forwards: Iterable[Forward]) -> None:
        """Log which targets are addresses that containers change."""
        tell_bridges(on_bridges(forwards), self._log)

    def close(self) -> None:
        """Stop."""
        if self._source is not None:
            self._source.close()
