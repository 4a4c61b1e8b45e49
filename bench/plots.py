"""A result as pictures: bars with whiskers, and cost as load grows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.compare import Cell, Row, rows, summary_contests
from bench.readme import SUMMARY, summary_picture
from bench.result import Figure, Result, ScenarioResult
from bench.stats import Spread, spread

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

_COLOURS = {
    "v6fwd": "#0b6e4f",
    "v6fwd-proxy-v2": "#5cb894",
    "v6fwd-http": "#2a9d8f",
    "docker-proxy": "#c44536",
    "haproxy": "#3d5a80",
    "haproxy-proxy-v2": "#8da9c4",
    "haproxy-http": "#6d8fb8",
    "nginx": "#e09f3e",
    "nginx-proxy-v1": "#f2cc8f",
    "nginx-http": "#f4a261",
    "v6fwd-serve-2": "#14a76c",
    "haproxy-2": "#577590",
    "nginx-2": "#f3b562",
    "limit-epoll": "#6a4c93",
    "limit-ring": "#b07bac",
    "socat": "#8d99ae",
    "direct": "#2b2d42",
}
_CONTEST_COLOURS = ("#c44536", "#3d5a80", "#6a4c93")
_GROWTH = ("cpu", "p99", "memory", "growth", "start")
"""Figures that are drawn against load."""
_DOTS = 110


def draw(result: Result, stem: Path) -> list[Path]:
    """Write the pictures beside the JSON; gives their paths. Raises ImportError."""
    import matplotlib as mpl

    mpl.use("Agg")
    bars = [
        [(one, figure) for figure in one.figures if figure.column]
        for one in result.scenarios
        if one.peers
    ]
    curves = [
        [(family, figure) for figure in family[0].figures if figure.key in _GROWTH]
        for family in _families(result)
    ]
    pages: dict[str, tuple[Any, Sequence[Any]]] = {
        "scenarios": (_bars, bars),
        "growth": (_curves, curves),
    }
    drawn = []
    for name, (drawer, lines) in pages.items():
        if lines:
            path = stem.with_name(f"{stem.name}-{name}.png")
            _page(drawer, lines, path, _caption(result))
            drawn.append(path)
    if picture := _summary(result, stem):
        drawn.append(picture)
    return drawn


def _summary(result: Result, stem: Path) -> Path | None:
    """Bars for the rows of README's table; None where the result has none of them."""
    from matplotlib import pyplot

    contests = summary_contests(result.scenarios)
    tables = [{row.title: row for row in rows(one, result.scenarios)} for one in contests]
    wanted = [row for row in SUMMARY if any(row[0] in table for table in tables)]
    if not wanted:
        return None
    figure, axes = pyplot.subplots(figsize=(7.0, 3.0))
    step = 0.8 / len(contests)
    for at, (contest, table) in enumerate(zip(contests, tables, strict=True)):
        cells = [_cell(table, *row) for row in wanted]
        bars = [(place, cell.ratio) for place, cell in enumerate(cells) if cell is not None]
        axes.barh(
            [place + step * (at - (len(contests) - 1) / 2) for place, _ in bars],
            [ratio.median for _, ratio in bars],
            height=0.9 * step,
            color=_CONTEST_COLOURS[at],
            label=contest.title,
        )
    axes.axvline(1, color="#2b2d42", linewidth=1)
    axes.set_xscale("log")
    axes.set_xticks([0.05, 0.1, 0.25, 0.5, 1, 2], ["0.05", "0.1", "0.25", "0.5", "1", "2"])
    axes.minorticks_off()
    names = [f"{column}, {title}" for title, column in wanted]
    axes.set_yticks(range(len(wanted)), names, fontsize=7)
    axes.invert_yaxis()
    axes.tick_params(axis="x", labelsize=7)
    axes.set_xlabel("ratio, less is better", fontsize=7)
    axes.legend(fontsize=7, loc="lower center", bbox_to_anchor=(0.3, 1.0), ncols=len(contests))
    figure.tight_layout()
    path = Path(summary_picture(f"{stem}.json"))
    figure.savefig(path, dpi=_DOTS)
    pyplot.close(figure)
    return path


