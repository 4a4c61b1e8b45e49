"""v6fwd against the others, as ratios pair by pair. Pure: a result in, rows out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from bench.result import Figure, ScenarioResult
from bench.stats import Spread, paired_ratios, spread

COLUMNS = {"speed": "more", "p99": "less", "CPU": "less", "memory": "less"}
"""The columns of a contest's table, and what is better there."""


@dataclass(frozen=True, slots=True)
class Contest:
    """Ours against the best of some rivals; in the families of scenarios given, or the others."""

    title: str
    ours: str
    rivals: tuple[str, ...]
    families: tuple[str, ...] = ()

    def has(self, scenario: ScenarioResult) -> bool:
        """Whether the scenario is one of this contest's."""
        if self.families:
            return scenario.family in self.families
        return scenario.family not in _SPECIAL


_PROXY = ("proxy header",)
_HTTP = ("HTTP requests", "HTTP requests that differ", "HTTP bodies up", "HTTP bodies down")
_SPECIAL = (*_PROXY, *_HTTP)
CONTESTS = (
    Contest("v6fwd / docker-proxy", "v6fwd", ("docker-proxy",)),
    Contest("v6fwd / the better of HAProxy and nginx", "v6fwd", ("haproxy", "nginx")),
    Contest("v6fwd / the limit", "v6fwd", ("limit-epoll", "limit-ring")),
    Contest(
        "two workers each: v6fwd serve / the better of HAProxy and nginx",
        "v6fwd-serve-2",
        ("haproxy-2", "nginx-2"),
    ),
    Contest(
        "with a PROXY header: v6fwd / the better of HAProxy and nginx",
        "v6fwd-proxy-v2",
        ("haproxy-proxy-v2", "nginx-proxy-v1"),
        _PROXY,
    ),
    Contest("v6fwd with a PROXY v2 header / without", "v6fwd-proxy-v2", ("v6fwd",), _PROXY),
    Contest(
        "with X-Forwarded-For: v6fwd / the better of HAProxy and nginx",
        "v6fwd-http",
        ("haproxy-http", "nginx-http"),
        _HTTP,
    ),
    Contest("v6fwd with X-Forwarded-For / as a TCP relay", "v6fwd-http", ("v6fwd",), _HTTP),
    Contest("v6fwd transparent / mode none", "v6fwd-transparent", ("v6fwd",)),
)
_IN_SUMMARY = CONTESTS[:3]


@dataclass(frozen=True, slots=True)
class Cell:
    """A ratio, and whom it is against."""

    ratio: Spread
    rival: str


@dataclass(frozen=True, slots=True)
class Row:
    """A line of a contest's table: its cells by column."""

    title: str
    cells: dict[str, Cell] = field(default_factory=dict)


def rows(contest: Contest, scenarios: Iterable[ScenarioResult]) -> list[Row]:
    """The table of a contest; scenarios that lack either side have no row."""
    found: dict[str, Row] = {}
    for scenario in scenarios:
        if not contest.has(scenario):
            continue
        for figure in scenario.figures:
            cell = _cell(contest, scenario, figure) if figure.column else None
            if cell is not None:
                title = f"{scenario.title}: {figure.row}" if figure.row else scenario.title
                found.setdefault(title, Row(title)).cells[figure.column] = cell
    return list(found.values())


def summary_contests(scenarios: Sequence[ScenarioResult]) -> list[Contest]:
    """The contests of a page's summary and of its picture; one without any row has no column."""
    return [contest for contest in _IN_SUMMARY if rows(contest, scenarios)]


def better_of(scenario: ScenarioResult, figure: Figure, names: Sequence[str]) -> str | None:
    """The one whose median is better; None where none has the figure."""
    medians = {}
    for name in names:
        if name in scenario.peers:
            found = spread(scenario.peers[name].values(figure.key))
            if found is not None:
                medians[name] = found.median
    if not medians:
        return None
    pick = max if figure.higher_is_better else min
    return pick(medians, key=lambda name: medians[name])


def _cell(contest: Contest, scenario: ScenarioResult, figure: Figure) -> Cell | None:
    rival = better_of(scenario, figure, contest.rivals)
    if rival is None or contest.ours not in scenario.peers:
        return None
    ours, theirs = (scenario.peers[name].values(figure.key) for name in (contest.ours, rival))
    ratio = spread(paired_ratios(ours, theirs))
    return None if ratio is None else Cell(ratio, rival)
