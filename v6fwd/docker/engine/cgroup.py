"""Tells a process's container from its control groups (cgroups(7)).

Engines name the group after the container: `/docker/ID` or `/system.slice/docker-ID.scope`; with
version 1 there is one for each controller.
"""

from __future__ import annotations

import re

from v6fwd.netns.search import PROC

_ID = re.compile(rb"\b[0-9a-f]{64}\b")


def container_of(pid: int) -> str:
    """Return the id of the container; "" if the process is in none, or has ended."""
    try:
        found = _ID.findall((PROC / str(pid) / "cgroup").read_bytes())
    except OSError:
        return ""
    return found[-1].decode() if found else ""
