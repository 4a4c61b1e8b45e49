"""Keeps DOCKER-USER's verdict on the packets of ports whose IPv4 clients are redirected.

A chain of v6fwd's own in INPUT has what `policy.docker_user` makes of DOCKER-USER for each of these
ports. Where it cannot tell what a rule means there, IPv4 clients of the port are dropped: a label
about headers must not open a port that is blocked.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterable

from v6fwd.docker.nft_watch import TableWatch
from v6fwd.docker.policy.docker_user import (
    USER_CHAIN,
    UntranslatableError,
    quoted,
    read_rules,
    translate,
)
from v6fwd.errors import reason
from v6fwd.log import Log
from v6fwd.model import Forward

CHAIN = "V6FWD-USER"
_JUMP = ["!", "-i", "lo", "-m", "comment", "--comment", "v6fwd: as DOCKER-USER", "-j", CHAIN]
_TIMEOUT = 10.0  # seconds


class DockerUser:
    """The chain, kept as DOCKER-USER and the redirected ports want it.

    Docker calls iptables(8), so it is asked here: its rules may be in nftables or not.
    """

    def __init__(self, log: Log) -> None:
        self._log = log
        self._forwards: frozenset[Forward] = frozenset()
        """Whose IPv4 clients are redirected."""
        self._listing: str | None = None
        """What iptables printed last; None: it is to be asked again."""
        self._applied: list[str] | None = None
        """The rules of the chain, as they were applied; None: unknown."""
        self._watch = TableWatch([USER_CHAIN, "INPUT", CHAIN], self.check, always=True)

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
        self._listing = None
        self._apply()

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
            chains = read_rules(self._list())
            rules = self._rules(chains)
            has_jump = _JUMP in chains.get("INPUT", ())
            is_there = CHAIN in chains
            if rules and (rules != self._applied or not has_jump or not is_there):
                self._write(rules, has_jump=has_jump)
            elif not rules and is_there:
                self._remove(has_jump=has_jump)
            self._applied = rules
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            self._applied = None
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
        """All rules of the table; none where there is no iptables, and so none of Docker's."""
        if self._listing is None:
            try:
                self._listing = _run("iptables", "-w", "-S")
            except FileNotFoundError:
                self._listing = ""
        return self._listing

    def _write(self, rules: list[str], *, has_jump: bool) -> None:
        """In one transaction. The chain is made anew by its line with a colon."""
        jump = [] if has_jump else [quoted(["-I", "INPUT", "1", *_JUMP])]
        lines = ["*filter", f":{CHAIN} - [0:0]", *rules, *jump, "COMMIT", ""]
        _run("iptables-restore", "-w", "--noflush", text="\n".join(lines))
        self._listing = None

    def _remove(self, *, has_jump: bool) -> None:
        if has_jump:
            _run("iptables", "-w", "-D", "INPUT", *_JUMP)
        _run("iptables", "-w", "-F", CHAIN)
        _run("iptables", "-w", "-X", CHAIN)
        self._listing = None

    def _warn(self, why: str) -> None:
        if self._forwards:
            text = f"{USER_CHAIN} does not judge redirected IPv4 clients: {why}"
            self._log.limited("docker-user", "docker-user", text, burst=1)

    def _warn_blocked(self, forward: Forward, rule: str) -> None:
        text = (
            f"{forward.listen}: IPv4 clients are dropped, as v6fwd cannot tell what this rule of"
            f" {USER_CHAIN} means for them: {rule}"
        )
        self._log.limited("docker-user-blocked", "docker-user", text)


def _run(*command: str, text: str = "") -> str:
    """Raises OSError, and SubprocessError with the program's own words."""
    done = subprocess.run(
        command, input=text, capture_output=True, text=True, timeout=_TIMEOUT, check=False
    )
    if done.returncode:
        why = " ".join(done.stderr.split()) or f"exit status {done.returncode}"
        raise subprocess.SubprocessError(f"{command[0]}: {why}")
    return done.stdout
