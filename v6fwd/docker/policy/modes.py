"""Decides the client-ip mode of each published port, and logs what was wrong with the request.

Rules of the configuration file take precedence over labels: the file is the administrator's, the
labels may come with somebody else's compose file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from v6fwd.config.rules import Published, Rule
from v6fwd.docker.engine.containers import Container
from v6fwd.docker.policy.guards import Settings, guarded, read_guard
from v6fwd.docker.policy.labels import read_labels, refuse_misfit
from v6fwd.log import Log
from v6fwd.model import ClientIP, Endpoint, Forward, Guard, InputError, Protocol, Transparent

NEED_ALL = (ClientIP.PROXY_V1, ClientIP.PROXY_V2)
"""Modes whose servers expect a header on every connection, those of IPv4 clients included."""
_DEFAULT = "default"
_UNUSED = Transparent()
_NO_GUARD = Guard()


def needs_all(forward: Forward) -> bool:
    """Return whether IPv4 clients must come through v6fwd, too, instead of by Docker's own rule:
    their server expects a header of everybody, or not everybody may come."""
    guard = forward.guard
    restricts = bool(guard.allow or guard.deny or guard.counts_clients)
    return restricts or forward.client_ip in NEED_ALL


@dataclass(frozen=True, slots=True)
class Choice:
    """A port's mode, where it comes from in a few words, and a line for each mistake."""

    client_ip: ClientIP | None
    """None: the port is refused."""
    source: str
    errors: tuple[str, ...] = ()
    guard: Settings = ()
    """What rule and labels say of who may come; the rule's settings last."""

    @property
    def is_default(self) -> bool:
        """Whether neither a rule nor a label chose it."""
        return self.source == _DEFAULT


def choose(
    port: Published, rules: Sequence[Rule] = (), default: ClientIP = ClientIP.NONE
) -> Choice:
    """Return the mode of a port: the first rule that matches, else its labels, else `default`.

    Of who may come, a rule's settings take precedence over labels one by one.
    """
    rule = next((rule for rule in rules if rule.fits(port)), None)
    set_by_rule = rule.guard if rule is not None else ()
    read = read_guard(port.labels, port.container_port, port.protocol)
    choice = _choose_mode(port, rules, default)
    choice = replace(
        choice, errors=(*choice.errors, *read.errors), guard=(*read.settings, *set_by_rule)
    )
    decided = {name.replace("_", "-") for name, _ in set_by_rule}
    wrong = [name for name in read.wrong if name not in decided]
    return replace(choice, client_ip=None, source=f"label {wrong[0]}") if wrong else choice


def _choose_mode(port: Published, rules: Sequence[Rule], default: ClientIP) -> Choice:
    read = read_labels(port.labels)
    label = read.find(port.container_port, port.protocol)
    wanted: list[tuple[ClientIP | None, str]] = [
        (rule.client_ip, f"rule {number}")
        for number, rule in enumerate(rules, start=1)
        if rule.fits(port)
    ]
    if label is not None:
        wanted.append((label.client_ip, f"label {label.key}"))
    if not wanted:
        return Choice(default, _DEFAULT, read.errors)
    client_ip, source = wanted[0]
    try:
        if client_ip is not None:
            refuse_misfit(client_ip, port.protocol)
    except InputError as error:
        return Choice(default, _DEFAULT, (*read.errors, f"{source}: {error}"))
    return Choice(client_ip, source, read.errors)


def choose_unseen(port: Published, rules: Sequence[Rule]) -> Choice | None:
    """Return the mode of a port whose container is not known; None where that decides it.

    Only a rule decides that no rule before it can forestall: each of those before is for another
    port, or would be for any container. Of a service's tasks the service is known.
    """
    mine = (rule for rule in rules if rule.fits_port(port))
    if port.service:
        first = next((rule for rule in mine if rule.fits_service(port.service)), None)
        decides = first is not None and first.is_for_all_tasks
    else:
        first = next(mine, None)
        decides = first is not None and first.is_for_all_containers
    return choose(port, rules) if decides else None


