"""Divides the process's descriptors among flows, sessions and pipes."""

from __future__ import annotations

import contextlib
import os
import resource

MAX_PIPES = 256
"""Pipes in use at once: what stalled bulk flows may hold in the kernel is 256 MiB in all."""
SOCKETS_AHEAD = 128
"""Sockets at most that a process has of its helper and has not used yet."""


class DescriptorBudget:
    """Divides the process's descriptors: two a flow, two a pipe, some to spare.

    `udp` is the share of UDP sessions, one descriptor each, where there are UDP forwards.
    """

    def __init__(
        self, descriptors: int, forwards: int, in_use: int, max_flows: int, udp: float = 0.0
    ) -> None:
        free = max(4, descriptors - in_use - forwards - 8)
        sessions = max(1, int(free * udp))
        self.sessions = min(max_flows, sessions) if max_flows else sessions
        free = max(4, free - int(free * udp))
        self.pipes = max(1, min(MAX_PIPES, free // 16))
        most = max(1, (free - 2 * self.pipes) // 2)
        self.flows = min(max_flows, most) if max_flows else most
        self.most = most

    @classmethod
    def of_this_process(cls, forwards: int, max_flows: int, udp: float = 0.0) -> DescriptorBudget:
        """The budget under RLIMIT_NOFILE, whose soft limit is raised to the hard one first."""
        return cls(raised_limit(), forwards, in_use(), max_flows, udp)


def raised_limit() -> int:
    """RLIMIT_NOFILE's soft limit, raised to the hard one where that is allowed."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def in_use() -> int:
    """Descriptors that the process has open."""
    return len(os.listdir("/proc/self/fd"))


def udp_share(forwards: int, of_udp: int) -> float:
    """Half for UDP beside TCP; alone it leaves TCP the few that no budget goes below."""
    return 0.0 if not of_udp else 0.5 if of_udp < forwards else 0.95
