"""An nftables table that brings IPv4 clients of published ports to v6fwd.

Docker's rule for a published port translates the destination of IPv4 packets in a nat chain of
priority -100 (dstnat), so they go straight to the container. Chains of this table have priority
-110, and the first translation of a connection ends the search. It is to the address that the
client wrote to, so nothing is changed: the packet goes to the socket on the host, and
getsockname(2) there still gives that address, which after `redirect` it would not.

The ports are elements of two sets: a port costs an element, not a rule. The table stays when the
daemon dies: its listening sockets live on in the shims, so IPv4 clients wait in their queues, and
get their header from the next daemon.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Sequence
from typing import Any

from v6fwd.errors import RelayError
from v6fwd.model import Endpoint, Protocol

TABLE = "v6fwd"
PRIORITY = -110  # Docker's is -100
ANY_ADDRESS, ONE_ADDRESS = "any-address", "one-address"
"""The sets: ports published for the world, and ports published at one address of the host."""
ANY_HOST = "0.0.0.0"
_FAMILY = "ip"
_TIMEOUT = 10.0

Command = dict[str, Any]


class RedirectTable:
    """The table in this network namespace. Every change is one transaction of nft(8)."""

    name = TABLE

    def reset(self, endpoints: Iterable[Endpoint] = ()) -> None:
        """Make the table anew with these listeners. Raises RelayError."""
        apply([*_removal(), *_skeleton(), *(_element("add", each) for each in endpoints)])

    def add(self, *endpoints: Endpoint) -> None:
        """Redirect the IPv4 clients of these listeners; again does no harm. Raises RelayError."""
        apply([_element("add", each) for each in endpoints])

    def remove(self, *endpoints: Endpoint) -> None:
        """Redirect them no more, whether or not they were added. Raises RelayError."""
        # Deleting what is not there fails; adding what is there does not.
        apply([_element(verb, each) for each in endpoints for verb in ("add", "delete")])

    def close(self) -> None:
        """Delete the table, if there is one. Raises RelayError."""
        apply(_removal())

    def endpoints(self) -> set[Endpoint]:
        """Return the listeners that are in it. Raises RelayError."""
        return set(self.content()[1])

    def content(self) -> tuple[object, frozenset[Endpoint]]:
        """Return its sets, chains and rules, comparable, and its listeners. Raises RelayError."""
        skeleton, elements = [], []
        listing = _nft("list", "table", _FAMILY, TABLE)
        try:
            for item in listing["nftables"]:
                [(kind, each)] = item.items()
                if kind != "metainfo":
                    elements += each.pop("elem", [])
                    each.pop("handle", None)
                    skeleton.append((kind, each))
            return skeleton, frozenset(map(_endpoint_of, elements))
        except (AttributeError, KeyError, TypeError, ValueError) as error:  # others may add sets
            raise RelayError(f"table {TABLE} has what v6fwd has not put there: {error!r}") from None


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
    table = {"table": {"family": _FAMILY, "name": TABLE}}
    return [{"add": table}, {"delete": table}]


def _skeleton() -> list[Command]:
    here = {"family": _FAMILY, "table": TABLE}
    port = ["inet_proto", "inet_service"]
    commands: list[Command] = [
        {"add": {"table": {"family": _FAMILY, "name": TABLE}}},
        {"add": {"set": {**here, "name": ANY_ADDRESS, "type": port}}},
        {"add": {"set": {**here, "name": ONE_ADDRESS, "type": ["ipv4_addr", *port]}}},
    ]
    for hook in ("prerouting", "output"):  # from elsewhere, and from this host itself
        chain = {"type": "nat", "hook": hook, "prio": PRIORITY, "policy": "accept"}
        commands.append({"add": {"chain": {**here, "name": hook, **chain}}})
        for rule in _rules():
            commands.append({"add": {"rule": {**here, "chain": hook, "expr": rule}}})
    return commands


def _rules() -> list[list[Command]]:
    address = {"payload": {"protocol": "ip", "field": "daddr"}}
    port = [{"meta": {"key": "l4proto"}}, {"payload": {"protocol": "th", "field": "dport"}}]
    unchanged = {"dnat": {"addr": address}}
    is_local = _match({"fib": {"result": "type", "flags": ["daddr"]}}, "local")
    return [
        [is_local, _match({"concat": port}, f"@{ANY_ADDRESS}"), unchanged],
        [_match({"concat": [address, *port]}, f"@{ONE_ADDRESS}"), unchanged],
    ]


def _match(left: Command, right: str) -> Command:
    return {"match": {"op": "==", "left": left, "right": right}}


def _element(verb: str, endpoint: Endpoint) -> Command:
    """A listener on 0.0.0.0 or [::] is for any address of the host."""
    is_any = ":" in endpoint.host or endpoint.host == ANY_HOST
    where = [] if is_any else [endpoint.host]
    value = {"concat": [*where, str(endpoint.protocol), endpoint.port]}
    here = {"family": _FAMILY, "table": TABLE, "name": ANY_ADDRESS if is_any else ONE_ADDRESS}
    return {verb: {"element": {**here, "elem": [value]}}}


def _endpoint_of(element: dict[str, Any]) -> Endpoint:
    *address, protocol, port = element["concat"]
    return Endpoint(address[0] if address else ANY_HOST, port, protocol=Protocol(protocol))
