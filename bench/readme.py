"""The README's performance section, written from a result. Pure: texts in, texts out."""

from __future__ import annotations

from bench.compare import COLUMNS, CONTESTS, Cell, Contest, rows
from bench.result import Result
from bench.table import number

BEGIN = "<!-- performance: begin -->"
END = "<!-- performance: end -->"

_HOW = """\
Ratios, round by round against the other in the same round: the median, and the lowest and
highest, of {rounds} rounds. Speed is throughput, or connections, requests, datagrams or started
ports a second: more than 1 is better. p99, CPU per unit of work and memory: less than 1
is better."""


class MarkerError(Exception):
    """A README without the two markers, or with more of them."""


def with_section(readme: str, section: str) -> str:
    """The README's text with the section between its markers. Raises MarkerError."""
    if readme.count(BEGIN) != 1 or readme.count(END) != 1:
        raise MarkerError(f"needs {BEGIN} and {END}, once each")
    head, _, rest = readme.partition(BEGIN)
    _, found, tail = rest.partition(END)
    if not found:
        raise MarkerError(f"has {END} before {BEGIN}")
    return f"{head}{BEGIN}\n{section}{END}{tail}"


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
    quick = " A quick run: good to see that all works, too short to be quoted." * result.quick
    return (
        f"`{result.command}` on {result.date[:10]}, in {result.place};"
        f" {machine['cores']} cores of {machine['cpu']}, {machine['memory']},"
        f" {machine['system']}, kernel {machine['kernel']}; {programs}.{quick}\n"
        f"Every round, command and configuration: [{source}]({source})."
        f" Written from it by `python -m bench report`."
    )


def _cell(cell: Cell | None, *, several: bool) -> str:
    if cell is None:
        return ""
    ratio = cell.ratio
    rival = f", {cell.rival}" if several else ""
    return f"**{number(ratio.median)}** ({number(ratio.low)} to {number(ratio.high)}{rival})"
