"""`v6fwd top`: who is connected, through which port, how fast; once a second."""

from __future__ import annotations

import sys
import time
from collections.abc import Hashable, Sequence
from typing import Any

import click

from v6fwd.cli.asking import socket_option
from v6fwd.cli.kinds import OneOf, Parsed
from v6fwd.cli.top_columns import FIRST_SORT, VIEWS, FlowRates
from v6fwd.cli.top_details import find
from v6fwd.cli.top_screen import Choice, Gathered, Screen, plain
from v6fwd.daemon.ask import AskError, ask
from v6fwd.daemon.view.clients import grouped
from v6fwd.daemon.view.pseudo import PseudoAddresses
from v6fwd.daemon.view.rows import Table
from v6fwd.model import Transparent, parse_seconds

SUMMED = ("bytes_up", "bytes_down", "up", "down")
WITH_PSEUDO = 200
"""The clients with the highest rates, whose pseudo address is looked up."""
_NAMES = dict.fromkeys(column.name for columns in VIEWS.values() for column in columns)
_ORDERS = {name.lower().replace(" ", "-"): name for name in _NAMES}


@click.command(epilog="Exit status: 0 on success, 1 if the daemon does not answer.")
@click.option(
    "--by",
    "view",
    type=OneOf(VIEWS),
    default="forwards",
    show_default=True,
    help="What to list: net is the /64 of an IPv6 client.",
)
@click.option(
    "--sort",
    "order",
    type=OneOf(_ORDERS),
    default=FIRST_SORT.lower(),
    show_default=True,
    help="Sort by this column.",
)
@click.option("--filter", "words", default="", metavar="TEXT", help="List only lines with TEXT.")
@click.option("--once", is_flag=True, help="Print once, with the rates of one interval, and exit.")
@click.option(
    "--interval",
    type=Parsed("seconds", parse_seconds),
    default=1.0,
    show_default=True,
    help="Seconds between two questions to the daemon.",
)
@click.option(
    "--pseudo-store",
    "store",
    default=Transparent().pseudo_store,
    show_default=True,
    metavar="FILE",
    help="Database of the pseudo IPv4 addresses.",
)
@socket_option
def top(
    view: str, order: str, words: str, once: bool, interval: float, store: str, path: str
) -> None:
    """Show forwards, clients and rates of the running daemon, live.

    \b
    Tab     next list: forwards, net, client, flows
    s, r    sort by the next column, reverse the order
    /       filter; Esc clears it
    d       details of the line at the cursor, as does Enter; again to go back
    p, q    pause, quit
    """
    choice = Choice(view, _ORDERS[order], words)
    if choice.order not in [column.name for column in VIEWS[view]]:
        raise click.UsageError(f"--by {view} has no column {order}")
    source = Source(path, store)
    try:
        if once:
            source.gather(view)
            time.sleep(interval)
            click.echo(plain(choice, source.gather(view)))
        else:
            _watch(source, choice, interval)
    except AskError as error:
        click.echo(str(error), err=True)
        sys.exit(1)
    except KeyboardInterrupt:
        pass


class Source:
    """Asks the daemon, and keeps what the rates need."""

    def __init__(self, path: str, store: str) -> None:
        self._path = path
        self._store = store
        self._table = Table()
        self._flow_rates = FlowRates()
        self._pseudo = PseudoAddresses()

    def gather(self, view: str, opened: Hashable = None) -> Gathered:
        """Ask for what a view shows, and all of the item that is opened. Raises AskError."""
        (status,) = ask(self._path, {"do": "status"})
        rows = self._table.rows(status, time.monotonic())
        return Gathered(
            view, status, rows, rows if view == "forwards" else self._flows(view, opened)
        )

    def _flows(self, view: str, opened: Hashable) -> list[dict[str, Any]]:
        parts = ask(self._path, {"do": "flows"})
        live = [flow for part in parts for flow in part.get("flows", ())]
        self._flow_rates.add(live, time.monotonic())
        if view == "flows":
            self._add_pseudo(live, opened)
            return live
        groups = grouped(live, view, SUMMED)
        groups.sort(key=lambda group: group["up"] + group["down"], reverse=True)
        for group in groups[:WITH_PSEUDO]:
            group["pseudo"] = self._pseudo.of(group["client"], [self._store])
        return groups

    def _add_pseudo(self, flows: Sequence[dict[str, Any]], opened: Hashable) -> None:
        flow = find(flows, opened) if opened is not None else None
        if flow is not None:
            flow["pseudo"] = self._pseudo.of(flow["client"], [self._store])


def _watch(source: Source, choice: Choice, interval: float) -> None:
    """Show until a key ends it. Raises AskError if the daemon does not answer the first time."""
    from rich.console import Console
    from rich.live import Live

    from v6fwd.cli.top_terminal import keys, raw_keys

    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise click.UsageError("top needs a terminal; --once prints a table")
    screen = Screen(choice, source.gather(choice.view))
    with raw_keys() as fd, Live(screen, console=Console(), screen=True, auto_refresh=False) as live:
        due = time.monotonic()
        while not choice.is_over:
            live.update(screen, refresh=True)
            pressed = keys(fd, due - time.monotonic())
            if pressed is None:
                return
            view = choice.view
            for key in pressed:
                choice.press(key)
            is_due = time.monotonic() >= due and not choice.is_paused
            if is_due or choice.view != view:
                screen = _next(source, choice, screen)
            if time.monotonic() >= due:
                due = time.monotonic() + interval


def _next(source: Source, choice: Choice, before: Screen) -> Screen:
    """Ask again. A daemon that is silent may have a successor soon."""
    try:
        return Screen(choice, source.gather(choice.view, choice.opened))
    except AskError as error:
        return Screen(choice, before.gathered, str(error).splitlines()[0])
