"""The guard of `nft`, once more, where Docker's rules are not in nftables.

`nft flush ruleset` deletes both tables of ours at once. Docker's rules go with them where iptables
is the one that writes to nftables. The older one's rules are left, and IPv4 clients would reach
the containers: there the guard is also a chain of iptables. It is in POSTROUTING of `mangle`, where
both forwarded packets and those of this host pass behind Docker's rule, and where Docker has no
rules that could come before it.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterable

from v6fwd.docker.iptables_chain import IptablesChain, run_iptables
from v6fwd.docker.nft import Element, Guarded
from v6fwd.docker.nft_watch import TableWatch
from v6fwd.docker.policy.docker_user import quoted, read_rules
from v6fwd.errors import reason
from v6fwd.log import Log

CHAIN = "V6FWD-GUARD"
_COMMENT = ("-m", "comment", "--comment", "v6fwd: not past the redirect")


class LegacyGuard:
    """The chain, kept as the redirected ports want it; nothing where iptables is not the older."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._chain = IptablesChain("mangle", CHAIN, "POSTROUTING", *_COMMENT)
        self._is_needed: bool | None = None
        """Whether iptables is the older one; None: it has not been asked."""
        self._rules: list[str] = []
        self._applied: list[str] | None = None
        """None: unknown; a crash may have left some."""
        self._watch = TableWatch([CHAIN], self.check, always=True)

    def set(self, elements: Iterable[Element]) -> None:
        """Guard these of the elements that are guarded in nftables, and nothing else."""
        self._rules = sorted(_rule(each) for each in elements if isinstance(each, Guarded))
        if self._rules != self._applied:
            self.check()
        if self._rules and self._is_needed:
            self._watch.start()
        else:
            self._watch.stop()

    def check(self) -> None:
        """Restore what another program has changed."""
        try:
            if self._is_needed is None:
                self._is_needed = _is_legacy()
            if self._is_needed:
                self._apply()
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            self._applied = None
            why = reason(error) if isinstance(error, OSError) else str(error)
            self._log.limited("guard", "guard", f"cannot guard redirected ports: {why}", burst=1)

    def close(self, *, keep: bool) -> None:
        """Change nothing more; `keep`: the chain stays."""
        if not keep:
            self.set(())
        self._watch.stop()

    def _apply(self) -> None:
        chains = read_rules(self._chain.listed())
        if not self._rules:
            self._chain.remove(chains)
        elif self._rules != self._applied or not self._chain.is_in_place(chains):
            self._chain.write(self._rules, chains)
        self._applied = self._rules


def _rule(guarded: Guarded) -> str:
    target = guarded.target
    protocol = str(target.protocol)
    words = ["-A", CHAIN, "-d", target.host, "-p", protocol, "-m", protocol]
    words += ["--dport", str(target.port), "-m", "conntrack", "--ctstate", "DNAT"]
    words += ["-m", "conntrack", "--ctstate", "NEW", "--ctorigdstport", str(guarded.port)]
    return quoted([*words, "-j", "DROP"])


def _is_legacy() -> bool:
    """Ask iptables which one it is. Raises OSError and SubprocessError."""
    try:
        return "nf_tables" not in run_iptables("-V")
    except FileNotFoundError:
        return False
