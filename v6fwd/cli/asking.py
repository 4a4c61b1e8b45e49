"""Shared by the commands that query a running daemon."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import click

from v6fwd.config import Control
from v6fwd.daemon.ask import AskError, ask
from v6fwd.log import escaped

_F = TypeVar("_F", bound=Callable[..., Any])

EPILOG = "Exit status: 0 on success, 1 if the daemon refuses or is not running."


def socket_option(command: _F) -> _F:
    """--socket."""
    return click.option(
        "--socket",
        "path",
        default=Control().socket,
        show_default=True,
        metavar="PATH",
        help="The daemon's control socket.",
    )(command)


def json_option(command: _F) -> _F:
    """--json."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")(command)


def answers(path: str, do: str, **details: Any) -> Iterator[dict[str, Any]]:
    """Yield the daemon's answers. On failure, print the reason to stderr and exit with 1."""
    try:
        yield from ask(path, {"do": do, **details})
    except AskError as error:
        click.echo(str(error), err=True)
        sys.exit(1)


def show_result(path: str, do: str, **details: Any) -> None:
    """Have the daemon do it, and print the line with the result."""
    for answer in answers(path, do, **details):
        click.echo(escaped(str(answer.get("result", "done"))))  # release 0.1 tells no result
