"""`v6fwd serve`: the forwards of a configuration file, in a daemon."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from v6fwd.config import ConfigError
from v6fwd.config.apart import load_apart
from v6fwd.errors import RelayError
from v6fwd.log import Log, keep_standard_descriptors


@click.command(
    epilog="Exit status: 0 after a clean stop, 1 if it cannot run, 2 for a bad configuration."
)
@click.option(
    "-c",
    "--config",
    "path",
    type=click.Path(path_type=Path),
    default=Path("v6fwd.toml"),
    show_default=True,
    help="The file that says what to forward; v6fwd.example.toml explains every key.",
)
@click.option("--check", is_flag=True, help="Say what is wrong with the configuration, and exit.")
@click.option(
    "--docker",
    is_flag=True,
    help="Serve Docker's published ports, too, as containers' labels say; see docs/docker.md.",
)
def serve(path: Path, check: bool, docker: bool) -> None:
    """Forward what the configuration says, with a worker process per core, until SIGTERM.

    \b
    SIGTERM  stop accepting, let flows finish, exit; SIGINT: the same, but not for long
    SIGHUP   read the configuration again, as `v6fwd reload` does
    A second `serve` with the same control socket takes over from the first without a gap.
    """
    try:
        config = load_apart(path)
        if docker and config.user:
            raise ConfigError(
                [f"{path}: user = {config.user!r}: --docker needs root; leave it out"]
            )
    except ConfigError as error:
        click.echo(str(error), err=True)
        sys.exit(2)
    if check:
        return
    from v6fwd.daemon.serve import serve as serve_config  # what no other command needs

    keep_standard_descriptors()
    log = Log(config.log_format)
    guests = []
    if docker:
        from v6fwd.docker.controller import Controller

        guests.append(Controller(config.docker, config.limits, log))
    try:
        serve_config(path, config, log, guests)
    except RelayError as error:
        log.error("failed", str(error))
        sys.exit(1)
