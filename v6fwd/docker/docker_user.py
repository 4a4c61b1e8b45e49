"""Keeps DOCKER-USER's verdict on the packets of ports whose IPv4 clients are redirected.

A chain of v6fwd's own in INPUT has what `policy.docker_user` makes of DOCKER-USER for each of these
ports. Where it cannot tell what a rule means there, IPv4 clients of the port are dropped: a label
about headers must not open a port that is blocked. For the same reason ports are `unjudged` whose
rules cannot be read or written, as iptables cannot be run; they must not be redirected.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterable

from v6fwd.docker.iptables_chain import IptablesChain, legacy_tables
from v6fwd.docker.nft import has_chain
from v6fwd.docker.nft_watch import TableWatch
from v6fwd.docker.policy.docker_user import (
    USER_CHAIN,
    UntranslatableError,
    quoted,
    read_rules,
    translate,
)
from v6fwd.errors import RelayError, reason
from v6fwd.log import Log
from v6fwd.model import Forward

CHAIN = "V6FWD-USER"
_WHICH = ("!", "-i", "lo", "-m", "comment", "--comment", "v6fwd: as DOCKER-USER")

_NAMED = 3
"""Ports that one line of the log names."""


class DockerUser:
    """The chain, kept as DOCKER-USER and the redirected ports want it."""

    def __init__(self, log: Log, changed: Callable[[], None] = lambda: None) -> None:
        """`changed` is called when `unjudged` has changed, but for a call of `set`."""
        self._log = log
        self._changed = changed
        self._chain = IptablesChain("filter", CHAIN, "INPUT", *_WHICH)
        self._forwards: frozenset[Forward] = frozenset()
        """Whose IPv4 clients are redirected."""
        self._judged: frozenset[Forward] = frozenset()
        """For whom the chain has what DOCKER-USER wants."""
        self._listing: str | None = None
        """What iptables printed last; None: it is to be asked again."""
        self._applied: list[str] | None = None
        """The rules of the chain, as they were applied; None: unknown."""
        self._watch = TableWatch([USER_CHAIN, "INPUT", CHAIN], self.check, always=True)

    @property
    def unjudged(self) -> frozenset[Forward]:
        """Those of the ports whose redirected packets would pass whatever DOCKER-USER says."""
        return self._forwards - self._judged

    def set(self, forwards: Iterable[Forward]) -> None:
        """Judge the redirected packets of these ports as DOCKER-USER does."""
        self._forwards = frozenset(forwards)
        if self._forwards:
            self._watch.start()
        else:
            self._watch.stop()
            self._listing = None
        self._apply()

    def check(self) -> None:
        """Look at what others have changed."""
        before = self.unjudged
        self._listing = None
        self._apply()
        if self.unjudged != before:
            self._changed()

    def close(self, *, keep: bool) -> None:
        """Change nothing more; `keep`: the chain stays."""
        if keep:
            self._watch.stop()
        else:
            self.set(())

    def _apply(self) -> None:
        if not self._forwards and self._applied == []:
            return
        try:
            self._bring()
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            self._failed(error)
        else:
            self._judged = self._forwards

    def _bring(self) -> None:
        """Write or remove the chain. Raises what IptablesChain does."""
        chains = read_rules(self._list())
        rules = self._rules(chains)
        if rules and (rules != self._applied or not self._chain.is_in_place(chains)):
            self._chain.write(rules, chains)
            self._listing = None
        elif not rules and CHAIN in chains:
            self._chain.remove(chains)
            self._listing = None
        self._applied = rules

    def _failed(self, error: Exception) -> None:
        self._applied = None
        if not self._forwards:
            if isinstance(error, FileNotFoundError):
                self._applied = []  # without iptables nothing of ours can be there
            return
        if not _has_user_chain():
            self._judged = self._forwards
            return
        if not isinstance(error, subprocess.TimeoutExpired):  # the chain is as it was
            self._judged = frozenset()
        self._warn(reason(error) if isinstance(error, OSError) else str(error))

    def _rules(self, chains: dict[str, list[list[str]]]) -> list[str]:
        found = []
        for forward in sorted(self._forwards, key=str):
            listen = forward.listen
            port = ["-p", str(forward.protocol), "-m", str(forward.protocol)]
            port += ["--dport", str(listen.port)]
            if listen.host != "0.0.0.0":
                port += ["-d", listen.host]
            try:
                rules = translate(chains, forward)
            except UntranslatableError as error:
                self._warn_blocked(forward, str(error))
                rules = [["-j", "DROP"]]
            found += [quoted(["-A", CHAIN, *port, *rule]) for rule in rules]
        return found

    def _list(self) -> str:
        if self._listing is None:
            self._listing = self._chain.listed()
        return self._listing

    def _warn(self, why: str) -> None:
        ports = sorted(str(forward.listen) for forward in self.unjudged)
        if ports:
            more = f" and {len(ports) - _NAMED} more ports" if len(ports) > _NAMED else ""
            text = (
                f"{', '.join(ports[:_NAMED])}{more}: IPv4 clients are dropped, as the rules of"
                f" {USER_CHAIN} cannot be kept for them: {why}; v6fwd needs the command iptables"
                " and CAP_NET_ADMIN"
            )
        else:
            text = f"changes of {USER_CHAIN} are not followed for redirected IPv4 clients: {why}"
        self._log.limited("docker-user", "docker-user", text, burst=1)

    def _warn_blocked(self, forward: Forward, rule: str) -> None:
        text = (
            f"{forward.listen}: IPv4 clients are dropped, as v6fwd cannot tell what this rule of"
            f" {USER_CHAIN} means for them: {rule}"
        )
        self._log.limited("docker-user-blocked", "docker-user", text)


def _has_user_chain() -> bool:
    """Whether DOCKER-USER is there, or may be: Docker makes none with `"iptables": false`."""
    try:
        return has_chain(USER_CHAIN) or "filter" in legacy_tables()
    except (OSError, RelayError):
        return True
