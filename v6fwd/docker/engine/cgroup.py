"""Whose container a process is in, as its control groups tell (cgroups(7)).

Engines name the group after the container: `/docker/ID`, `/system.slice/docker-ID.scope`, or with
version 1 one of both for each controller.
"""

from __future__ import annotations

import re

from v6fwd.netns.search import PROC

_ID = re.compile(r"\b[0-9a-f]{64}\b")


def container_of(pid: int) -> str:
    """The id of the container; "" if it is in none, or has ended."""
    try:
        found = _ID.findall((PROC / str(pid) / "cgroup").read_text())
    except OSError:
        return ""
    return found[-1] if found else ""
