"""A result on the terminal."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bench.compare import COLUMNS, CONTESTS, Contest, rows
from bench.result import Result, ScenarioResult
from bench.stats import Spread, spread


def show(console: Console, result: Result) -> None:
    """Print medians with their range, then the ratios, then what was left out and what failed."""
    for scenario in result.scenarios:
        if scenario.peers:
            console.print(figures_table(scenario))
    for contest in CONTESTS:
        if rows(contest, result.scenarios):
            console.print(contest_table(contest, result.scenarios))
    for line in left_out_lines(result):
        console.print(f"left out: {escape(line)}", highlight=False)
    for failure in result.failures:
        console.print(f"[red]failed:[/] {escape(failure)}", highlight=False)


def figures_table(scenario: ScenarioResult) -> Table:
    """One scenario: a line a peer, a column a figure."""
    table = Table(title=scenario.title, title_justify="left", title_style="bold")
    table.add_column("median,\nlowest-highest", no_wrap=True)
    for figure in scenario.figures:
        table.add_column(f"{figure.title},\n{figure.unit}", justify="right")
    for name, peer in scenario.peers.items():
        cells = (spread(peer.values(figure.key)) for figure in scenario.figures)
        table.add_row(name, *(range_text(cell) for cell in cells))
    return table


def contest_table(contest: Contest, scenarios: Iterable[ScenarioResult]) -> Table:
    """The ratios of one contest."""
    table = Table(title=contest.title, title_justify="left", title_style="bold")
    table.add_column("")
    for column, better in COLUMNS.items():
        table.add_column(f"{column}\n({better} is better)", justify="right")
    for row in rows(contest, scenarios):
        cells = [row.cells.get(column) for column in COLUMNS]
        table.add_row(row.title, *(range_text(cell.ratio if cell else None) for cell in cells))
    return table


def left_out_lines(result: Result) -> list[str]:
    """What was left out, one line a reason."""
    reasons: dict[str, list[str]] = {}
    for what, why in result.left_out.items():
        reasons.setdefault(why, []).append(what)
    return [f"{', '.join(names)}: {why}" for why, names in reasons.items()]


def range_text(cell: Spread | None) -> str:
    """The median, and below it the lowest and highest; a dash for none."""
    if cell is None:
        return "-"
    return f"{number(cell.median)}\n[dim]{number(cell.low)}-{number(cell.high)}[/]"


def number(value: float) -> str:
    """Three digits that count."""
    size = abs(value)
    if size >= 100 or value == 0:
        return f"{value:.0f}"
    if size >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if size >= 0.1 else f"{value:.3f}"
