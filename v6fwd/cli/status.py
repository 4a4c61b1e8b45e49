"""`v6fwd status`: what the running daemon forwards, and how that goes."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import click

from v6fwd.cli.asking import EPILOG, answers, json_option, socket_option
from v6fwd.cli.tables import moment, size, table
from v6fwd.log import escaped
from v6fwd.relay.ends import End, end_of

MISMATCH = " (mismatch)"
"""Behind a mode that the target does not seem to expect."""
SHOWN_ERRORS = 2
"""Causes that a row has room for."""

_HEAD = ("LISTEN", "TARGET", "CLIENT-IP", "LIVE", "FLOWS", "UP", "DOWN", "SINCE", "ERRORS")
_COUNTED = (End.REFUSED, End.TARGET_FAILED)
"""Ends that `refused`, `dial_failures` and others count already, with more detail."""


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
        f" {workers} worker{'s' if workers != 1 else ''}, {answer['restarts']} restarted"
    )
    rows = [_row(forward) for forward in answer["forwards"]]
    lines = [first, table(_HEAD, rows, right="LIVE FLOWS UP DOWN")]
    lines += [escaped(f"{each['listen']}: {each['mismatch']}") for each in mismatches(answer)]
    for held in answer.get("held", ()):  # a daemon of release 0.1 has none
        lines.append(escaped(f"{held['listen']} is not served: {held['why']}"))
    return "\n".join(lines)


def _row(forward: dict[str, Any]) -> tuple[str, ...]:
    is_open = forward["state"] == "open"
    return (
        forward["listen"],
        forward["target"] if is_open else f"({forward['state']})",
        marked_mode(forward) if is_open else "",
        str(forward["flows"] - forward["ended"]),
        str(forward["flows"]),
        size(forward["bytes_up"]),
        size(forward["bytes_down"]),
        moment(forward["since"]) if is_open else "",
        errors(forward),
    )


def marked_mode(forward: dict[str, Any]) -> str:
    """The mode, with a mark if the target seems to expect another one."""
    return f"{forward['client_ip']}{MISMATCH if forward.get('mismatch') else ''}"


def mismatches(answer: dict[str, Any]) -> list[dict[str, Any]]:
    """The forwards whose mode has that mark. A daemon of release 0.1 knows of none."""
    return [forward for forward in answer["forwards"] if forward.get("mismatch")]


def errors(forward: dict[str, Any]) -> str:
    """How many, and of which causes the most; "-" for none."""
    causes = Counter(forward["dial_failures"])
    causes["PROXY header refused"] += forward["header_refused"]
    causes["HTTP refused"] += forward["http_refused"]
    for end, count in forward["ends"].items():
        if _is_error(end):
            causes[end] += count
    for cause in ("too_large", "full", "failed", "no_room"):
        causes[f"datagrams lost: {cause.replace('_', ' ')}"] += forward.get("udp", {}).get(cause, 0)
    found = [f"{count} {cause}" for cause, count in causes.most_common(SHOWN_ERRORS) if count]
    more = sum(causes.values()) - sum(count for _, count in causes.most_common(SHOWN_ERRORS))
    return ", ".join(found + [f"{more} others"] * bool(more)) or "-"


def _is_error(text: str) -> bool:
    """Whether an end is to be shown here; one that only another version knows is."""
    end = end_of(text)
    return end is None or (end.is_error and end not in _COUNTED)