def _cell(table: Mapping[str, Row], title: str, column: str) -> Cell | None:
    return table[title].cells.get(column) if title in table else None


def _families(result: Result) -> list[list[ScenarioResult]]:
    """Scenarios that differ in nothing but how much load they have, by ascending load."""
    families: dict[str, list[ScenarioResult]] = {}
    for scenario in result.scenarios:
        if scenario.peers:
            families.setdefault(scenario.family, []).append(scenario)
    return [sorted(some, key=lambda one: one.at) for some in families.values() if len(some) > 1]


def _page(drawer: Any, lines: Sequence[Sequence[Any]], path: Path, caption: str) -> None:
    """A page with a line of panels for each scenario or family."""
    from matplotlib import pyplot

    columns = max(len(line) for line in lines)
    height = 2.9 * len(lines) + 0.8
    figure, grid = pyplot.subplots(
        len(lines), columns, figsize=(4.0 * columns, height), squeeze=False
    )
    labelled: dict[str, Artist] = {}
    for spots, line in zip(grid, lines, strict=True):
        for spot, (what, wanted) in zip(spots, line, strict=False):
            drawer(spot, what, wanted)
            handles, labels = spot.get_legend_handles_labels()
            labelled.update(zip(labels, handles, strict=True))
        for spot in spots[len(line) :]:
            spot.set_visible(False)
    figure.suptitle(caption, fontsize=8, y=1 - 0.12 / height, va="top")
    if labelled:
        figure.legend(
            list(labelled.values()),
            list(labelled),
            loc="upper center",
            bbox_to_anchor=(0.5, 1 - 0.3 / height),
            ncols=len(labelled),
            fontsize=8,
        )
    figure.tight_layout(rect=(0, 0, 1, 1 - 0.6 / height))
    figure.savefig(path, dpi=_DOTS)
    pyplot.close(figure)


def _bars(axes: Axes, scenario: ScenarioResult, figure: Figure) -> None:
    spreads = {name: spread(peer.values(figure.key)) for name, peer in scenario.peers.items()}
    found = {name: one for name, one in spreads.items() if one is not None}
    medians = [one.median for one in found.values()]
    colours = [_COLOURS.get(name, "#999999") for name in found]
    axes.bar(list(found), medians, color=colours, yerr=_whiskers(found.values()), capsize=3)
    _label(axes, scenario.title, figure)
    axes.set_xticks(range(len(found)), list(found), rotation=35, ha="right", fontsize=7)
    axes.set_ylim(bottom=0)


def _curves(axes: Axes, family: list[ScenarioResult], figure: Figure) -> None:
    names = {name: None for one in family for name in one.peers}
    for name in names:
        points = []
        for one in family:
            found = spread(one.peers[name].values(figure.key)) if name in one.peers else None
            if found is not None:
                points.append((one.at, found))
        if points:
            axes.errorbar(
                [at for at, _ in points],
                [found.median for _, found in points],
                yerr=_whiskers([found for _, found in points]),
                color=_COLOURS.get(name),
                label=name,
                marker="o",
                markersize=3,
                capsize=3,
            )
    _label(axes, family[0].family, figure)
    axes.set_xlabel(family[0].axis, fontsize=8)
    axes.set_xscale("log")
    axes.set_xticks([one.at for one in family], [str(one.at) for one in family])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)


def _label(axes: Axes, title: str, figure: Figure) -> None:
    better = "more" if figure.higher_is_better else "less"
    axes.set_title(f"{title}\n{figure.title} ({better} is better)", fontsize=8)
    axes.set_ylabel(figure.unit, fontsize=8)
    axes.tick_params(labelsize=7)


def _whiskers(spreads: Any) -> list[list[float]]:
    some: list[Spread] = list(spreads)
    return [[one.median - one.low for one in some], [one.high - one.median for one in some]]


def _caption(result: Result) -> str:
    machine = result.machine
    return (
        f"median of {result.rounds} rounds, whiskers: lowest and highest; {result.date[:10]},"
        f" {machine['cores']} cores of {machine['cpu']}, kernel {machine['kernel']}, {result.place}"
    )
