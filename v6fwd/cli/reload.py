"""`v6fwd reload`: make the running daemon read its configuration again."""

from __future__ import annotations

import click

from v6fwd.cli.asking import EPILOG, answers, socket_option


@click.command(name="reload", epilog=EPILOG)
@socket_option
def reload_(path: str) -> None:
    """Read the configuration again: open new forwards, drain removed ones.

    Unchanged forwards keep their sockets and flows. A configuration with a mistake changes nothing.
    """
    for _ in answers(path, "reload"):
        pass
