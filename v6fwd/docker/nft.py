"""Two nftables tables: one brings IPv4 clients of published ports to v6fwd, one stops the others.

Docker's rule for a published port translates the destination of IPv4 packets in a nat chain of
priority -100 (dstnat), so they go straight to the container. Chains of this table have priority
-110, and the first translation of a connection ends the search. It is to the address that the
client wrote to, so nothing is changed: the packet goes to the socket on the host, and
getsockname(2) there still gives that address, which after `redirect` it would not.

The second table drops connections that Docker's rule has translated: those of clients who came
while the first table was away, as somebody had deleted it. Such a client sends its packet again.

The ports are elements of sets: a port costs an element, not a rule. The tables stay when the
daemon dies: its listening sockets live on in the shims, so IPv4 clients wait in their queues, and
get their header from the next daemon.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from v6fwd.errors import RelayError
from v6fwd.model import Endpoint, Forward, Protocol

TABLE, GUARD = "v6fwd", "v6fwd-guard"
PRIORITY = -110  # Docker's is -100
ANY_ADDRESS, ONE_ADDRESS = "any-address", "one-address"
"""The sets: ports published for the world, and ports published at one address of the host."""
CONTAINERS = "containers"
"""The set of the second table: what Docker's rule makes of a connection to one of these ports."""
ANY_HOST = "0.0.0.0"
_FAMILY = "ip"
_TIMEOUT = 10.0

Command = dict[str, Any]

_ADDRESS: Command = {"payload": {"protocol": "ip", "field": "daddr"}}
_DESTINATION: list[Command] = [
    _ADDRESS,
    {"meta": {"key": "l4proto"}},
    {"payload": {"protocol": "th", "field": "dport"}},
]
_PORT = ("inet_proto", "inet_service")


class Guarded(NamedTuple):
    """A container's port, as it is reached through one port of the host."""

    port: int
    """The host's."""
    target: Endpoint


Element = Endpoint | Guarded
"""A listener is in a set of the first table, a guarded port in that of the second."""


def elements_of(forward: Forward) -> Iterator[Element]:
    """Yield what the tables have for a published port."""
    yield forward.listen
    if ":" not in forward.target.host:
        yield Guarded(forward.listen.port, forward.target)


class RedirectTable:
    """Both tables in this network namespace. Every change is one transaction of nft(8)."""

    names = (TABLE, GUARD)

    def reset(self, elements: Iterable[Element] = ()) -> None:
        """Make the tables anew with these elements. Raises RelayError."""
        apply([*_removal(), *_skeleton(), *(_element("add", each) for each in elements)])

    def add(self, *elements: Element) -> None:
        """Redirect and guard these; again does no harm. Raises RelayError."""
        apply([_element("add", each) for each in elements])

    def remove(self, *elements: Element) -> None:
        """Do so no more, whether or not they were added. Raises RelayError."""
        # Deleting what is not there fails; adding what is there does not.
        apply([_element(verb, each) for each in elements for verb in ("add", "delete")])

    def close(self) -> None:
        """Delete the tables, if there are any. Raises RelayError."""
        apply(_removal())

    def left_behind(self) -> set[Element]:
        """Return the elements of those tables that are there, and can be read."""
        found: set[Element] = set()
        for name in self.names:
            with contextlib.suppress(RelayError):
                found |= _content(name)[1]
        return found

    def content(self) -> tuple[object, frozenset[Element]]:
        """Return all sets, chains and rules, comparable, and the elements. Raises RelayError."""
        contents = [_content(name) for name in self.names]
        elements = frozenset(each for _, some in contents for each in some)
        return [skeleton for skeleton, _ in contents], elements


def _content(table: str) -> tuple[object, set[Element]]:
    """Return its sets, chains and rules, comparable, and its elements. Raises RelayError."""
    skeleton, elements = [], []
    listing = _nft("list", "table", _FAMILY, table)
    try:
        for item in listing["nftables"]:
            [(kind, each)] = item.items()
            if kind != "metainfo":
                elements += each.pop("elem", [])
                each.pop("handle", None)
                skeleton.append((kind, each))
        return skeleton, set(map(_read_element, elements))
    except (AttributeError, KeyError, TypeError, ValueError) as error:  # others may add sets
        raise RelayError(f"table {table} has what v6fwd has not put there: {error!r}") from None


def has_chain(name: str) -> bool:
    """Return whether any table of IPv4 has a chain of this name. Raises RelayError."""
    listing = _nft("list", "chains", _FAMILY)
    try:
        return any(item.get("chain", {}).get("name") == name for item in listing["nftables"])
    except (AttributeError, KeyError, TypeError) as error:
        raise RelayError(f"nft lists chains in another way: {error!r}") from None


def apply(commands: Sequence[Command]) -> None:
    """Carry out all commands or none. Raises RelayError with nft's reason."""
    if commands:
        _nft("-f", "-", text=json.dumps({"nftables": commands}))


