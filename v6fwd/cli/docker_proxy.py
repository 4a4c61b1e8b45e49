"""`v6fwd docker-proxy`: relay one published port, with docker-proxy's flags."""

from __future__ import annotations

import sys

import click

from v6fwd.docker.shim import standalone as proxy


@click.command(
    hidden=True,
    context_settings={"ignore_unknown_options": True, "help_option_names": []},
    add_help_option=False,
)
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
def docker_proxy(words: tuple[str, ...]) -> None:
    """Relay one port as docker-proxy does. The shim runs this in standalone mode."""
    sys.exit(proxy.main(words))
