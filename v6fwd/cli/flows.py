"""`v6fwd flows`: who is connected to the running daemon."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import click

from v6fwd.cli.asking import EPILOG, answers, json_option, socket_option
from v6fwd.cli.kinds import OneOf, whole
from v6fwd.cli.tables import duration, size, table
from v6fwd.daemon.view.clients import Flow, grouped, moved
from v6fwd.model import bracketed

_ORDERS: dict[str, Callable[[Flow], Any]] = {
    "bytes": moved,
    "seconds": lambda flow: flow["seconds"],
    "flows": lambda flow: flow["flows"],
}


@click.command(epilog=EPILOG)
@click.option(
    "--by",
    type=OneOf(["client", "net"]),
    help="Sum flows by client address, or by network: the /64 of an IPv6 client.",
)
@click.option(
    "--sort",
    "order",
    type=OneOf(_ORDERS),
    default="bytes",
    show_default=True,
    help="Sort in descending order of this.",
)
@click.option("--limit", type=whole(1), help="Maximum number of lines.")
@socket_option
@json_option
def flows(by: str | None, order: str, limit: int | None, path: str, as_json: bool) -> None:
    """List clients of the running daemon, with bytes and duration."""
    live = [flow for part in answers(path, "flows") for flow in part.get("flows", ())]
    for flow in live:
        flow["flows"] = 1
    found = grouped(live, by) if by else live
    found.sort(key=_ORDERS[order], reverse=True)
    found = found[:limit]
    click.echo(json.dumps({"flows": found}) if as_json else text(found, by))


def text(found: list[Flow], by: str | None) -> str:
    """A table; a sentence if there is nobody."""
    if not found:
        return "no client is connected"
    right = "FLOWS UP DOWN FOR"
    rows: list[tuple[str, ...]]
    if by:
        head: tuple[str, ...] = ("CLIENT" if by == "client" else "NETWORK", "FLOWS")
        rows = [(flow["client"], str(flow["flows"]), *_numbers(flow)) for flow in found]
    else:
        head = ("CLIENT", "LISTEN", "TARGET")
        rows = [(_client(flow), flow["listen"], flow["target"], *_numbers(flow)) for flow in found]
    return table((*head, "UP", "DOWN", "FOR"), rows, right)


def _client(flow: Flow) -> str:
    return f"{bracketed(flow['client'])}:{flow['client_port']}" if flow["client"] else "gone"


def _numbers(flow: Flow) -> tuple[str, str, str]:
    return size(flow["bytes_up"]), size(flow["bytes_down"]), duration(flow["seconds"])
