"""`v6fwd config`: the example of a configuration file, and what a file says and leaves out."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from v6fwd.cli.lazy import HelpfulGroup
from v6fwd.config import ConfigError


@click.group(cls=HelpfulGroup)
def config() -> None:
    """Print an example of a configuration file, or what is in force with one."""


@config.command()
def example() -> None:
    """Print v6fwd.example.toml, which explains every key. Its values are the defaults."""
    from v6fwd import config as package

    text = Path(package.__file__).with_name("v6fwd.example.toml").read_text(encoding="utf-8")
    click.echo(text, nl=False)


@config.command(epilog="Exit status: 0 for a file without mistakes, else 2.")
@click.option(
    "-c",
    "--config",
    "path",
    type=click.Path(path_type=Path),
    default=Path("v6fwd.toml"),
    show_default=True,
    help="The configuration file, as for `v6fwd serve`.",
)
def show(path: Path) -> None:
    """Print every key with its value and where that comes from: a line of a file, or default.

    That is what `serve` and `reload` make of the file and those that it includes. The text is a
    configuration file itself.
    """
    from v6fwd.config.show import show as show_config
    from v6fwd.relay.targets.loops import is_local_address

    try:
        for line in show_config(path, is_local_address):
            click.echo(line)
    except ConfigError as error:
        click.echo(str(error), err=True)
        sys.exit(2)
