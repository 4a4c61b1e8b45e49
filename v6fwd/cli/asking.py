"""What the commands that ask a running daemon have in common."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import click

from v6fwd.config import Control
from v6fwd.daemon.ask import AskError, ask

_F = TypeVar("_F", bound=Callable[..., Any])

EPILOG = "Exit status: 0 if the daemon did it, 1 if not or if there is none."


def socket_option(command: _F) -> _F:
    """--socket."""
    return click.option(
        "--socket",
        "path",
        default=Control().socket,
        show_default=True,
        metavar="PATH",
        help="The control socket of the daemon, as its configuration names it.",
    )(command)


def json_option(command: _F) -> _F:
    """--json."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")(command)


def answers(path: str, do: str, **details: Any) -> Iterator[dict[str, Any]]:
    """What the daemon says; without an answer the program ends here, with a line on stderr."""
    try:
        yield from ask(path, {"do": do, **details})
    except AskError as error:
        click.echo(str(error), err=True)
        sys.exit(1)
