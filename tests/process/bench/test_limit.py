"""The benchmark's relays in C pass tests that v6fwd's own relay passes.

A limit that lost bytes, ends or resets would be a limit of something else. Both are built with the
compiler's checks of memory and undefined behaviour. Left to v6fwd alone: what takes a timer, and a
reset from an end that has closed its half before (see ring.c).
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from bench.peers.limit import BUILD, Limit
from bench.processes import listening_ports
from tests.process.tcp.test_backpressure import ENDLESS, KERNEL_LIMIT, both_ways, ends
from tests.process.tcp.test_half_close import (
    test_both_at_once,
    test_close_at_once_after_connecting,
    test_end_at_once_after_connecting,
    test_end_in_the_first_segment,
    test_end_in_the_same_segment_as_data,
    test_end_waits_for_blocked_bytes,
)
from tests.process.tcp.test_resets import (
    test_clean_close_is_no_reset,
    test_reset_after_half_close,
    test_reset_behind_a_message,
    test_reset_by_both,
    test_reset_by_the_reader_in_bulk,
    test_reset_of_a_fresh_flow,
    test_reset_while_blocked,
    test_reset_while_both_directions_are_blocked,
)
from tests.support.process import ForwardProcess, eventually
from tests.support.rig import MIB, Feed, Rig

__all__ = [
    "test_both_at_once",
    "test_clean_close_is_no_reset",
    "test_close_at_once_after_connecting",
    "test_end_at_once_after_connecting",
    "test_end_in_the_first_segment",
    "test_end_in_the_same_segment_as_data",
    "test_end_waits_for_blocked_bytes",
    "test_reset_after_half_close",
    "test_reset_behind_a_message",
    "test_reset_by_both",
    "test_reset_by_the_reader_in_bulk",
    "test_reset_of_a_fresh_flow",
    "test_reset_while_blocked",
    "test_reset_while_both_directions_are_blocked",
]
HEADERS = {"epoll": "stdio.h", "ring": "liburing.h"}
ENGINES = [name for name, header in HEADERS.items() if Path("/usr/include", header).exists()]
POOL = 8 * MIB
"""What all flows of the ring share; its pages become resident as they are used."""
CHECKS = "-fsanitize=address,undefined -fno-sanitize-recover"


class LimitProcess(ForwardProcess):
    """One of the relays, in place of `v6fwd forward`."""

    def __init__(self, folder: Path, program: Path) -> None:
        super().__init__(folder)
        self._program = program

    def start(
        self,
        *words: str,
        prefix: Sequence[str] = (),
        ready: bool = True,  # noqa: ARG002 - always waited for
        preexec: Callable[[], object] | None = None,
    ) -> None:
        """Run it between the same two addresses."""
        listen, target = (word.rpartition(":") for word in words)
        command = [*prefix, str(self._program), "::", listen[2], target[0], target[2]]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(command, stderr=log, preexec_fn=preexec)
        port = int(listen[2])
        eventually(lambda: port in listening_ports(self.pid) or self.log, "listening")
        assert self.log == ""


def started(engine: str, folder: Path) -> Rig:
    """A rig with that relay in place of v6fwd."""
    subprocess.run([BUILD, folder, engine], check=True, env=os.environ | {"CFLAGS": CHECKS})
    rig = Rig(folder)
    rig.process = LimitProcess(folder, folder / engine)
    return rig.start()


@pytest.fixture(scope="module", params=ENGINES)
def shared(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Rig]:
    """One process for all tests."""
    rig = started(request.param, tmp_path_factory.mktemp("limit"))
    yield rig
    rig.end()


@pytest.fixture
def rig(shared: Rig) -> Iterator[Rig]:
    """As the rig of this name that runs v6fwd."""
    yield shared
    shared.drop()
    shared.probe()
    shared.settled()
    assert shared.process.log == ""


@both_ways
def test_a_writer_stalls_and_memory_is_bounded(rig: Rig, way: str) -> None:
    writer, reader = ends(rig, way)
    before = rig.process.resident()
    assert Feed(writer, ENDLESS, seed=3).until_stalled() < KERNEL_LIMIT
    assert rig.process.resident() - before < POOL + 4 * MIB
    rig.probe()
    writer.close()
    reader.close()


def test_a_broken_pipe_ends_no_relay(rig: Rig) -> None:
    """splice(2) into a socket that was reset sends SIGPIPE; rarely, so this asks the kernel."""
    status = Path(f"/proc/{rig.process.pid}/status").read_text()
    [ignored] = [line.split()[1] for line in status.splitlines() if line.startswith("SigIgn:")]
    assert int(ignored, 16) >> (signal.SIGPIPE - 1) & 1


@pytest.mark.parametrize("engine", ENGINES)
def test_a_target_that_refuses(engine: str, tmp_path: Path) -> None:
    rig = started(engine, tmp_path)
    try:
        rig.server.close()
        assert rig.is_cut_off()
        rig.settled()
        assert rig.process.is_running
    finally:
        rig.end()


@pytest.mark.parametrize("engine", ENGINES)
def test_it_is_built_where_it_is_missing(
    engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.peers.limit.BUILT", tmp_path)
    assert Limit(engine).obstacle() is None
    assert (tmp_path / engine).exists()
