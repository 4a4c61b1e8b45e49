"""A chain of v6fwd's own in a table of iptables(8).

Docker calls iptables, so it is asked here as well: its rules may be in nftables or not.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from v6fwd.docker.policy.docker_user import Rule, quoted

_TIMEOUT = 10.0  # seconds
_LEGACY_TABLES = Path("/proc/net/ip_tables_names")

Chains = Mapping[str, Sequence[Rule]]


class IptablesChain:
    """The chain, and the jump to it at the head of another one.

    Every call raises OSError, SubprocessError with the program's own words, and ValueError for
    words that cannot be read.
    """

    def __init__(self, table: str, name: str, parent: str, *jump: str) -> None:
        self._table = table
        self.name = name
        self._parent = parent
        self._jump = [*jump, "-j", name]

    def listed(self) -> str:
        """Return all rules of the table."""
        return run_iptables("-w", "-t", self._table, "-S")

    def is_in_place(self, chains: Chains) -> bool:
        """Return whether the chain and the jump are among these."""
        return self.name in chains and self._has_jump(chains)

    def write(self, rules: Sequence[str], chains: Chains) -> None:
        """Make the chain anew in one transaction, and the jump if it is not among these."""
        jump = [] if self._has_jump(chains) else [quoted(["-I", self._parent, "1", *self._jump])]
        # A chain is emptied by its line with a colon.
        lines = [f"*{self._table}", f":{self.name} - [0:0]", *rules, *jump, "COMMIT", ""]
        _run("iptables-restore", "-w", "--noflush", text="\n".join(lines))

    def remove(self, chains: Chains) -> None:
        """Remove both, as far as they are among these."""
        if self.name not in chains:
            return
        if self._has_jump(chains):
            run_iptables("-w", "-t", self._table, "-D", self._parent, *self._jump)
        run_iptables("-w", "-t", self._table, "-F", self.name)
        run_iptables("-w", "-t", self._table, "-X", self.name)

    def _has_jump(self, chains: Chains) -> bool:
        return self._jump in chains.get(self._parent, ())


def legacy_tables() -> list[str]:
    """Return the tables of iptables-legacy in this network namespace. Raises OSError."""
    try:
        return _LEGACY_TABLES.read_text().split()
    except FileNotFoundError:  # its module is not loaded
        return []


def run_iptables(*words: str) -> str:
    """Run iptables; gives what it prints. Raises OSError, and SubprocessError with its words."""
    return _run("iptables", *words)


def _run(*command: str, text: str = "") -> str:
    # Comments may be any bytes.
    done = subprocess.run(
        command, input=text, capture_output=True, text=True, errors="surrogateescape",
        timeout=_TIMEOUT, check=False,
    )  # fmt: skip
    if done.returncode:
        why = " ".join(done.stderr.split()) or f"exit status {done.returncode}"
        raise subprocess.SubprocessError(f"{command[0]}: {why}")
    return done.stdout