class Modes:
    """Chooses by rules and labels. `rules`, `transparent`, `guard` may be replaced at any time."""

    def __init__(
        self, rules: Sequence[Rule], transparent: Transparent, log: Log, guard: Guard = _NO_GUARD
    ) -> None:
        self.rules = rules
        self.transparent = transparent
        self.guard = guard
        """Who may come where neither a rule nor a label says it."""
        self._log = log
        self._last: dict[tuple[Endpoint, Endpoint], ClientIP | None] = {}
        """What each port's container asked for last, by both ends; a change is logged."""
        self._logged: set[tuple[str, str]] = set()
        """Mistakes that have been logged, by container id."""

    def of(self, forward: Forward, container: Container | None) -> Forward | None:
        """Return the forward in its mode, None where it must not be served: its label is wrong,
        or the container is not known and no rule decides without it.

        Logs mistakes, and a mode that has changed.
        """
        choice = self._choose(forward, container)
        if choice is None:
            return None
        if container is not None:
            self._tell(choice, forward, container)
        return self._in_mode(forward, choice, container)

    def of_service(
        self, forward: Forward, service: str, container: Container | None = None
    ) -> Forward | None:
        """Return the forward to a service in its mode, as `of` does; logs nothing.

        Without a container only rules decide that are for all tasks of the service.
        """
        ports = forward.listen.port, forward.target.port, forward.protocol
        if container is not None:
            choice: Choice | None = choose(container.as_published(*ports), self.rules)
        else:
            choice = choose_unseen(Published(*ports, service=service), self.rules)
        return self._in_mode(forward, choice, container) if choice is not None else None

    def _in_mode(
        self, forward: Forward, choice: Choice, container: Container | None
    ) -> Forward | None:
        if choice.client_ip is None:
            return None
        transparent = self._transparent(choice.client_ip, container)
        return replace(
            forward,
            client_ip=choice.client_ip,
            transparent=transparent,
            guard=guarded(self.guard, choice.guard),
        )

    def _transparent(self, client_ip: ClientIP, container: Container | None) -> Transparent:
        """Name the container's namespace by its process: the path that the Engine has of it is
        often in another mount namespace."""
        if client_ip is not ClientIP.TRANSPARENT:
            return _UNUSED
        pid = container.pid if container is not None else 0
        return replace(self.transparent, netns=str(pid) if pid else "")

    def is_asked_for(self, forward: Forward, container: Container) -> bool:
        """Return whether a rule or a label is for this port."""
        choice = self._choose(forward, container)
        return choice is not None and not choice.is_default

    def source(self, forward: Forward, container: Container | None) -> str:
        """Return what decides a port's mode: "label v6fwd.client-ip", "rule 1", "default".

        It begins with "error: " where the port is refused for it; "" where nothing decides yet.
        """
        choice = self._choose(forward, container)
        if choice is None:
            return ""
        return choice.source if choice.client_ip is not None else f"error: {choice.source}"

    def enters(self, container: Container) -> bool:
        """Return whether any of its ports may have mode `transparent`, which needs its process."""
        whole = container.as_published(0, 0, Protocol.TCP)
        rules = (replace(rule, host_ports=None, protocol=None) for rule in self.rules)
        wanted: set[ClientIP | None] = {rule.client_ip for rule in rules if rule.fits(whole)}
        wanted |= {label.client_ip for label in read_labels(container.labels).labels}
        return ClientIP.TRANSPARENT in wanted

    def _choose(self, forward: Forward, container: Container | None) -> Choice | None:
        ports = forward.listen.port, forward.target.port, forward.protocol
        if container is None:
            return choose_unseen(Published(*ports), self.rules)
        return choose(container.as_published(*ports), self.rules)

    def keep(self, containers: Sequence[Container]) -> None:
        """Forget what was logged of containers that no longer run."""
        ids = {container.id for container in containers}
        self._logged = {(which, text) for which, text in self._logged if which in ids}
        self._last = {
            ends: mode
            for ends, mode in self._last.items()
            if any(container.publishes(Forward(*ends)) for container in containers)
        }

    def _tell(self, choice: Choice, forward: Forward, container: Container) -> None:
        """Log each mistake once, however many ports the container has."""
        for error in choice.errors:
            if (container.id, error) not in self._logged:
                self._logged.add((container.id, error))
                self._log.warning("label", f"container {container.name}: {error}")
        pair = forward.listen, forward.target
        before = self._last.get(pair, ClientIP.NONE)
        self._last[pair] = choice.client_ip
        if choice.client_ip is not before:
            mode = choice.client_ip or "refused"
            where = f"container {container.name}, {choice.source}"
            self._log.info("mode", f"{forward}: {mode} ({where})")
