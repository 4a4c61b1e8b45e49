"""Queries a running daemon over its control socket."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any

from v6fwd.errors import reason

PATIENCE = 30.0
"""Seconds for each line of an answer; a reload of thousands of forwards takes a few."""


class AskError(Exception):
    """The daemon did not answer, or refused. The text has one line for each error."""


def ask(path: str, request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the lines of the answer. Raises AskError."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(PATIENCE)
        try:
            sock.connect(path)
            sock.sendall(json.dumps(request).encode() + b"\n")
            yield from _lines(path, sock)
        except OSError as error:
            hint = "is `v6fwd serve` running?"
            if isinstance(error, PermissionError):
                hint = "it is for root, and for the group that [control] names"
            raise AskError(f"no answer at control socket {path}: {reason(error)}; {hint}") from None


def _lines(path: str, sock: socket.socket) -> Iterator[dict[str, Any]]:
    with sock.makefile("rb") as stream:
        for line in stream:
            answer: dict[str, Any] = json.loads(line)
            if "error" in answer:
                raise AskError("\n".join(answer["error"]))
            yield answer
            if answer.get("done"):
                return
    raise AskError(f"control socket {path}: the answer broke off")
