"""`v6fwd ban`, `unban`, `bans`: whom the running daemon refuses at all its forwards."""

from __future__ import annotations

import ipaddress
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import click

from v6fwd.cli.asking import answers, json_option, shown, socket_option, unanswered
from v6fwd.cli.kinds import Parsed
from v6fwd.cli.tables import duration, moment, table
from v6fwd.log import counted, escaped
from v6fwd.model import Address, InputError, IPNetwork, parse_seconds
from v6fwd.model.banning import network_text, parse_ban, parse_client

A_REQUEST = 1000
"""Networks in one request, as the daemon takes them: 0.1 s in which it does nothing else."""

Ban = Mapping[str, Any]
EPILOG = (
    "Exit status: 0 on success, 1 if the daemon refuses or is not running, 2 for bad arguments."
)


@click.command(epilog=EPILOG)
@click.argument("networks", metavar="ADDRESS...", nargs=-1, required=True)
@click.option(
    "--for",
    "seconds",
    type=Parsed("time", parse_seconds),
    help="Time after which the ban ends, as 10m or 24h.  [default: permanent]",
)
@click.option("--force", is_flag=True, help="Ban the address of your own SSH session, too.")
@socket_option
@json_option
def ban(
    networks: tuple[str, ...], seconds: float | None, force: bool, path: str, as_json: bool
) -> None:
    """Refuse clients at all forwards, TCP and UDP, and reset their flows.

    \b
    v6fwd ban 2001:db8:1::2              # this address
    v6fwd ban 2001:db8:1::/64 --for 1h   # the network of a host, for an hour
    v6fwd ban 240.1.2.3                  # the IPv6 client behind a pseudo address

    When it returns, every worker refuses them. Bans outlive a restart. A ban that exists is
    prolonged, never shortened. IPv4 clients of ports that Docker publishes do not come through
    v6fwd unless the mode is proxy-v1 or proxy-v2: those need a firewall rule.
    """
    wanted = [_parsed(text, parse_ban) for text in networks]
    own = None if force else own_address()
    for network in wanted:
        if own is not None and own in network:
            raise click.UsageError(f"{network_text(network)} has your own address, {own}: --force")
    _change("ban", wanted, as_json, path, _banned, seconds=seconds)


@click.command(epilog=EPILOG)
@click.argument("networks", metavar="[ADDRESS...]", nargs=-1)
@click.option("--all", "everybody", is_flag=True, help="End all bans.")
@socket_option
@json_option
def unban(networks: tuple[str, ...], everybody: bool, path: str, as_json: bool) -> None:
    """Let clients in again. Names the same addresses and networks as the ban did."""
    if bool(networks) is everybody:
        raise click.UsageError("name what to unban, or --all")
    wanted = [_parsed(text, parse_client) for text in networks]
    _change("unban", wanted, as_json, path, _unbanned, all=everybody)


@click.command(epilog=EPILOG)
@socket_option
@json_option
def bans(path: str, as_json: bool) -> None:
    """List the bans in force, with their ends."""
    found = [each for part in answers(path, "bans") for each in part.get("bans", ())]
    found.sort(key=lambda each: _order(each["network"]))
    click.echo(json.dumps({"bans": found}) if as_json else text(found, time.time()))


def text(found: Iterable[Ban], now: float) -> str:
    """A table; a sentence if nobody is banned."""
    rows = [(each["network"], *_end(each["until"], now)) for each in found]
    return table(("CLIENT", "UNTIL", "LEFT"), rows) if rows else "nobody is banned"


def _end(until: int, now: float) -> tuple[str, str]:
    return (moment(until), duration(max(0.0, until - now))) if until else ("permanent", "-")


def _order(network: str) -> tuple[int, int, int]:
    parsed = ipaddress.ip_network(network)
    return parsed.version, int(parsed.network_address), parsed.prefixlen


def _parsed(text: str, parse: Callable[[str], IPNetwork]) -> IPNetwork:
    try:
        return parse(text)
    except InputError as error:
        raise click.UsageError(str(error)) from None


def own_address() -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The client of the SSH session that we run in, sshd(8); None: there is none."""
    host = os.environ.get("SSH_CONNECTION", "").partition(" ")[0].partition("%")[0]
    try:
        packed = Address.of(ipaddress.ip_address(host).packed, 0).packed
    except ValueError:
        return None
    return ipaddress.ip_address(packed)


def _change(
    do: str,
    wanted: list[IPNetwork],
    as_json: bool,
    path: str,
    line: Callable[[Ban], str],
    **details: Any,
) -> None:
    """Have the daemon do it, print what it did; exit with 1 if a client is still refused."""
    texts = [network_text(network) for network in wanted]
    parts = [texts[at : at + A_REQUEST] for at in range(0, len(texts), A_REQUEST)] or [[]]
    is_done = True
    for part in parts:
        for answer in answers(path, do, networks=part, **details):
            is_done = is_done and not any(each.get("covered") for each in answer["bans"])
            _print(answer, line, as_json)
    if not is_done:
        sys.exit(1)


def _print(answer: Mapping[str, Any], line: Callable[[Ban], str], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(shown(answer)))
        return
    for each in answer["bans"]:
        click.echo(escaped(line(each)))
    if answer.get("ended"):
        click.echo(f"{counted(answer['ended'], 'flow')} reset")
    for note in notes(answer):
        click.echo(escaped(note), err=True)


def notes(answer: Mapping[str, Any]) -> Iterable[str]:
    """What is not as it should be."""
    yield from unanswered(answer)
    if unkept := answer.get("unkept"):
        yield unkept
    if passing := answer.get("passing"):
        yield (
            f"IPv4 clients of {counted(passing, 'published port')} reach the container by Docker's"
            " DNAT, past v6fwd: they need a firewall rule"
        )


def _who(each: Ban) -> str:
    return str(each["network"]) + (f", which is {each['pseudo']}," if each["pseudo"] else "")


def _banned(each: Ban) -> str:
    end = f"until {moment(each['until'])}" if each["until"] else "permanently"
    verb = "stays banned" if each["change"] == "kept" else "is banned"
    return f"{_who(each)} {verb} {end}"


def _unbanned(each: Ban) -> str:
    was = "is no longer banned" if each.get("was_banned", True) else "was not banned"
    covered = each.get("covered")
    return f"{_who(each)} {was}" + (f", but {covered} is, and holds it" if covered else "")
