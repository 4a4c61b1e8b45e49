"""`v6fwd docker`: make dockerd use the shim, undo that, show who serves the published ports.

`status` without root shows the file of a rootless Docker, the only one that may be the user's.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any, NoReturn

import click

from v6fwd.cli.asking import socket_option
from v6fwd.cli.status import marked_mode
from v6fwd.cli.tables import table
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
from v6fwd.docker.shim.published import PublishedPort, ServedBy, published_ports
from v6fwd.docker.shim.rendezvous import run_folder
from v6fwd.errors import RelayError
from v6fwd.log import escaped
from v6fwd.model import InputError

RESTART = "systemctl restart docker"
_HEAD = ("LISTEN", "TARGET", "SERVED BY", "CLIENT-IP", "FLOWS", "PROCESS")

_daemon_json = click.option(
    "--daemon-json",
    type=click.Path(dir_okay=False, path_type=Path),
    help="dockerd's configuration file, if it is not /etc/docker/daemon.json.",
)


_rootless = click.option(
    "--rootless", is_flag=True, help="Change the file of your own rootless Docker."
)


@click.group()
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
        _tell_restart()
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
        _tell_restart()
    else:
        click.echo(f"{file.path}: {KEY} is not v6fwd's; nothing to do")
    _tell_what_hangs()


def _tell_what_hangs() -> None:
    held = [port for port in published_ports() if port.served_by is ServedBy.DAEMON]
    if held:
        click.echo(f"{len(held)} published ports stay with v6fwd until their containers restart")
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
    click.echo(f"released {count} shims; their containers see no client addresses any more")


@docker.command()
@_daemon_json
@socket_option
def status(daemon_json: Path | None, path: str) -> None:
    """Show which program serves each published port, in which mode, with how many flows."""
    default = DAEMON_JSON if os.geteuid() == 0 else rootless_daemon_json()
    file = DaemonJson(daemon_json or default)
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
        listen = str(port.forward.listen)
        why = held.get(listen) or served.get(listen, {}).get("mismatch")
        if why and _is_ours(port):
            click.echo(escaped(f"{listen}: {why}"))


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
            marked_mode(forward)
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
