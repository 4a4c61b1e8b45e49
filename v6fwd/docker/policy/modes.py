"""Which mode each published port has, and what was wrong with what was said about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from v6fwd.config.rules import Published, Rule
from v6fwd.docker.engine.containers import Container
from v6fwd.docker.policy.labels import read_labels
from v6fwd.docker.policy.rules import Choice, choose
from v6fwd.log import Log
from v6fwd.model import ClientIP, Endpoint, Forward, Protocol, Transparent

NEED_ALL = (ClientIP.PROXY_V1, ClientIP.PROXY_V2)
"""The modes whose servers expect a header from everybody, IPv4 clients included."""
_UNUSED = Transparent()
_Known = tuple[ClientIP, Transparent]


class Modes:
    """By rules and labels; `rules` and `transparent` may be replaced at any time."""

    def __init__(self, rules: Sequence[Rule], transparent: Transparent, log: Log) -> None:
        self.rules = rules
        self.transparent = transparent
        self._log = log
        self._known: dict[tuple[Endpoint, Endpoint], _Known] = {}
        self._told: set[tuple[str, str]] = set()

    def of(self, forward: Forward, container: Container | None) -> Forward:
        """The forward in its mode."""
        choice = self._choose(forward, container)
        how = self._how(choice.client_ip, container)
        if container is not None:
            self._tell(choice, forward, container)
            self._known[forward.listen, forward.target] = choice.client_ip, how
        return replace(forward, client_ip=choice.client_ip, transparent=how)

    def _how(self, client_ip: ClientIP, container: Container | None) -> Transparent:
        """How mode `transparent` does it: by a process, as the path that the Engine has of
        the namespace is often in a mount namespace of its own."""
        if client_ip is not ClientIP.TRANSPARENT:
            return _UNUSED
        pid = container.pid if container is not None else 0
        return replace(self.transparent, netns=str(pid) if pid else "")

    def is_asked_for(self, forward: Forward, container: Container) -> bool:
        """Whether a rule or a label says anything of this port."""
        return not self._choose(forward, container).is_default

    def enters(self, container: Container) -> bool:
        """Whether any of its ports may have mode `transparent`: then its process must be known."""
        whole = container.as_published(0, 0, Protocol.TCP)
        rules = (replace(rule, host_ports=None, protocol=None) for rule in self.rules)
        wanted = {rule.client_ip for rule in rules if rule.fits(whole)}
        wanted |= {label.client_ip for label in read_labels(container.labels).labels}
        return ClientIP.TRANSPARENT in wanted

    def _choose(self, forward: Forward, container: Container | None) -> Choice:
        ports = forward.listen.port, forward.target.port, forward.protocol
        if container is None:
            return choose(Published(*ports), self.rules)
        return choose(container.as_published(*ports), self.rules)

    def remembered(self, forward: Forward) -> Forward | None:
        """The forward in the mode that it had last, for as long as the Engine cannot be asked."""
        known = self._known.get((forward.listen, forward.target))
        return known and replace(forward, client_ip=known[0], transparent=known[1])

    def keep(self, containers: Sequence[Container]) -> None:
        """Forget what was known of containers that run no more."""
        ids = {container.id for container in containers}
        self._told = {(which, text) for which, text in self._told if which in ids}
        hosts = {host for each in containers for host in each.hosts}
        self._known = {pair: mode for pair, mode in self._known.items() if pair[1].host in hosts}

    def _tell(self, choice: Choice, forward: Forward, container: Container) -> None:
        """One line for each mistake, however many ports the container has."""
        for error in choice.errors:
            if (container.id, error) not in self._told:
                self._told.add((container.id, error))
                self._log.warning("label", f"container {container.name}: {error}")
        before, _ = self._known.get((forward.listen, forward.target), (ClientIP.NONE, _UNUSED))
        if choice.client_ip is not before:
            where = f"container {container.name}, {choice.source}"
            self._log.info("mode", f"{forward}: {choice.client_ip} ({where})")
