"""`v6fwd docker`: make dockerd use the shim, undo it, show who serves the published ports."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NoReturn

import click

from v6fwd.docker.daemon_json import KEY
from v6fwd.docker.install import DaemonJson, default_daemon_json, find_shim
from v6fwd.docker.ports import PublishedPort, published_ports
from v6fwd.model import InputError

RESTART = "systemctl restart docker"

_daemon_json = click.option(
    "--daemon-json",
    type=click.Path(dir_okay=False, path_type=Path),
    help="dockerd's configuration file, if it is not /etc/docker/daemon.json.",
)


@click.group()
def docker() -> None:
    """Let Docker's published ports be served by v6fwd."""


@docker.command()
@_daemon_json
def install(daemon_json: Path | None) -> None:
    """Set "userland-proxy-path" in daemon.json, and leave every other byte as it is."""
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
    """Put daemon.json back as it was before `install`."""
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
def status(daemon_json: Path | None) -> None:
    """Show which program serves each published port."""
    file = DaemonJson(daemon_json or default_daemon_json())
    try:
        value = file.value(KEY)
    except (InputError, OSError) as error:
        _fail(error)
    click.echo(f"{file.path}: {KEY} is {value or 'not set'}")
    ports = published_ports()
    for line in _table(ports):
        click.echo(line)
    if not ports:
        click.echo("no port is published, or dockerd starts no proxies")


def _table(ports: list[PublishedPort]) -> list[str]:
    rows = [
        (str(port.forward.listen), str(port.forward.target), port.served_by, f"pid {port.pid}")
        for port in ports
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _tell_backup(file: DaemonJson) -> None:
    if file.backup.exists():
        click.echo(f"{file.backup} is what it was before")


def _tell_restart() -> None:
    click.echo(f"dockerd reads this when it starts: {RESTART}")
    click.echo("that stops and starts the containers, unless daemon.json has live-restore")


def _fail(error: Exception) -> NoReturn:
    click.echo(f"v6fwd docker: {error}", err=True)
    sys.exit(1)
