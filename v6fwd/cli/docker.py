"""`v6fwd docker`: make dockerd use the shim, undo that, show who serves the published ports."""

from __future__ import annotations

import sys
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any, NoReturn

import click

from v6fwd.cli.asking import socket_option
from v6fwd.cli.tables import table
from v6fwd.daemon.ask import AskError, ask
from v6fwd.docker.daemon_json import KEY
from v6fwd.docker.install import DaemonJson, default_daemon_json, find_shim
from v6fwd.docker.shim.published import PublishedPort, ServedBy, published_ports
from v6fwd.log import escaped
from v6fwd.model import InputError

RESTART = "systemctl restart docker"
_HEAD = ("LISTEN", "TARGET", "SERVED BY", "CLIENT-IP", "FLOWS", "PROCESS")

_daemon_json = click.option(
    "--daemon-json",
    type=click.Path(dir_okay=False, path_type=Path),
    help="dockerd's configuration file, if it is not /etc/docker/daemon.json.",
)


@click.group()
def docker() -> None:
    """Have v6fwd serve Docker's published ports."""


@docker.command()
@_daemon_json
def install(daemon_json: Path | None) -> None:
    """Set "userland-proxy-path" in daemon.json; every other byte stays as it is."""
    file = DaemonJson(daemon_json or default_daemon_json())
    try:
        shim = find_shim()
        changed = file.install(shim)
        is_off = file.value("userland-proxy") is False
    except (InputError, OSError) as error:
        _fail(error)
    if changed:
        click.echo(f"{file.path}: {KEY} is {shim} now")
        _tell_backup(file)
        _tell_restart()
    else:
        click.echo(f"{file.path}: {KEY} is {shim} already; nothing to do")
    if is_off:
        click.echo('note: "userland-proxy": false is there, so dockerd starts no proxy at all')


@docker.command()
@_daemon_json
def uninstall(daemon_json: Path | None) -> None:
    """Restore daemon.json as it was before `install`."""
    file = DaemonJson(daemon_json or default_daemon_json())
    try:
        changed = file.uninstall()
    except (InputError, OSError) as error:
        _fail(error)
    if changed:
        click.echo(f"{file.path}: {KEY} is as it was before")
        _tell_restart()
    else:
        click.echo(f"{file.path}: {KEY} is not v6fwd's; nothing to do")


@docker.command()
@_daemon_json
@socket_option
def status(daemon_json: Path | None, path: str) -> None:
    """Show which program serves each published port, in which mode, with how many flows."""
    file = DaemonJson(daemon_json or default_daemon_json())
    try:
        value = file.value(KEY)
    except (InputError, OSError) as error:
        _fail(error)
    click.echo(escaped(f"{file.path}: {KEY} is {value or 'not set'}"))
    ports = published_ports()
    if not ports:
        click.echo("no port is published, or dockerd starts no proxies")
        return
    served, held = _served(path) if any(map(_is_ours, ports)) else ({}, {})
    click.echo(table(_HEAD, [_row(port, served, held) for port in ports], right="FLOWS"))
    for port in ports:
        why = held.get(str(port.forward.listen))
        if why and _is_ours(port):
            click.echo(escaped(f"{port.forward.listen}: {why}"))


def _is_ours(port: PublishedPort) -> bool:
    return port.served_by is not ServedBy.DOCKER


def _served(path: str) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Return the daemon's forwards, and why others are not served, by listener.

    Nothing, and a line on stderr, if the daemon is silent.
    """
    try:
        (answer,) = ask(path, {"do": "status"})
    except AskError as error:
        click.echo(str(error), err=True)
        return {}, {}
    served = {each["listen"]: each for each in answer["forwards"] if each["state"] == "open"}
    return served, {each["listen"]: each["why"] for each in answer.get("held", ())}


def _row(
    port: PublishedPort, served: Mapping[str, dict[str, Any]], held: Container[str]
) -> tuple[str, ...]:
    listen, target = str(port.forward.listen), str(port.forward.target)
    mode, flows = "none", "-"
    if port.served_by is ServedBy.DAEMON:
        forward = served.get(listen)
        mode = (
            forward["client_ip"]
            if forward
            else "held"
            if listen in held
            else "waits for v6fwd serve"
        )
        flows = str(forward["flows"] - forward["ended"]) if forward else "-"
    return listen, target, port.served_by, mode, flows, f"pid {port.pid}"


def _tell_backup(file: DaemonJson) -> None:
    if file.backup.exists():
        click.echo(f"{file.backup} is a copy of the file as it was")


def _tell_restart() -> None:
    click.echo(f"dockerd reads this when it starts: {RESTART}")
    click.echo("a restart stops and starts the containers, unless daemon.json has live-restore")


def _fail(error: Exception) -> NoReturn:
    click.echo(escaped(f"v6fwd docker: {error}"), err=True)
    sys.exit(1)
