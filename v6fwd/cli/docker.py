"""`v6fwd docker`: make dockerd use the shim, undo that, show who serves the published ports.

`status` without root shows the file of a rootless Docker, the only one that may be the user's.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NoReturn

import click

from v6fwd.cli.asking import socket_option
from v6fwd.cli.docker_status import Told, rows, text
from v6fwd.cli.lazy import HelpfulGroup
from v6fwd.daemon.ask import AskError, ask
from v6fwd.docker.daemon_json import KEY
from v6fwd.docker.install import (
    DAEMON_JSON,
    DaemonJson,
    daemon_json_to_change,
    find_shim,
    rootless_daemon_json,
)
from v6fwd.docker.release import release
from v6fwd.docker.shim.published import ServedBy, published_ports
from v6fwd.docker.shim.rendezvous import run_folder
from v6fwd.errors import RelayError
from v6fwd.log import counted, escaped
from v6fwd.model import InputError

RESTART = "systemctl restart docker"

_daemon_json = click.option(
    "--daemon-json",
    type=click.Path(dir_okay=False, path_type=Path),
    help="dockerd's configuration file, if it is not /etc/docker/daemon.json.",
)


_rootless = click.option(
    "--rootless", is_flag=True, help="Change the file of your own rootless Docker."
)


@click.group(cls=HelpfulGroup)
def docker() -> None:
    """Have v6fwd serve Docker's published ports."""


@docker.command()
@_daemon_json
@_rootless
def install(daemon_json: Path | None, rootless: bool) -> None:
    """Set "userland-proxy-path" in daemon.json; every other byte stays as it is."""
    try:
        file = DaemonJson(daemon_json or daemon_json_to_change(rootless=rootless))
        shim = find_shim()
        changed = file.install(shim)
        is_off = file.value("userland-proxy") is False
    except (InputError, OSError) as error:
        _fail(error)
    if changed:
        click.echo(f"{file.path}: {KEY} is {shim} now")
        _tell_backup(file)
        _tell_restart(rootless=rootless)
        if rootless:
            _tell_rootless()
    else:
        click.echo(f"{file.path}: {KEY} is {shim} already; nothing to do")
    if is_off:
        click.echo('note: "userland-proxy": false is there, so dockerd starts no proxy at all')


@docker.command()
@_daemon_json
@_rootless
def uninstall(daemon_json: Path | None, rootless: bool) -> None:
    """Restore daemon.json as it was before `install`."""
    try:
        file = DaemonJson(daemon_json or daemon_json_to_change(rootless=rootless))
        changed = file.uninstall()
    except (InputError, OSError) as error:
        _fail(error)
    if changed:
        click.echo(f"{file.path}: {KEY} is as it was before")
        _tell_restart(rootless=rootless)
    else:
        click.echo(f"{file.path}: {KEY} is not v6fwd's; nothing to do")
    _tell_what_hangs()


def _tell_what_hangs() -> None:
    held = [port for port in published_ports() if port.served_by is ServedBy.DAEMON]
    if held:
        click.echo(
            f"{counted(len(held), 'published port')} left with v6fwd until the containers restart"
        )
        click.echo(
            "keep `v6fwd serve --docker` running until then: without it their clients hang, or"
            " stop it and let each shim go on alone: v6fwd docker release"
        )


@docker.command(name="release")
def release_() -> None:
    """Let each shim serve its port alone, after `v6fwd serve --docker` was stopped for good.

    Containers see no client addresses then, as with docker-proxy. A container that trusts a header
    takes one from anybody: restart it instead.
    """
    try:
        count = release(run_folder())
    except (RelayError, OSError) as error:
        _fail(error)
    click.echo(
        f"released {counted(count, 'shim')}; their containers see no client addresses any more"
    )


@docker.command()
@_daemon_json
@socket_option
def status(daemon_json: Path | None, path: str) -> None:
    """Show who serves each published port, for which container, in which mode, and why.

    LIVE counts flows of this moment, FLOWS all since the port was opened. Labels that are wrong,
    or for a port that is not published, have a line each. Of a swarm whose mesh is served, the
    services with their tasks and the nodes have tables of their own.
    """
    default = DAEMON_JSON if os.geteuid() == 0 else rootless_daemon_json()
    file = DaemonJson(daemon_json or default)
    try:
        value = file.value(KEY)
    except (InputError, OSError) as error:
        _fail(error)
    click.echo(escaped(f"{file.path}: {KEY} is {value or 'not set'}"))
    ports = published_ports()
    told = _told(path, is_needed=any(port.served_by is not ServedBy.DOCKER for port in ports))
    found = rows(ports, told)
    if not found:
        click.echo("no port is published, or dockerd starts no proxies")
    if found or told.labels or told.nodes:
        click.echo(text(found, told))


def _told(path: str, *, is_needed: bool) -> Told:
    """Return what the daemon says. A silent one is told of on stderr if ports need it."""
    try:
        (answer,) = ask(path, {"do": "status"})
    except AskError as error:
        if is_needed:
            click.echo(str(error), err=True)
        return Told()
    return Told.of(answer)


def _tell_rootless() -> None:
    click.echo(
        "note: RootlessKit takes the clients of a rootless Docker's ports, and their addresses are"
        " lost before they reach the shim: docs/rootless.md has what works"
    )


def _tell_backup(file: DaemonJson) -> None:
    if file.backup.exists():
        click.echo(f"{file.backup} is a copy of the file as it was")


def _tell_restart(*, rootless: bool) -> None:
    restart = RESTART.replace("systemctl", "systemctl --user") if rootless else RESTART
    click.echo(f"dockerd reads this when it starts: {restart}")
    click.echo("a restart stops and starts the containers, unless daemon.json has live-restore")


def _fail(error: Exception) -> NoReturn:
    click.echo(escaped(f"v6fwd docker: {error}"), err=True)
    sys.exit(1)
