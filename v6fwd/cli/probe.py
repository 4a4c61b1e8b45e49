"""`v6fwd probe`: which headers a server accepts, and the mode to choose."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from v6fwd.cli.asking import json_option
from v6fwd.cli.kinds import OneOf
from v6fwd.model import Endpoint, InputError, is_ip, parse_seconds, parse_target
from v6fwd.probe.forms import CLIENT
from v6fwd.probe.openings import NAMES
from v6fwd.probe.report import Report, Tried

_SEEN = {True: "yes", False: "no", None: "cannot be told"}
_COLOURS = {"accepted": "green", "refused": "red", "silent": "yellow", "unclear": "yellow"}


def _target(ctx: click.Context, param: click.Parameter, text: str) -> Endpoint:
    try:
        found = parse_target(text)
    except InputError as error:
        raise click.BadParameter(str(error), ctx, param) from None
    if len(found) > 1 or found[0].path:
        raise click.BadParameter(f"{text!r} is not one port; write 172.17.0.2:80", ctx, param)
    return found[0]


def _client(ctx: click.Context, param: click.Parameter, text: str) -> str:
    if text and (not is_ip(text) or "%" in text):
        raise click.BadParameter(f"{text!r} is not an IP address", ctx, param)
    return text


def _seconds(ctx: click.Context, param: click.Parameter, text: str) -> float:
    try:
        return parse_seconds(text) if text else 0.0
    except InputError as error:
        raise click.BadParameter(str(error), ctx, param) from None


def _printable(ctx: click.Context, param: click.Parameter, text: str) -> str:
    """What goes into a request line or a field: no blank, nothing that ends a line."""
    if any(not "!" <= sign <= "~" for sign in text):
        raise click.BadParameter(f"{text!r} may only have printable ASCII, no blanks", ctx, param)
    return text


@click.command(epilog="Exit status: 0 if a mode is found, 1 if something needs attention.")
@click.argument("target", metavar="HOST:PORT[/udp]", callback=_target)
@click.option(
    "--speaks",
    type=OneOf(NAMES),
    help="The protocol of the port; without it the probe finds out.",
)
@click.option("--path", default="/", callback=_printable, metavar="PATH",
              help="HTTP: the page to get, best one that shows its client.")  # fmt: skip
@click.option("--host", default="", callback=_printable, metavar="NAME",
              help="HTTP and TLS: the host name to ask for; HOST without it.")  # fmt: skip
@click.option("--client", default="", callback=_client, metavar="ADDRESS",
              help=f"The client that headers name; {CLIENT} without it.")  # fmt: skip
@click.option("--patience", default="", callback=_seconds, metavar="SECONDS",
              help="For one answer: 3 over TCP, 1 over UDP without it.")  # fmt: skip
@json_option
def probe(target: Endpoint, as_json: bool, **others: Any) -> None:
    """Send a server each form of the PROXY header, and say which mode of v6fwd fits it.

    Nothing is sent but the first bytes of the protocol that the port speaks (HTTP GET, SMTP EHLO,
    a DNS query without recursion, ...), over at most 100 connections within 60 seconds. The
    server's log then has the client's address that the headers named, where it reads them.
    """
    from v6fwd.probe.exchange import ProbeError  # the daemon, a command beside this one, needs
    from v6fwd.probe.run import Options  # none of it
    from v6fwd.probe.run import probe as ask

    if others["speaks"] not in (None, "dns") and target.protocol == "udp":
        raise click.UsageError("over UDP a probe speaks DNS alone")
    options = Options(**{key: value or "" for key, value in others.items() if key != "patience"},
                      patience=others["patience"])  # fmt: skip
    try:
        report = ask(target, options)
    except ProbeError as error:
        click.echo(f"v6fwd probe: {error}", err=True)
        sys.exit(1)
    if as_json:
        click.echo(json.dumps(report.to_json(), indent=2))
    else:
        _show(report)
    sys.exit(1 if report.choice.needs_attention else 0)


def _show(report: Report) -> None:
    from rich.console import Console  # 5 MB and 50 ms that no other command pays
    from rich.table import Table

    console = Console(highlight=False, soft_wrap=False)
    console.print(f"{report.target} speaks {report.speaks}; sent to it, after each form:"
                  f" {report.opening}", markup=False)  # fmt: skip
    console.print(f"headers name the client {report.client}", markup=False)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for head in ("FORM", "SENT", "RESULT", "ANSWER", "CLIENT SEEN"):
        table.add_column(head, overflow="fold")
    for tried in report.tried:
        table.add_row(*_row(tried))
    if report.tried:
        console.print(table)
    for line in _conclusion(report):
        console.print(line, markup=False, soft_wrap=True)


def _row(tried: Tried) -> tuple[Any, ...]:
    from rich.text import Text

    result = Text(tried.verdict.result, style=_COLOURS[tried.verdict.result])
    seen = _SEEN[tried.client_seen] if tried.is_accepted and tried.form.client else "-"
    plain = (tried.form.name, tried.form.what)
    return (*map(Text, plain), result, Text(tried.verdict.answer), Text(seen))


def _conclusion(report: Report) -> list[str]:
    lines = [f"largest v2 header: {report.largest}"] if report.largest else []
    if report.choice.mode is None:
        lines.append(f"no mode: {report.choice.why}")
    else:
        lines.append(f"mode: {report.choice.mode} ({report.choice.why})")
        lines.append(f"  {report.command}")
        if report.label:
            lines.append(f"  or as a container's label: {report.label}")
    return lines + [f"note: {note}" for note in report.choice.notes]
