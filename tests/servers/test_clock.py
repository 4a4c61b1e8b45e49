"""A wall clock that jumps moves no timer: all of them run on the monotonic clock."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.support.process import eventually
from tests.support.servers import Apache, page
from tests.support.stage import PORT, Stage, client_script, curl
from v6fwd.demo.lab import CONTAINER_V4, HOST_V6

pytestmark = [pytest.mark.netns, pytest.mark.server("apache2", "curl", "nft", "faketime")]

HOUR = 3600
REQUEST = b"GET /one HTTP/1.1\r\nHost: container\r\nConnection: close\r\n\r\n"


def jumpy(clock: Path) -> tuple[str, ...]:
    """The command for a program whose wall clock is off by what the file `clock` says.

    faketime(1) would stay as the parent; with its library alone v6fwd is the process started.
    """
    library = subprocess.run(
        ["faketime", "-f", "+0", "printenv", "LD_PRELOAD"],
        capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    return (
        "env",
        f"LD_PRELOAD={library}",
        f"FAKETIME_TIMESTAMP_FILE={clock}",
        "FAKETIME_NO_CACHE=1",
        # A step of the wall clock, as by NTP or an operator, leaves the monotonic clock alone.
        "FAKETIME_DONT_FAKE_MONOTONIC=1",
    )


def records(log: str, event: str) -> list[dict[str, Any]]:
    """The log lines of one kind."""
    return [line for line in map(json.loads, log.splitlines()) if line["event"] == event]


def jump_to(clock: Path, seconds: int) -> None:
    """Set the clock in one step: libfaketime must never find half a file."""
    new = clock.with_suffix(".new")
    new.write_text(f"{seconds:+d}")
    new.rename(clock)


@pytest.fixture
def clock(stage: Stage) -> Iterator[Path]:
    """The file that sets the clock; the library's shared memory outlives a killed process."""
    file = stage.folder / "clock"
    jump_to(file, 0)
    yield file
    stage.forward.end()
    for left in Path("/dev/shm").glob(f"*faketime_*_{stage.forward.pid}"):
        left.unlink()


@pytest.mark.parametrize("jump", [+HOUR, -HOUR], ids=["forward", "back"])
def test_a_clock_jump_moves_no_timer(stage: Stage, clock: Path, jump: int) -> None:
    lab, server = stage.lab, Apache(stage.folder)
    server.start(lab)
    stage.drop("container", "tcp dport 81")
    pairs = (f"[::]:{PORT}", f"{CONTAINER_V4}:80", "[::]:8081", f"{CONTAINER_V4}:81")
    # The idle flows are looked at every 1.5 s, so at least once before the dial is given up.
    limits = ("--idle-timeout", "12", "--connect-timeout", "3")
    options = ("--client-ip", "proxy-v2", "--log-flows", "--log-format", "json")
    stage.start_forward(*pairs, *options, *limits, prefix=jumpy(clock))
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    silent = lab.start("client", *client_script("send_stdin", HOST_V6, str(PORT)), **pipes)
    eventually(lambda: stage.sockets("container", "established", ":80"), "the flow has begun")
    lost = lab.start("client", *curl(f"http://[{HOST_V6}]:8081/"), stderr=subprocess.PIPE)
    eventually(lambda: stage.sockets("host", "syn-sent", ":81"), "v6fwd dials")
    jump_to(clock, jump)
    _, error = lost.communicate(timeout=60)
    assert lost.returncode == 56, error  # reset: the connect timeout came, neither early nor late
    answer, _ = silent.communicate(REQUEST, timeout=60)
    assert answer.endswith(page("one").encode())
    eventually(lambda: len(records(stage.forward.log, "flow")) == 2, "both flows have ended")
    for record in records(stage.forward.log, "flow"):
        assert 3 <= record["seconds"] < 60
        shown = datetime.fromisoformat(record["time"]) - datetime.now(UTC)
        assert abs(shown.total_seconds() - jump) < 60  # v6fwd did see the jump
