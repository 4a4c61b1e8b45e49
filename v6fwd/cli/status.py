"""`v6fwd status`: what the running daemon forwards, and how that goes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import click

from v6fwd.cli.asking import EPILOG, answers, json_option, socket_option
from v6fwd.cli.tables import moment, size, table
from v6fwd.daemon.view.figures import causes
from v6fwd.log import counted, escaped

Forward = Mapping[str, Any]

MISMATCH = "mismatch"
"""The mark of a mode that the target does not seem to expect."""
SHOWN_ERRORS = 2
"""Causes that a row has room for."""


@click.command(epilog=EPILOG)
@socket_option
@json_option
def status(path: str, as_json: bool) -> None:
    """Show the forwards of the running daemon: flows, bytes, errors, since when."""
    (answer,) = answers(path, "status")
    del answer["done"]
    click.echo(json.dumps(answer) if as_json else text(answer))


def text(answer: dict[str, Any]) -> str:
    """A line about the daemon, and a table of forwards."""
    workers = len(answer["workers"])
    first = (
        f"v6fwd {answer['version']}, process {answer['pid']}, since {moment(answer['since'])},"
        f" {counted(workers, 'worker')}, {answer['restarts']} restarted{_engine(answer)}"
        f"{_bans(answer)}"
    )
    rows = [[column(each) for column in _COLUMNS.values()] for each in answer["forwards"]]
    lines = [first, table(tuple(_COLUMNS), rows, right=_RIGHT) if rows else "no forward is open"]
    lines += [escaped(f"{each['listen']}: {each['mismatch']}") for each in mismatches(answer)]
    for held in answer.get("held", ()):  # a daemon of release 0.1 has none
        lines.append(escaped(f"{held['listen']} is not served: {held['why']}"))
    return "\n".join(lines)


def _engine(answer: Mapping[str, Any]) -> str:
    """The engine where it is not the native epoll; a daemon of release 0.1 does not say."""
    if why := answer.get("no_ring"):
        return f", engine epoll: {why}"
    if answer.get("engine") == "ring":
        return ", engine ring"
    return ", engine epoll in Python: no native module" if answer.get("native") is False else ""


def _bans(answer: Mapping[str, Any]) -> str:
    """How many there are, if any."""
    return f", {counted(bans, 'ban')}" if (bans := answer.get("bans")) else ""


def _target(forward: Forward) -> str:
    is_open = forward["state"] == "open"
    return str(forward["target"]) if is_open else f"({forward['state']})"


def client_ip(forward: Forward) -> str:
    """The mode, with a mark if the target seems to expect another one, and how many flows of mode
    `transparent` did not show the client's own address."""
    counts = forward.get("not_real", {})
    marks = [MISMATCH] * bool(forward.get("mismatch"))
    marks += [f"{count} {instead}" for instead, count in sorted(counts.items())]
    mode = str(forward.get("client_ip", ""))
    return f"{mode} ({', '.join(marks)})" if marks else mode


def mismatches(answer: Mapping[str, Any]) -> list[Forward]:
    """The forwards whose mode has that mark. A daemon of release 0.1 knows of none."""
    return [forward for forward in answer["forwards"] if forward.get("mismatch")]


def flow_counts(forward: Forward) -> tuple[str, str]:
    """How many flows live, and how many have begun."""
    return str(forward["flows"] - forward["ended"]), str(forward["flows"])


def _since(forward: Forward) -> str:
    return moment(forward["since"]) if "since" in forward else ""


def errors(forward: Forward) -> str:
    """How many, and of which causes the most; "-" for none."""
    by_cause = causes(forward)
    found = [f"{count} {cause}" for cause, count in by_cause.most_common(SHOWN_ERRORS) if count]
    more = by_cause.total() - sum(count for _, count in by_cause.most_common(SHOWN_ERRORS))
    return ", ".join(found + [f"{more} others"] * bool(more)) or "-"


_COLUMNS: Mapping[str, Callable[[Forward], str]] = {
    "LISTEN": lambda forward: str(forward["listen"]),
    "TARGET": _target,
    "CLIENT-IP": client_ip,
    "LIVE": lambda forward: flow_counts(forward)[0],
    "FLOWS": lambda forward: flow_counts(forward)[1],
    "UP": lambda forward: size(forward["bytes_up"]),
    "DOWN": lambda forward: size(forward["bytes_down"]),
    "SINCE": _since,
    "ERRORS": errors,
}
_RIGHT = "LIVE FLOWS UP DOWN"