def _nft(*words: str, text: str = "") -> dict[str, Any]:
    try:
        done = subprocess.run(
            ["nft", "-j", *words],
            input=text,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT,
            check=False,
        )
    except FileNotFoundError:
        raise RelayError("proxy-* needs the command nft (package nftables) for IPv4") from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RelayError(f"cannot run nft: {error}") from error
    if done.returncode:
        why = " ".join(done.stderr.split()) or f"exit status {done.returncode}"
        raise RelayError(f"nft refuses v6fwd's rules: {why}")
    try:
        answer: dict[str, Any] = json.loads(done.stdout) if done.stdout.strip() else {}
    except (ValueError, RecursionError):
        raise RelayError("nft answers with something else than JSON") from None
    return answer


def _removal() -> list[Command]:
    """Deleting fails where there is no table, so it is added first."""
    tables = [{"table": {"family": _FAMILY, "name": name}} for name in (TABLE, GUARD)]
    return [{verb: table} for table in tables for verb in ("add", "delete")]


def _skeleton() -> list[Command]:
    # From elsewhere, and from this host itself.
    nat = {"type": "nat", "prio": PRIORITY}
    after_nat = {"type": "filter", "prio": 0}  # both ways come together in `postrouting`
    return [
        {"add": {"table": {"family": _FAMILY, "name": TABLE}}},
        _set(TABLE, ANY_ADDRESS, *_PORT),
        _set(TABLE, ONE_ADDRESS, "ipv4_addr", *_PORT),
        *_chain(TABLE, {**nat, "hook": "prerouting"}, *_redirect()),
        *_chain(TABLE, {**nat, "hook": "output"}, *_redirect()),
        {"add": {"table": {"family": _FAMILY, "name": GUARD}}},
        _set(GUARD, CONTAINERS, "ipv4_addr", *_PORT, "inet_service"),
        *_chain(GUARD, {**after_nat, "hook": "postrouting"}, *_guard()),
    ]


def _set(table: str, name: str, *types: str) -> Command:
    return {"add": {"set": {"family": _FAMILY, "table": table, "name": name, "type": types}}}


def _chain(table: str, base: Command, *rules: list[Command]) -> Iterator[Command]:
    """A chain that is named after its hook."""
    here = {"family": _FAMILY, "table": table}
    yield {"add": {"chain": {**here, "name": base["hook"], **base, "policy": "accept"}}}
    for rule in rules:
        yield {"add": {"rule": {**here, "chain": base["hook"], "expr": rule}}}


def _redirect() -> list[list[Command]]:
    unchanged = {"dnat": {"addr": _ADDRESS}}
    is_local = _match({"fib": {"result": "type", "flags": ["daddr"]}}, "local")
    return [
        [is_local, _match({"concat": _DESTINATION[1:]}, f"@{ANY_ADDRESS}"), unchanged],
        [_match({"concat": _DESTINATION}, f"@{ONE_ADDRESS}"), unchanged],
    ]


def _guard() -> list[list[Command]]:
    """Connections of before the redirect go on: only those are dropped that begin.

    A rule for each protocol: nft knows the type of `proto-dst` only behind a match of one.
    """
    host_port = {"ct": {"key": "proto-dst", "dir": "original"}}
    return [
        [
            {"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": "new"}},
            {"match": {"op": "in", "left": {"ct": {"key": "status"}}, "right": "dnat"}},
            _match({"meta": {"key": "l4proto"}}, str(protocol)),
            _match({"concat": [*_DESTINATION, host_port]}, f"@{CONTAINERS}"),
            {"drop": None},
        ]
        for protocol in Protocol
    ]


def _match(left: Command, right: str) -> Command:
    return {"match": {"op": "==", "left": left, "right": right}}


def _element(verb: str, element: Element) -> Command:
    table, name, values = _place(element)
    here = {"family": _FAMILY, "table": table, "name": name}
    return {verb: {"element": {**here, "elem": [{"concat": values}]}}}


def _place(element: Element) -> tuple[str, str, list[str | int]]:
    """Return table, set and values. A listener on 0.0.0.0 or [::] is for any address of the
    host."""
    values: list[str | int]
    if isinstance(element, Guarded):
        target = element.target
        values = [target.host, str(target.protocol), target.port, element.port]
        return GUARD, CONTAINERS, values
    values = [str(element.protocol), element.port]
    if ":" in element.host or element.host == ANY_HOST:
        return TABLE, ANY_ADDRESS, values
    return TABLE, ONE_ADDRESS, [element.host, *values]


def _read_element(element: dict[str, Any]) -> Element:
    match element["concat"]:
        case [host, protocol, target, port]:
            return Guarded(port, Endpoint(host, target, protocol=Protocol(protocol)))
        case [*address, protocol, port]:
            return Endpoint(address[0] if address else ANY_HOST, port, protocol=Protocol(protocol))
    raise RelayError(f"nft tells of an element that is not v6fwd's: {element}")
