"""`python -m bench.hostile_http`: what HTTP that is costly to read costs, beside HAProxy and nginx.

Four hostile connections (or the target behind them) send one kind of input as fast as it is taken,
while a client that behaves asks another target through the same relay. Shown are the relay's CPU
per MB of that input, and the other client's p50, p99 and slowest request. All on loopback.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import click

from bench.ground import Loopback
from bench.helpers.hostile import KINDS
from bench.peers import PEERS
from bench.peers.base import HEADER_HTTP, Peer, Relay, Route
from bench.processes import cpu_seconds, tree
from bench.run import interleave, own_trial
from bench.stats import spread
from bench.table import number
from bench.trial import Trial, helper_command

_WARM_UP = 0.5
"""Seconds until all buffers are full: from then on, what is sent is what is read."""
_MB = 1e6
_PRIORITY = 1
_UNHURT = "plain"


@dataclass(frozen=True, slots=True)
class Told:
    """One measurement."""

    cpu_per_mb: float  # ms
    rate: float  # MB/s
    p50: float  # ms
    p99: float
    slowest: float


@contextmanager
def _attacked(
    trial: Trial, peer: Peer, kind: str, seconds: float, *, realtime: bool
) -> Iterator[tuple[Relay, Path]]:
    """A relay under attack, and where the bytes are counted."""
    ground = trial.ground
    listens, targets = ground.ports(2), ground.ports(2)
    count, unused = trial.folder / "count", trial.folder / "unused"
    for path in (count, unused):
        path.write_bytes(bytes(8))
        path.chmod(0o666)
    lasts = str(seconds + 30)
    host = ground.target_host
    from_client = bool(KINDS[kind].again)
    words = [host, str(targets[0]), str(unused if from_client else count), lasts]
    hostile = trial.helper("container", "hostile", "target", kind, *words)
    words = [host, str(targets[1]), str(unused), lasts]
    good = trial.helper("container", "hostile", "target", _UNHURT, *words)
    trial.wait_for_ports(hostile, targets[:1], "target")
    trial.wait_for_ports(good, targets[1:], "target")
    relay = peer.start(trial, [Route(*pair) for pair in zip(listens, targets, strict=True)])
    if realtime:
        _go_realtime(good.pid, *(process.pid for process in tree(relay.roots)))
    words = [relay.host, str(relay.port), str(count if from_client else unused), lasts]
    if kind != _UNHURT:
        trial.helper("client", "hostile", "client", kind, *words)
    yield relay, count


def _go_realtime(*pids: int) -> None:
    """No other process of the machine gets in their way, short of RT throttling (sched(7))."""
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setscheduler(int(task.name), os.SCHED_RR, os.sched_param(_PRIORITY))


def measure(peer: Peer, kind: str, seconds: float, *, realtime: bool = False) -> Told:
    """One round. Raises TrialError."""
    with (
        own_trial(Loopback()) as trial,
        _attacked(trial, peer, kind, seconds, realtime=realtime) as (relay, count),
    ):
        time.sleep(_WARM_UP)
        port = str(relay.dials[1][1])
        words = ["chrt", "--rr", str(_PRIORITY)] * realtime
        words += [*helper_command("hostile"), "probe", relay.host, port, str(seconds)]
        sent, cpu, began = _counted(count), cpu_seconds(relay.roots), time.monotonic()
        said = trial.run("client", *words)
        sent, cpu = _counted(count) - sent, cpu_seconds(relay.roots) - cpu
        took = time.monotonic() - began
    times = sorted(map(float, said.split()))
    return Told(
        1000 * cpu / (sent / _MB) if sent else math.nan,
        sent / _MB / took,
        times[len(times) // 2],
        times[len(times) * 99 // 100],
        times[-1],
    )


def _counted(path: Path) -> int:
    return int.from_bytes(path.read_bytes(), "little")


def _line(kind: str, peer: Peer, told: Sequence[Told]) -> str:
    cells = []
    for key in Told.__slots__:
        cell = spread([getattr(one, key) for one in told])
        cells.append(f"{number(cell.median):>7} ({number(cell.high)})" if cell else "-")
    return f"{kind:22}{peer.name:14}" + "".join(f"{cell:>20}" for cell in cells)


@click.command()
@click.option(
    "--kind", "kinds", multiple=True, type=click.Choice(list(KINDS)), help="Default: all."
)
@click.option("--peer", "peers", multiple=True, help="By name; default: all that speak HTTP.")
@click.option("--seconds", default=2.0, show_default=True)
@click.option("--rounds", default=3, show_default=True, help="Of each kind, every peer in each.")
@click.option("--realtime", is_flag=True, help="On a busy machine: real-time priority; root only.")
def main(
    kinds: Sequence[str], peers: Sequence[str], seconds: float, rounds: int, realtime: bool
) -> None:
    """Measure: the median of the rounds, and the highest."""
    chosen = [
        peer
        for peer in PEERS
        if peer.header == HEADER_HTTP and not peer.obstacle() and (not peers or peer.name in peers)
    ]
    titles = ("CPU ms/MB", "MB/s", "p50 ms", "p99 ms", "slowest ms")
    click.echo(f"{'median (highest)':36}" + "".join(f"{title:>20}" for title in titles))
    for kind in kinds or KINDS:
        told: dict[str, list[Told]] = {peer.name: [] for peer in chosen}
        for peer in interleave(chosen, rounds):
            told[peer.name].append(measure(peer, kind, seconds, realtime=realtime))
        for peer in chosen:
            click.echo(_line(kind, peer, told[peer.name]))


if __name__ == "__main__":
    main()
