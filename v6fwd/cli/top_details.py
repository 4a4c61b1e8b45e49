"""All that `v6fwd top` knows of one item: a forward, a network, a client or a flow."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any

from v6fwd.cli.tables import duration, size
from v6fwd.daemon.view.rows import Row

GONE = "it is no longer there"


def identity(item: Any) -> Hashable:
    """What stays of an item from one answer to the next."""
    if isinstance(item, Row):
        return item.listen
    return item["client"], item.get("client_port"), item.get("listen"), item.get("worker")


def find(items: Sequence[Any], wanted: Hashable) -> Any:
    """The item with this identity; None if it is gone."""
    return next((item for item in items if identity(item) == wanted), None)


def details(item: Any) -> list[tuple[str, str]]:
    """Names and texts, one a line; what is empty is left out."""
    lines = _of_row(item) if isinstance(item, Row) else _of_flow(item)
    return [(name, text) for name, text in lines if text]


def _of_row(row: Row) -> Iterator[tuple[str, str]]:
    yield "listen", row.listen
    yield "target", row.target
    yield "container", row.container
    yield "mode", row.mode
    yield "decided by", row.why
    yield "state", row.state
    yield "trouble", row.note
    yield "not shown as they are", row.not_real
    yield "flows", f"{row.live} live, {row.flows} since it was opened, {row.rates.flows:.1f}/s"
    yield "up", f"{size(round(row.rates.up))}/s"
    yield "down", f"{size(round(row.rates.down))}/s"
    yield "errors", f"{row.errors}, {row.rates.errors:.1f}/s"


def _of_flow(flow: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "client", flow["client"] or "gone"
    yield "port", str(flow.get("client_port") or "")
    yield "pseudo IPv4", flow.get("pseudo", "")
    yield "listen", flow.get("listen", "")
    yield "target", flow.get("target", "")
    yield "worker", f"process {flow['worker']}" if "worker" in flow else ""
    yield "flows", str(flow.get("flows", ""))
    yield "since", duration(flow["seconds"])
    for name in ("up", "down"):
        moved, rate = flow[f"bytes_{name}"], size(round(flow[name]))
        yield name, f"{size(moved)} ({moved} bytes), {rate}/s"
    if flow["client"]:
        yield "reset it", f"v6fwd flows --kill --client {flow['client']}"
        yield "ban it", f"v6fwd ban {flow['client']} --for 1h"
