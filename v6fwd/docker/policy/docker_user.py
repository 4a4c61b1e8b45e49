"""Translates DOCKER-USER's rules for packets that come to v6fwd instead of a container. Pure.

Docker sends the packets of a published port through FORWARD, where it asks DOCKER-USER, with the
container's address and port. Redirected packets go through INPUT, with the host's. What a rule says
of the destination is therefore decided here, for one port; what it says of the source holds in
both places, and so do the chains that it jumps to, as long as they say nothing of the destination.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from ipaddress import ip_address, ip_network

from v6fwd.model import Forward

USER_CHAIN = "DOCKER-USER"
Rule = list[str]

_VERDICTS = ("ACCEPT", "DROP", "REJECT", "RETURN")
_KEPT = {
    "-s": 1, "-i": 1, "--src-range": 1, "--sport": 1, "--sports": 1, "--ctstate": 1, "--state": 1,
    "--ctorigdst": 1, "--ctorigdstport": 1, "--ctorigsrc": 1, "--ctdir": 1, "--comment": 1,
    "--src-cc": 1, "--source-country": 1, "--limit": 1, "--limit-burst": 1, "--reject-with": 1,
    "--log-prefix": 1, "--log-level": 1, "--src-type": 1, "--tcp-flags": 2, "--syn": 0,
}  # fmt: skip
"""Options whose meaning is the same in INPUT, and how many words follow."""
_MODULES = (
    "addrtype", "comment", "conntrack", "geoip", "iprange", "limit", "multiport", "set", "state",
    "tcp", "udp",
)  # fmt: skip


class UntranslatableError(Exception):
    """A rule whose meaning in INPUT is not known; the text is the rule."""


def read_rules(listing: str) -> dict[str, list[Rule]]:
    """Read what `iptables -S` prints: the rules of each chain, without its name.

    Raises ValueError.
    """
    chains: dict[str, list[Rule]] = {}
    for line in listing.splitlines():
        words = shlex.split(line)
        if len(words) == 1:
            raise ValueError(f"iptables prints {line[:60]!r}, without a chain")
        if words[:1] in (["-N"], ["-P"]):
            chains.setdefault(words[1], [])
        elif words[:1] == ["-A"]:
            chains.setdefault(words[1], []).append(words[2:])
    return chains


def translate(chains: Mapping[str, Sequence[Rule]], forward: Forward) -> list[Rule]:
    """Return DOCKER-USER's rules as they are for one port's redirected packets.

    Raises UntranslatableError.
    """
    found = []
    for rule in chains.get(USER_CHAIN, ()):
        kept = _translated(rule, forward, chains)
        if kept is not None and kept != ["-j", "RETURN"]:
            found.append(kept)
        elif kept is not None:
            break  # what follows is not reached
    return found


def _translated(rule: Rule, forward: Forward, chains: Mapping[str, Sequence[Rule]]) -> Rule | None:
    """None: it is for another destination."""
    kept: Rule = []
    words = iter(rule)
    negated = False
    for word in words:
        if word == "!":
            negated = True
            continue
        sign = ["!"] * negated
        if word in ("-p", "-d", "--dport", "--dports"):
            if _is_for(word, next(words, ""), forward, rule) is negated:
                return None
        elif word == "-m":
            name = next(words, "")
            if name not in _MODULES:
                raise UntranslatableError(quoted(rule))
            kept += [] if name in ("tcp", "udp") else ["-m", name]
        elif word == "--match-set":
            name, where = next(words, ""), next(words, "")
            if where != "src":
                raise UntranslatableError(quoted(rule))
            kept += [*sign, word, name, where]
        elif word in ("-j", "-g"):
            target = next(words, "")
            _check_target(target, rule, chains, ())
            kept += [word, target]
        elif word in _KEPT:
            values = [next(words, "") for _ in range(_KEPT[word])]
            if "NAT" in "".join(values) and word in ("--ctstate", "--state"):
                raise UntranslatableError(quoted(rule))  # Docker's translation, which is gone
            kept += [*sign, word, *values]
        else:
            raise UntranslatableError(quoted(rule))
        negated = False
    return _without_empty_multiport(kept)


def _without_empty_multiport(rule: Rule) -> Rule:
    if "--sports" in rule or "multiport" not in rule:
        return rule
    at = rule.index("multiport")
    return rule[: at - 1] + rule[at + 1 :]


def _is_for(option: str, value: str, forward: Forward, rule: Rule) -> bool:
    """Whether a condition on the destination holds for this port behind Docker's translation."""
    try:
        if option == "-p":
            return value in ("all", forward.protocol)
        if option == "-d":
            return ip_address(forward.target.host) in ip_network(value, strict=False)
        return any(_has_port(each, forward.target.port) for each in value.split(","))
    except ValueError:
        raise UntranslatableError(quoted(rule)) from None


def _has_port(text: str, port: int) -> bool:
    """Whether `80` or `5000:5009` has it; iptables -S prints numbers. Raises ValueError."""
    first, _, last = text.partition(":")
    return int(first or 0) <= port <= int((last or "65535") if ":" in text else first)


def _check_target(
    target: str, rule: Rule, chains: Mapping[str, Sequence[Rule]], seen: tuple[str, ...]
) -> None:
    """Raises UntranslatableError for a chain that says anything of the destination."""
    if target in (*_VERDICTS, "LOG", *seen):
        return
    if target not in chains:
        raise UntranslatableError(quoted(rule))
    for inner in chains[target]:
        _check_inner(inner, chains, (*seen, target))


def _check_inner(rule: Rule, chains: Mapping[str, Sequence[Rule]], seen: tuple[str, ...]) -> None:
    words = iter(rule)
    for word in words:
        if word == "-m" and next(words, "") in _MODULES:
            continue
        if word == "--match-set" and (next(words, ""), next(words, ""))[1] == "src":
            continue
        if word in ("-j", "-g"):
            _check_target(next(words, ""), rule, chains, seen)
        elif word in _KEPT or word == "-p":
            for _ in range(_KEPT.get(word, 1)):
                next(words, "")
        elif word != "!":
            raise UntranslatableError(quoted(rule))


def quoted(words: Iterable[str]) -> str:
    """Join words as iptables-restore(8) reads them, which knows double quotes only."""
    return " ".join(_quoted(word) for word in words)


def _quoted(word: str) -> str:
    if word and all(each.isalnum() or each in "-_.:/,!" for each in word):
        return word
    return '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'
