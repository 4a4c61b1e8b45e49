"""Flows summed by client, or by network."""

from __future__ import annotations

import functools
import heapq
import ipaddress
from collections.abc import Iterable
from typing import Any

Flow = dict[str, Any]
"""As Relay.flows_now describes it, or a group of them: `client`, `flows`, bytes, seconds."""


_SUMMED = ("bytes_up", "bytes_down")


def grouped(live: Iterable[Flow], by: str, summed: tuple[str, ...] = _SUMMED) -> list[Flow]:
    """Sum flows by "client" or "net". `seconds` is that of the longest flow."""
    empty = {"flows": 0, "seconds": 0.0, **dict.fromkeys(summed, 0)}
    groups: dict[str, Flow] = {}
    for flow in live:
        client = flow["client"] if by == "client" else network(flow["client"])
        group = groups.get(client)
        if group is None:
            groups[client] = group = {"client": client, **empty}
        group["flows"] += flow.get("flows", 1)
        for key in summed:
            group[key] += flow[key]
        group["seconds"] = max(group["seconds"], flow["seconds"])
    return list(groups.values())


@functools.lru_cache(maxsize=4096)  # 10 us each, and 10,000 flows have few clients
def network(client: str) -> str:
    """The /64 of an IPv6 client: who has one address there has all of them (RFC 4291, 2.5.1)."""
    if ":" not in client:
        return client
    return str(ipaddress.ip_network(f"{client}/64", strict=False))


def moved(flow: Flow) -> int:
    """Bytes both ways."""
    return int(flow["bytes_up"] + flow["bytes_down"])


def top(live: Iterable[Flow], by: str, most: int) -> tuple[list[Flow], int]:
    """The `most` clients or networks that moved the most bytes, and how many there are."""
    groups = grouped(live, by)
    return heapq.nlargest(most, groups, key=lambda group: (moved(group), group["flows"])), len(
        groups
    )
