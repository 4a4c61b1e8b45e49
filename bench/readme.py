"""Figures of a result in Markdown pages: all of them, and a summary. Pure: texts in, texts out."""

from __future__ import annotations

from bench.compare import COLUMNS, CONTESTS, Cell, Contest, Row, rows, summary_contests
from bench.result import Result
from bench.table import number

KINDS = ("performance", "summary")
"""What may stand between two markers of a page: every figure, or six."""
SUMMARY = (
    ("bulk down, 1 stream", "CPU"),
    ("new connections, 20 at once", "CPU"),
    ("request and response, 50 at once", "CPU"),
    ("DNS queries, 100 at once from 20 ports", "CPU"),
    ("3000 idle flows: the flows alone", "memory"),
    ("200 published ports", "memory"),
)
"""The rows of a summary, and whose column: less is better in all."""

_HOW = """\
Ratios, round by round against the other in the same round: the median, and the lowest and
highest, of {rounds} rounds. Speed is throughput, or connections, requests, datagrams or started
ports a second: more than 1 is better. p99, CPU per unit of work and memory: less than 1
is better."""


class MarkerError(Exception):
    """A page without two markers, or with more of them."""


def markers(kind: str) -> tuple[str, str]:
    """What stands before and behind the figures."""
    return f"<!-- {kind}: begin -->", f"<!-- {kind}: end -->"


def with_figures(page: str, result: Result, source: str) -> str:
    """Return the page's text with the figures that its markers ask for. Raises MarkerError.

    `source`: the result's file as the page would link it.
    """
    wanted = [kind for kind in KINDS if any(marker in page for marker in markers(kind))]
    if not wanted:
        needed = " or ".join(" and ".join(markers(kind)) for kind in KINDS)
        raise MarkerError(f"needs {needed}")
    for kind in wanted:
        text = section(result, source) if kind == "performance" else summary(result, source)
        page = _replaced(page, kind, text)
    return page


def _replaced(page: str, kind: str, text: str) -> str:
    begin, end = markers(kind)
    if page.count(begin) != 1 or page.count(end) != 1:
        raise MarkerError(f"needs {begin} and {end}, once each")
    head, _, rest = page.partition(begin)
    _, found, tail = rest.partition(end)
    if not found:
        raise MarkerError(f"has {end} before {begin}")
    return f"{head}{begin}\n{text}{end}{tail}"


def summary(result: Result, source: str) -> str:
    """Six rows and a picture."""
    contests = summary_contests(result.scenarios)
    found = [{row.title: row for row in rows(contest, result.scenarios)} for contest in contests]
    lines = [f"| less is better | {' | '.join(contest.title for contest in contests)} |"]
    lines.append("|---|" + "---:|" * len(contests))
    for title, column in SUMMARY:
        cells = [_median(row.get(title), column) for row in found]
        if any(cells):
            lines.append(f"| {column}, {title} | {' | '.join(cells)} |")
    picture = f"![v6fwd's CPU and memory beside the others']({summary_picture(source)})"
    return "\n".join([*lines, "", picture, ""])


def summary_picture(source: str) -> str:
    """The file of the picture beside a result's file."""
    return f"{source.removesuffix('.json')}-summary.png"


def _median(row: Row | None, column: str) -> str:
    cell = row.cells.get(column) if row is not None else None
    return "" if cell is None else f"**{number(cell.ratio.median)}**"


def section(result: Result, source: str) -> str:
    """The section's text; `source` is the result's file as the README would link it."""
    parts = [_HOW.format(rounds=result.rounds)]
    parts += [contest_table(contest, result) for contest in CONTESTS]
    parts.append(provenance(result, source))
    return "\n\n".join(part for part in parts if part) + "\n"


def contest_table(contest: Contest, result: Result) -> str:
    """A contest as a Markdown table, "" where it has no row."""
    found = rows(contest, result.scenarios)
    if not found:
        return ""
    used = [column for column in COLUMNS if any(column in row.cells for row in found)]
    several = len(contest.rivals) > 1
    lines = [f"| {contest.title} | {' | '.join(used)} |", "|---|" + "---:|" * len(used)]
    for row in found:
        cells = [_cell(row.cells.get(column), several=several) for column in used]
        lines.append(f"| {row.title} | {' | '.join(cells)} |")
    return "\n".join(lines)


def provenance(result: Result, source: str) -> str:
    """Where the numbers come from."""
    machine = result.machine
    programs = ", ".join(f"{name} {word}" for name, word in result.versions.items())
    control = machine.get("congestion control")
    tcp = f", TCP with {control}" if control else ""
    quick = " A quick run: good to see that all works, too short to be quoted." * result.quick
    return (
        f"`{result.command}` on {result.date[:10]}, in {result.place};"
        f" {machine['cores']} cores of {machine['cpu']}, {machine['memory']},"
        f" {machine['system']}, kernel {machine['kernel']}{tcp}; {programs}.{quick}\n\n"
        f"Every round, command and configuration: [{source}]({source})."
        f" Written from it by `python -m bench report`."
    )


def _cell(cell: Cell | None, *, several: bool) -> str:
    if cell is None:
        return ""
    ratio = cell.ratio
    rival = f", {cell.rival}" if several else ""
    return f"**{number(ratio.median)}** ({number(ratio.low)} to {number(ratio.high)}{rival})"
