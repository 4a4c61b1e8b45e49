"""`v6fwd flows`: who is connected to the running daemon."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

import click

from v6fwd.cli.asking import EPILOG, answers, json_option, shown, socket_option, unanswered
from v6fwd.cli.kinds import OneOf, whole
from v6fwd.cli.tables import duration, size, table
from v6fwd.daemon.view.clients import Flow, grouped, moved
from v6fwd.log import counted, escaped
from v6fwd.model import InputError, IPNetwork, bracketed, parse_listen
from v6fwd.model.banning import network_text, parse_client


@dataclass(frozen=True, slots=True)
class Choice:
    """Which flows are meant; without networks those of all clients, and so with listeners."""

    networks: tuple[IPNetwork, ...]
    listens: tuple[str, ...]

    def has(self, flow: Flow) -> bool:
        """Whether a flow is meant, as `v6fwd flows --json` tells it."""
        if self.listens and flow["listen"] not in self.listens:
            return False
        if not self.networks:
            return True
        return bool(flow["client"]) and any(
            ip_address(flow["client"]) in network for network in self.networks
        )


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
@click.option("--kill", is_flag=True, help="Reset flows: those that the next options choose.")
@click.option("--client", "clients", multiple=True, metavar="ADDRESS|NETWORK", help="Of these.")
@click.option("--listen", "listens", multiple=True, help="At these listeners: [::]:8080.")
@click.option("--all", "everything", is_flag=True, help="With --kill: every flow.")
@socket_option
@json_option
def flows(
    by: str | None,
    order: str,
    limit: int | None,
    kill: bool,
    clients: tuple[str, ...],
    listens: tuple[str, ...],
    everything: bool,
    path: str,
    as_json: bool,
) -> None:
    """List clients of the running daemon, with bytes and duration; or reset their flows.

    \b
    v6fwd flows --kill --client 2001:db8:1::/64
    v6fwd flows --kill --listen [::]:8080
    """
    chosen = _chosen(clients, listens)
    if kill:
        _kill(path, chosen, everything, as_json)
        return
    if everything:
        raise click.UsageError("--all is for --kill")
    live = [flow for part in answers(path, "flows") for flow in part.get("flows", ())]
    live = [flow for flow in live if chosen.has(flow)]
    for flow in live:
        flow["flows"] = 1
    found = grouped(live, by) if by else live
    found.sort(key=_ORDERS[order], reverse=True)
    found = found[:limit]
    click.echo(json.dumps({"flows": found}) if as_json else text(found, by))


def _chosen(clients: Iterable[str], listens: Iterable[str]) -> Choice:
    try:
        endpoints = [str(each) for text in listens for each in parse_listen(text)]
        return Choice(tuple(map(parse_client, clients)), tuple(endpoints))
    except InputError as error:
        raise click.UsageError(str(error)) from None


def _kill(path: str, chosen: Choice, everything: bool, as_json: bool) -> None:
    if bool(chosen.networks or chosen.listens) is everything:
        raise click.UsageError("--kill takes --client, --listen, or --all")
    networks = [network_text(network) for network in chosen.networks]
    details = {"networks": networks, "listens": chosen.listens, "all": everything}
    for answer in answers(path, "kill", **details):
        click.echo(json.dumps(shown(answer)) if as_json else killed_text(answer))


def killed_text(answer: Mapping[str, Any]) -> str:
    """How many flows were reset, by listener where that is more than one."""
    ended: Mapping[str, int] = answer["ended"]
    lines = [f"{counted(sum(ended.values()), 'flow')} reset"]
    if len(ended) > 1:
        lines += [f"{escaped(listen)}: {count}" for listen, count in sorted(ended.items())]
    return "\n".join([*lines, *unanswered(answer)])


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
