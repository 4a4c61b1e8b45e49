"""Shared by the commands that query a running daemon."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
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


def shown(answer: Mapping[str, Any]) -> dict[str, Any]:
    """An answer without the mark that it is the last one."""
    return {key: value for key, value in answer.items() if key != "done"}


def unanswered(answer: Mapping[str, Any]) -> Iterator[str]:
    """A line if workers have not answered: they are stopped or overloaded."""
    if missing := answer["missing"]:
        yield f"no answer from worker {', '.join(map(str, missing))}: it obeys when it runs again"


def show_result(path: str, do: str, **details: Any) -> None:
    """Have the daemon do it, and print the line with the result."""
    for answer in answers(path, do, **details):
        click.echo(escaped(str(answer.get("result", "done"))))  # release 0.1 tells no result
