"""The shim's standalone mode: a process a port, where dockerd waits."""

from __future__ import annotations

from tests.support.imports import AT_RUN, imported_by

UNNEEDED = {"asyncio", "click", "dataclasses", "inspect", "logging", "re", "typing", "uvloop"}


def test_it_starts_without_what_it_does_not_need() -> None:
    imported = imported_by(
        f"{AT_RUN} import os;"
        "os.dup2(os.open(os.devnull, os.O_WRONLY), 3);"
        "from v6fwd.docker.shim.standalone import main;"
        "main('-host-ip ::1 -host-port 1 -container-ip 127.0.0.1 -container-port 80'.split())"
    )
    assert not UNNEEDED & imported
