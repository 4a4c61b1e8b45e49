"""`python -m bench.flood`: four clients of which one floods, with and without a guard.

In the lab network, each client a /64 of its own. Three come RATE times a second, and go on to;
the fourth comes as fast as it can. What counts is what the three are left with, against what they
had without it. Everything runs on this machine's processors, the flood itself included.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from v6fwd.demo.lab import CLIENT_V6, CONTAINER_V4, HOST_V6, Lab, lab_obstacle

PORT = 8080
RATE = 100.0
"""Visits a second of a client that behaves."""
AT_ONCE = 64
SECONDS = 8.0
GUARD = "client-flows = 50\nclient-rate = 200"
HELPERS = Path(__file__).with_name("helpers")

_CONFIG = """\
workers = {workers}
[control]
socket = "{folder}/control.sock"
[[forward]]
listen = "[::]:{port}"
target = "{target}:{port}"
{guard}
"""


@dataclass(frozen=True)
class Case:
    """A run: whether one floods, and what the forward says of that."""

    name: str
    floods: bool
    guard: str = ""


CASES = (
    Case("nobody floods", floods=False),
    Case("one floods, no guard", floods=True),
    Case("one floods, guard", floods=True, guard=GUARD),
)


def source(number: int) -> str:
    """The address of a client, in a /64 of its own."""
    return f"2001:db8:10{number}::2"


def clients_of_four_networks(lab: Lab) -> None:
    """Addresses at the client, and the host's way back to them."""
    for number in range(4):
        lab.ip("client", "address", "add", f"{source(number)}/128", "dev", "eth0", "nodad")
        lab.ip("host", "route", "add", f"2001:db8:10{number}::/64", "via", CLIENT_V6)


def measure(case: Case, workers: int, rate: float, seconds: float) -> list[dict[str, Any]]:
    """What the four clients tell; the last one is the flood, if there is any."""
    with tempfile.TemporaryDirectory(prefix="v6fwd-flood-") as folder, Lab() as lab:
        clients_of_four_networks(lab)
        helper = str(HELPERS / "echo.py")
        lab.start("container", sys.executable, helper, CONTAINER_V4, str(PORT))
        config = Path(folder) / "v6fwd.toml"
        config.write_text(
            _CONFIG.format(
                workers=workers, folder=folder, port=PORT, target=CONTAINER_V4, guard=case.guard
            )
        )
        log = (Path(folder) / "log").open("w+")
        with log:
            lab.start("host", sys.executable, "-m", "v6fwd", "serve", "-c", str(config), stderr=log)
            _wait_for(lab, Path(log.name))
            return _visit(lab, case, rate, seconds)


def _wait_for(lab: Lab, log: Path) -> None:
    """Until both are there."""
    until = time.monotonic() + 10
    filter_ = f"sport = :{PORT}"
    while (
        "ready: " not in log.read_text() or not lab.run("container", "ss", "-Hltn", filter_).stdout
    ):
        if time.monotonic() > until:
            raise click.ClickException(f"not ready in 10 s: {log.read_text()}")
        time.sleep(0.02)


def _visit(lab: Lab, case: Case, rate: float, seconds: float) -> list[dict[str, Any]]:
    rates = [rate, rate, rate, *([0.0] if case.floods else [])]
    processes: list[subprocess.Popen[Any]] = []
    for number, each in enumerate(rates):
        words = [HOST_V6, str(PORT), source(number), str(each), str(AT_ONCE), str(seconds)]
        helper = str(HELPERS / "visit.py")
        processes.append(
            lab.start("client", sys.executable, helper, *words, stdout=subprocess.PIPE, text=True)
        )
    return [json.loads(process.communicate(timeout=seconds + 30)[0]) for process in processes]


@click.command()
@click.option("--workers", default=2, show_default=True)
@click.option("--rate", default=RATE, show_default=True, help="Visits a second of the three.")
@click.option("--seconds", default=SECONDS, show_default=True)
@click.option("--rounds", default=3, show_default=True, help="Of each case, in turn.")
def main(workers: int, rate: float, seconds: float, rounds: int) -> None:
    """Four clients of which one floods: how many visits a second the others are left with."""
    obstacle = lab_obstacle()
    if obstacle:
        raise click.ClickException(obstacle)
    asked = rate * seconds
    print(f"{'':24} {'served of what they want':>26} {'slowest 1 %':>12} {'the flood':>28}")
    for round_ in range(rounds):
        for case in CASES:
            told = measure(case, workers, rate, seconds)
            shares = " ".join(f"{one['served'] / int(asked):7.1%}" for one in told[:3])
            slowest = max(one["p99"] for one in told[:3])
            flood = ""
            if case.floods:
                served, refused = told[3]["served"] / seconds, told[3]["refused"] / seconds
                flood = f"{served:.0f}/s in, {refused:.0f}/s refused"
            print(
                f"{round_ + 1} {case.name:22} {shares:>26} {slowest:9.1f} ms {flood:>28}",
                flush=True,
            )


if __name__ == "__main__":
    main()
