"""`v6fwd reload`: make the running daemon read its configuration again."""

from __future__ import annotations

import click

from v6fwd.cli.asking import EPILOG, answers, socket_option


@click.command(name="reload", epilog=EPILOG)
@socket_option
def reload_(path: str) -> None:
    """Open the forwards that are new in the configuration, drain those that are gone.

    Others keep their sockets and their flows. A configuration with a mistake changes nothing.
    """
    for _ in answers(path, "reload"):
        pass
