"""`v6fwd reload`: make the running daemon read its configuration again."""

from __future__ import annotations

import click

from v6fwd.cli.asking import EPILOG, show_result, socket_option


@click.command(name="reload", epilog=EPILOG)
@socket_option
def reload_(path: str) -> None:
    """Open new forwards of the configuration and drain removed ones.

    The others keep their sockets and flows. An invalid configuration changes nothing.
    """
    show_result(path, "reload")
