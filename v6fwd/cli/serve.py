"""`v6fwd serve`: run the forwards of a configuration file as a daemon."""

from __future__ import annotations

from pathlib import Path

import click

from v6fwd.cli.daemon import DEFAULT, configuration, serve_config
from v6fwd.config import Config
from v6fwd.log import counted


@click.command(
    epilog="Exit status: 0 after a clean stop, 1 if it cannot run, 2 for a bad configuration."
)
@click.option(
    "-c",
    "--config",
    "path",
    type=click.Path(path_type=Path),
    default=DEFAULT,
    show_default=True,
    help="The configuration file; `v6fwd config example` explains every key. --docker needs none.",
)
@click.option(
    "--check", is_flag=True, help="Check the configuration, report every mistake, and exit."
)
@click.option(
    "--docker",
    is_flag=True,
    help="Also serve Docker's published ports, configured by labels; see docs/docker.md.",
)
@click.pass_context
def serve(ctx: click.Context, path: Path, check: bool, docker: bool) -> None:
    """Run the forwards of a configuration file, with one worker process per core.

    \b
    SIGTERM  stop accepting, let flows finish for drain-timeout, exit
    SIGINT   the same within interrupt-timeout
    SIGHUP   reload the configuration, as `v6fwd reload` does
    A second `serve` with the same control socket takes over from the first without a gap.
    """
    is_named = ctx.get_parameter_source("path") is not click.core.ParameterSource.DEFAULT
    needs_file = is_named or not docker
    config = configuration(path, docker=docker, needs_file=needs_file)
    if check:
        click.echo(_checked(path, config))
    else:
        serve_config(path, config, docker=docker, needs_file=needs_file)


def _checked(path: Path, config: Config) -> str:
    """The line for a configuration without mistakes."""
    if not path.exists():
        return f"there is no {path}; --docker needs none"
    return f"{path}: no mistakes, {counted(len(config.forwards), 'forward')}"
