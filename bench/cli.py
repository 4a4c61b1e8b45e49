"""The command line: `run` (the default), `report`, `show` and `plot`."""

from __future__ import annotations

import itertools
import os
import shlex
import signal
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from types import FrameType

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from bench.ground import Ground, find_ground
from bench.machine import machine, versions
from bench.peers import PEERS
from bench.peers.base import TRANSPARENT, descriptor_limit
from bench.plots import draw
from bench.readme import MarkerError, with_figures
from bench.result import Result, ResultError, from_json, to_json
from bench.run import Plan, carry_out, make_plan
from bench.scenarios import SCENARIOS
from bench.table import show
from v6fwd.demo.lab import lab_obstacle

RESULTS = Path(__file__).with_name("results")
ROUNDS, QUICK_ROUNDS = 5, 2


class _RunByDefault(click.Group):
    """A group whose command `run` need not be named."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """See click.Group."""
        if not args or (args[0].startswith("-") and args[0] not in ctx.help_option_names):
            args = ["run", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_RunByDefault)
def main() -> None:
    """v6fwd beside docker-proxy, HAProxy, nginx, socat and no relay at all, in the same run."""


@main.command()
@click.option("--quick", is_flag=True, help="Fewer scenarios and rounds, shorter loads: 3 minutes.")
@click.option("--loopback", is_flag=True, help="On loopback, not in network namespaces.")
@click.option(
    "--congestion",
    metavar="NAME",
    default="",
    help="TCP's congestion control in the namespaces.  [default: the machine's]",
)
@click.option(
    "--scenario",
    "scenarios",
    multiple=True,
    metavar="NAME",
    type=click.Choice([one.name for one in SCENARIOS]),
    help=f"Only this; may be repeated: {', '.join(one.name for one in SCENARIOS)}.",
)
@click.option(
    "--peer",
    "peers",
    multiple=True,
    metavar="NAME",
    type=click.Choice([one.name for one in PEERS]),
    help=f"Only this; may be repeated: {', '.join(one.name for one in PEERS)}.",
)
@click.option(
    "--rounds",
    type=click.IntRange(1, 100),
    help=f"Rounds of each scenario.  [default: {ROUNDS}, quick: {QUICK_ROUNDS}]",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=RESULTS,
    help="Folder for JSON and PNG.  [default: bench/results]",
)
def run(
    quick: bool,
    loopback: bool,
    congestion: str,
    scenarios: tuple[str, ...],
    peers: tuple[str, ...],
    rounds: int | None,
    out: Path,
) -> None:
    """Measure, print the table, write JSON and plots.

    Exit status: 0, or 1 if a measurement or a check failed.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    quick = quick or os.environ.get("QUICK", "") not in ("", "0")
    rounds = rounds or (QUICK_ROUNDS if quick else ROUNDS)
    console = Console()
    if not loopback and (why := lab_obstacle()) is not None:
        console.print(f"on loopback, since there can be no namespaces: {why}", highlight=False)
        loopback = True
    if loopback and congestion:
        raise click.UsageError("--congestion is of network namespaces, not of loopback")
    chosen = [one for one in SCENARIOS if one.name in scenarios or not scenarios]
    if quick and not scenarios:
        chosen = [one for one in chosen if one.in_quick]
    plan = make_plan(
        chosen,
        [
            one
            for one in PEERS
            if (one.name in peers or not peers) and not (loopback and one.header == TRANSPARENT)
        ],
        rounds=rounds,
        quick=quick,
    )
    for name, why in plan.obstacles.items():
        console.print(f"left out: {name}: {why}", highlight=False, markup=False)
    descriptor_limit()
    command = _command(quick, loopback, congestion, scenarios, peers, rounds)
    with find_ground(loopback=loopback) as ground:
        if congestion and (why := ground.use_congestion(congestion)):
            raise click.BadParameter(why, param_hint="--congestion")
        result = _new_result(plan, ground, command)
        _with_progress(plan, ground, result)
    show(console, result)
    for path in _save(result, out):
        console.print(f"wrote {_short(path)}", highlight=False, soft_wrap=True)
    sys.exit(1 if result.failures else 0)


@main.command()
@click.argument("source", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument(
    "pages", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
@click.option("--check", is_flag=True, help="Write nothing; exit 1 if a page differs.")
def report(source: Path, pages: tuple[Path, ...], check: bool) -> None:
    """Write a result's figures into pages, between their markers: no number is typed by hand."""
    result = _load(source)
    for page in pages:
        text = page.read_text()
        try:
            wanted = with_figures(text, result, os.path.relpath(source, page.parent))
        except MarkerError as error:
            raise click.BadParameter(f"{page}: {error}", param_hint="PAGES") from None
        if check and wanted != text:
            click.echo(f"{page} is not what {source} gives; run `python -m bench report`", err=True)
            sys.exit(1)
        if not check:
            page.write_text(wanted)


@main.command("show")
@click.argument("source", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def show_again(source: Path) -> None:
    """Print a result's tables again."""
    show(Console(), _load(source))


@main.command()
@click.argument("source", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def plot(source: Path) -> None:
    """Draw a result's pictures again, beside it."""
    for path in draw(_load(source), source.with_suffix("")):
        click.echo(f"wrote {_short(path)}")


def _new_result(plan: Plan, ground: Ground, command: str) -> Result:
    return Result(
        date=datetime.now().astimezone().isoformat(timespec="seconds"),
        command=command,
        place=ground.words,
        quick=plan.quick,
        rounds=plan.rounds,
        machine=machine() | {"congestion control": ground.congestion()},
        versions=versions(plan.peers),
        left_out=plan.obstacles | plan.unsuited,
    )


def _with_progress(plan: Plan, ground: Ground, result: Result) -> None:
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("", total=plan.steps)
        begun = itertools.count()
        carry_out(
            plan,
            ground,
            result,
            lambda what: progress.update(bar, completed=next(begun), description=what),
        )


def _save(result: Result, out: Path) -> list[Path]:
    out.mkdir(parents=True, exist_ok=True)
    when = datetime.fromisoformat(result.date).strftime("%Y-%m-%d-%H%M")
    quick = "-quick" if result.quick else ""
    path = out / f"{when}-{result.machine['kernel']}{quick}.json"
    path.write_text(to_json(result))
    try:
        return [path, *draw(result, path.with_suffix(""))]
    except ImportError:
        click.echo("left out: plots (no matplotlib)", err=True)
        return [path]


def _load(source: Path) -> Result:
    try:
        return from_json(source.read_text())
    except ResultError as error:
        raise click.BadParameter(f"{source}: {error}", param_hint="SOURCE") from None


def _command(
    quick: bool,
    loopback: bool,
    congestion: str,
    scenarios: Sequence[str],
    peers: Sequence[str],
    rounds: int,
) -> str:
    words = ["python", "-m", "bench"]
    words += ["--quick"] * quick + ["--loopback"] * loopback
    words += ["--congestion", congestion] if congestion else []
    words += [word for name in scenarios for word in ("--scenario", name)]
    words += [word for name in peers for word in ("--peer", name)]
    return shlex.join([*words, "--rounds", str(rounds)])


def _short(path: Path) -> str:
    """Relative where it is below us."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def _interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - a signal handler
    raise KeyboardInterrupt
