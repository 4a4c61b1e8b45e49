"""Shared by the commands that ask a running daemon."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import click

from v6fwd.config import Control
from v6fwd.daemon.ask import AskError, ask

_F = TypeVar("_F", bound=Callable[..., Any])

EPILOG = "Exit status: 0 on success, 1 if the daemon reports an error or does not run."


def socket_option(command: _F) -> _F:
    """Add the option --socket."""
    return click.option(
        "--socket",
        "path",
        default=Control().socket,
        show_default=True,
        metavar="PATH",
        help="Control socket of the daemon, as in its configuration.",
    )(command)


def json_option(command: _F) -> _F:
    """Add the option --json."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def answers(path: str, do: str, **details: Any) -> Iterator[dict[str, Any]]:
    """Yield the daemon's answers. Without an answer, print a line to stderr and exit with 1."""
    try:
        yield from ask(path, {"do": do, **details})
    except AskError as error:
        click.echo(str(error), err=True)
        sys.exit(1)
