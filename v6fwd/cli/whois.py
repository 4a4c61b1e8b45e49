"""`v6fwd whois`: look up pseudo IPv4 addresses and IPv6 clients."""

from __future__ import annotations

import ipaddress
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from v6fwd.client_ip.pseudo_ipv4 import is_pseudo
from v6fwd.errors import RelayError
from v6fwd.model import Transparent, ip_text

if TYPE_CHECKING:
    from v6fwd.relay.transparent.pseudo_store import Entry


def _address(ctx: click.Context, param: click.Parameter, text: str) -> bytes:
    try:
        packed = ipaddress.ip_address(text).packed if "%" not in text else b""
    except ValueError:
        packed = b""
    if len(packed) == 16 or is_pseudo(packed) or (packed and ctx.params.get("network")):
        return packed
    message = f"{text!r} is neither an IPv6 address nor one of 240.0.0.0/4, as in 240.1.2.3"
    raise click.BadParameter(message, ctx, param)


@click.command(epilog="Exit status: 0 if the address is known, 1 if not, 2 for bad arguments.")
@click.argument("address", callback=_address)
@click.option(
    "--pseudo-store",
    default=Transparent().pseudo_store,
    show_default=True,
    metavar="FILE",
    help="Database that `forward --client-ip transparent` keeps.",
)
@click.option(
    "--network",
    is_flag=True,
    is_eager=True,
    help="Print only the network to ban: the one behind a pseudo address, or ADDRESS itself.",
)
def whois(address: bytes, pseudo_store: str, network: bool) -> None:
    """Show the IPv6 client of a pseudo IPv4 address, or the pseudo address of an IPv6 client.

    \b
    v6fwd whois 240.1.2.3
    v6fwd whois 2001:db8:1::2
    """
    if network and not is_pseudo(address):
        click.echo(ip_text(address))
        return
    from v6fwd.relay.transparent.pseudo_store import (
        find_pseudo,  # SQLite, which no other command needs
    )

    try:
        entries = find_pseudo(pseudo_store, address)
    except RelayError as error:
        click.echo(str(error), err=True)
        sys.exit(1)
    for entry in entries:
        click.echo(_network(entry) if network else _line(entry))
    if not entries:
        click.echo(f"{ip_text(address)} is not in {pseudo_store}", err=True)
        sys.exit(1)


def _line(entry: Entry) -> str:
    seen = datetime.fromtimestamp(entry.seen, UTC).strftime("%Y-%m-%d %H:%M UTC")
    return f"{ip_text(entry.address)} is {_network(entry)}, seen {seen}"


def _network(entry: Entry) -> str:
    return ip_text(entry.network) + ("" if entry.bits == 128 else f"/{entry.bits}")
