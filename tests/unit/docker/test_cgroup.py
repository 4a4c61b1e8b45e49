"""Whose container a process is in."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from v6fwd.docker.engine import cgroup
from v6fwd.docker.engine.cgroup import container_of

ID = "878887cc1012" + "4f" * 26
OTHER = "0123456789ab" + "5e" * 26


@pytest.mark.parametrize(
    ("groups", "container"),
    [
        (f"0::/docker/{ID}\n", ID),
        (f"0::/system.slice/docker-{ID}.scope\n", ID),
        (f"0::/../{ID}\n", ID),
        (f"12:pids:/docker/{ID}\n11:cpu,cpuacct:/docker/{ID}\n1:name=systemd:/docker/{ID}\n", ID),
        (f"0::/docker/{OTHER}/docker/{ID}\n", ID),
        (f"0::/docker/{ID}/init\n", ID),
        (f"0::/docker/{ID}0\n", ""),
        (f"0::/docker/{ID[:12]}\n", ""),
        ("0::/system.slice/docker.service\n", ""),
        ("", ""),
        (f"0::/user.slice/\udcff\udc80\n1:name=systemd:/docker/{ID}\n", ID),  # any bytes
    ],
)
def test_what_the_groups_say(
    groups: str, container: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With systemd and without, of version 1, seen from inside of a group, of Docker in Docker."""
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "cgroup").write_bytes(os.fsencode(groups))
    monkeypatch.setattr(cgroup, "PROC", tmp_path)
    assert container_of(7) == container


def test_processes_of_this_machine() -> None:
    assert container_of(os.getpid()) == ""
    assert container_of(0) == ""
    assert container_of(2**22 + 1) == "", "there is no such process"
