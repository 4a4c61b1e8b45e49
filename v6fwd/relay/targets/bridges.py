"""Warns of targets that are addresses of Docker's bridges: containers change them."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
from collections.abc import Iterable

from v6fwd.log import Log
from v6fwd.model import Endpoint, Forward, is_ip

_DIGITS = frozenset("0123456789abcdef")


def on_bridges(forwards: Iterable[Forward]) -> list[tuple[Endpoint, str]]:
    """Return each target whose address is in a network of Docker's on this host, and its bridge."""
    if not _has_bridge():
        return []
    targets = [*{forward.target: None for forward in forwards if not forward.target.container}]
    bridges = {host: _bridge_to(host) for host in {target.host for target in targets}}
    return [(target, bridge) for target in targets if (bridge := bridges[target.host])]


def tell_bridges(found: Iterable[tuple[Endpoint, str]], log: Log) -> None:
    """Log a line for each of these."""
    for target, bridge in found:
        log.warning(
            "target",
            f"target {target} is on Docker's bridge {bridge}: after a restart another container"
            f" may have that address; docker:NAME:{target.port} follows the container NAME",
            target=target,
        )


def _is_bridge(name: str) -> bool:
    """Whether dockerd calls the bridge of a network like this: br- and twelve digits."""
    is_own = name.startswith("br-") and len(name) == 15 and {*name[3:]} <= _DIGITS
    return is_own or name == "docker0"


def _has_bridge() -> bool:
    """Whether there is one; False where netlink is forbidden, and the kernel cannot be asked."""
    with contextlib.suppress(OSError):
        return any(_is_bridge(name) for _, name in socket.if_nameindex())
    return False


def _bridge_to(host: str) -> str:
    """The bridge that leads to an address; "" for none, and where the kernel does not tell."""
    if not is_ip(host) or "%" in host:
        return ""
    from v6fwd.netns.netlink import Netlink  # not where there is no bridge

    packed = ipaddress.ip_address(host).packed
    with contextlib.suppress(OSError), contextlib.closing(Netlink()) as netlink:
        name = socket.if_indextoname(netlink.device_to(packed))
        return name if _is_bridge(name) else ""
    return ""
