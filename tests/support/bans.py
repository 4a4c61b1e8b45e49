"""For tests with fail2ban: a client of ssh that it is to ban, and whom it has banned."""

from __future__ import annotations

import subprocess
from pathlib import Path

_OPTIONS = ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "BatchMode=yes")
MALLORY = ("ssh", *(f"-o{option}" for option in _OPTIONS), "-lmallory")
"""The command of a user whom no server knows."""


def banned_by(log: Path, jail: str) -> set[str]:
    """Whom fail2ban finds in a log with one of its own filters."""
    command = ["fail2ban-regex", "--out", "ip", str(log), jail]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    return set(found.stdout.split())


def as_auth_log(text: str) -> str:
    """What sshd has said as a syslog daemon writes it, which no container of a test has."""
    return "".join(f"Nov 23 06:50:00 host sshd[7]: {line}\n" for line in text.splitlines())
