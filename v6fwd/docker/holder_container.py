"""Names the container whose published port a process of dockerd's serves."""

from __future__ import annotations

import asyncio

from v6fwd.config import Docker
from v6fwd.docker.engine.client import EngineApi, EngineError
from v6fwd.docker.engine.containers import find_containers, read_containers
from v6fwd.docker.shim.flags import parse_flags
from v6fwd.docker.shim.published import split_command
from v6fwd.model import InputError
from v6fwd.netns.owners import Process

PATIENCE = 1.0
"""Seconds for the Engine: whoever waits has a command that failed already."""


def container_of(process: Process) -> str:
    """Return the container's name; "" for other processes, and where the Engine is silent."""
    split = split_command(list(process.words))
    if split is None:
        return ""
    try:
        forward = parse_flags(split[1]).forward
        listed = asyncio.run(_listed())
    except (InputError, EngineError, TimeoutError):
        return ""
    found = find_containers(read_containers(listed), forward)
    return found[0].name if len(found) == 1 else ""


async def _listed() -> list[dict[str, object]]:
    async with asyncio.timeout(PATIENCE):
        return await EngineApi(Docker().host).containers()
