"""`v6fwd drain`: finish the flows of the daemon, or of one forward, and stop."""

from __future__ import annotations

import click

from v6fwd.cli.asking import EPILOG, show_result, socket_option


@click.command(epilog=EPILOG)
@click.argument("listen", required=False)
@socket_option
def drain(listen: str | None, path: str) -> None:
    """Stop accepting, let flows finish for drain-timeout, then stop the daemon, as SIGTERM does.

    With LISTEN ([::]:8080, [::]:53/udp), close only that forward until the next reload.
    """
    details = {"listen": listen} if listen else {}
    show_result(path, "drain", **details)
