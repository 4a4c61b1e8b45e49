"""What SELinux and AppArmor have refused to our programs and Docker's, from their logs."""

from __future__ import annotations

import os
import re
from pathlib import Path

from v6fwd.doctor.facts import Unknown
from v6fwd.errors import reason

_PROGRAMS = re.compile(r"comm=\"?(v6fwd|docker-proxy|dockerd|hold-|python3)")


def read_denials(root: Path) -> tuple[str, ...] | Unknown:
    """Lines in which one of our programs or Docker's was refused something. Raises nothing."""
    found: list[str] = []
    if _read(root / "sys/fs/selinux/enforce").strip() == "1":
        path = root / "var/log/audit/audit.log"
        try:
            text = _tail(path)
        except OSError as error:
            return Unknown(f"{path}: {reason(error)}")
        found += [line for line in text.splitlines() if "avc:" in line and "denied" in line]
    if _read(root / "sys/module/apparmor/parameters/enabled").strip() == "Y":
        path = root / "dev/kmsg"
        try:
            text = _kernel_log(path)
        except OSError as error:
            return Unknown(f"{path}: {reason(error)}")
        found += [line for line in text.splitlines() if 'apparmor="DENIED"' in line]
    return tuple(line for line in found if _PROGRAMS.search(line))


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _tail(path: Path, size: int = 256 * 1024) -> str:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - size))
        return file.read().decode(errors="replace")


def _kernel_log(path: Path) -> str:
    """One record a read(2), and EAGAIN at the end (Documentation/ABI/testing/dev-kmsg)."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    parts = []
    try:
        while part := os.read(fd, 8192):
            parts.append(part)
    except BlockingIOError:
        pass
    finally:
        os.close(fd)
    return b"".join(parts).decode(errors="replace")
