"""`v6fwd doctor`: what on this host keeps IPv6 clients from being served or seen."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import click

from v6fwd.cli.asking import json_option, socket_option
from v6fwd.doctor.finding import Diagnosis, Finding
from v6fwd.model import Endpoint, InputError, parse_listen

_COLOURS = {"error": "red", "warning": "yellow", "note": "cyan"}


def _ports(ctx: click.Context, param: click.Parameter, words: tuple[str, ...]) -> list[Endpoint]:
    try:
        return [endpoint for word in words for endpoint in parse_listen(word)]
    except InputError as error:
        raise click.BadParameter(str(error), ctx, param) from None


@click.command(epilog="Exit status: 0 if all is well, 1 if something needs attention.")
@click.argument("ports", metavar="[PORT[/udp]]...", nargs=-1, callback=_ports)
@click.option(
    "--daemon-json",
    type=click.Path(dir_okay=False, path_type=Path),
    help="dockerd's configuration file, if it is not /etc/docker/daemon.json.",
)
@click.option("--docker-host", metavar="unix://PATH", help="The Engine's socket; else DOCKER_HOST.")
@click.option(
    "-c",
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    help="v6fwd's configuration file, if it is not /etc/v6fwd/v6fwd.toml.",
)
@socket_option
@json_option
def doctor(
    ports: list[Endpoint],
    daemon_json: Path | None,
    docker_host: str | None,
    config: Path | None,
    path: str,
    as_json: bool,
) -> None:
    """Check this host, Docker and v6fwd; change nothing. PORTs are checked one by one.

    Without PORT: every port that is published or forwarded. Each finding says what was looked at,
    what was found, why it matters, and what mends it. Runs without root and without Docker, and
    says what it could not look at.
    """
    # 1 MB that the daemon, which is a command beside this one, need not have
    from v6fwd.doctor.examine import examine
    from v6fwd.doctor.facts import Port
    from v6fwd.doctor.gather import Where, gather

    where = Where(control=path)
    if daemon_json is not None:
        where = replace(where, daemon_json=daemon_json)
    if config is not None:
        where = replace(where, config=config)
    if docker_host is not None:
        if not docker_host.startswith("unix:///"):
            raise click.BadParameter(f"{docker_host!r} is not unix:///PATH")
        where = replace(where, engine=docker_host)
    named = [Port(endpoint.port, endpoint.protocol) for endpoint in ports]
    diagnosis = examine(gather(named, where))
    if as_json:
        click.echo(json.dumps(diagnosis.to_json(), indent=2))
    else:
        _show(diagnosis)
    sys.exit(1 if diagnosis.needs_attention else 0)


def _show(diagnosis: Diagnosis) -> None:
    from rich.console import Console  # 5 MB and 50 ms that no other command pays

    console = Console(highlight=False)
    for finding in diagnosis.findings:
        _show_finding(console, finding)
    for each in diagnosis.not_looked_at:
        line = f"not looked at: {_clean(each.what)}: {_clean(each.why)}"
        console.print(line, markup=False, soft_wrap=True)
    if not diagnosis.findings:
        console.print("nothing is wrong with what was looked at", style="green")


def _show_finding(console: object, finding: Finding) -> None:
    from rich.console import Console
    from rich.text import Text

    assert isinstance(console, Console)
    style = f"bold {_COLOURS[finding.severity]}"
    head = Text(finding.severity, style=style)
    console.print(head + Text(f": {_clean(finding.looked_at)}: {_clean(finding.found)}", style=""))
    for name, text in (("why", finding.why), ("mend", finding.mend)):
        console.print(Text(f"  {name:<5} {_clean(text)}"), soft_wrap=True)


def _clean(text: str) -> str:
    """Names and labels come from outside: nothing of them is for the terminal to obey."""
    return "".join(sign if sign.isprintable() else "?" for sign in text)
