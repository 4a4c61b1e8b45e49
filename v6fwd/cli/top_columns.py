"""The views of `v6fwd top`: what they list, in which columns, by what they may be sorted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from v6fwd.cli.tables import duration, size
from v6fwd.daemon.view.clients import Flow, moved
from v6fwd.daemon.view.rows import Row
from v6fwd.model import bracketed


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its text for an item, and the value that it is sorted by."""

    name: str
    text: Callable[[Any], str]
    value: Callable[[Any], Any] | None = None
    """For numbers, which are sorted in descending order; None: the text."""

    def key(self, item: Any) -> Any:
        """The value to sort by."""
        return self.text(item) if self.value is None else self.value(item)


def _speed(number: float) -> str:
    return f"{size(round(number))}/s"


def _rate(number: float) -> str:
    return f"{number:.1f}" if number < 10 else f"{number:.0f}"


def _mode(row: Row) -> str:
    if row.state != "open":
        return row.state
    marks = [*(["mismatch"] if row.note else []), *([row.not_real] if row.not_real else [])]
    return f"{row.mode} ({', '.join(marks)})" if marks else row.mode


FORWARDS = (
    Column("LISTEN", lambda row: row.listen),
    Column("TARGET", lambda row: row.container or row.target),
    Column("MODE", _mode),
    Column("LIVE", lambda row: str(row.live), lambda row: row.live),
    Column("FLOWS/S", lambda row: _rate(row.rates.flows), lambda row: row.rates.flows),
    Column("UP", lambda row: _speed(row.rates.up), lambda row: row.rates.up),
    Column("DOWN", lambda row: _speed(row.rates.down), lambda row: row.rates.down),
    Column("ERRORS", lambda row: str(row.errors), lambda row: row.errors),
)
_MOVED = (
    Column("UP", lambda flow: _speed(flow["up"]), lambda flow: flow["up"]),
    Column("DOWN", lambda flow: _speed(flow["down"]), lambda flow: flow["down"]),
    Column("BYTES", lambda flow: size(moved(flow)), moved),
    Column("FOR", lambda flow: duration(flow["seconds"]), lambda flow: flow["seconds"]),
)
_GROUP = (
    Column("PSEUDO IPV4", lambda flow: flow.get("pseudo") or "-"),
    Column("FLOWS", lambda flow: str(flow["flows"]), lambda flow: flow["flows"]),
    *_MOVED,
)


def _client(flow: Flow) -> str:
    return f"{bracketed(flow['client'])}:{flow['client_port']}" if flow["client"] else "gone"


VIEWS: Mapping[str, Sequence[Column]] = {
    "forwards": FORWARDS,
    "net": (Column("NETWORK", lambda flow: flow["client"] or "gone"), *_GROUP),
    "client": (Column("CLIENT", lambda flow: flow["client"] or "gone"), *_GROUP),
    "flows": (
        Column("CLIENT", _client),
        Column("LISTEN", lambda flow: flow["listen"]),
        Column("TARGET", lambda flow: flow["target"]),
        *_MOVED,
    ),
}
FIRST_SORT = "DOWN"
"""What a view is sorted by until another column is chosen: every view has it."""


class FlowRates:
    """Adds `up` and `down`, bytes per second since the last list, to flows."""

    def __init__(self) -> None:
        self._before: dict[tuple[Any, ...], Flow] = {}
        self._at = 0.0

    def add(self, flows: Sequence[Flow], at: float) -> None:
        """Change the flows of a list that was made `at` seconds of a monotonic clock.

        A flow that is new has the mean since it began, or since the last list.
        """
        passed = at - self._at
        for flow in flows:
            known = self._before.get(_identity(flow))
            if known is not None and known["seconds"] > flow["seconds"]:
                known = None  # another flow from the same port
            seconds = passed if known is not None else min(passed, flow["seconds"])
            for name in ("up", "down"):
                count = flow[f"bytes_{name}"] - (known[f"bytes_{name}"] if known else 0)
                flow[name] = max(0.0, count / seconds) if seconds > 0 else 0.0
        self._before, self._at = {_identity(flow): flow for flow in flows}, at


def _identity(flow: Flow) -> tuple[Any, ...]:
    return flow["client"], flow["client_port"], flow["listen"], flow.get("worker")


def chosen(items: Iterable[Any], view: str, words: str, order: str, *, upwards: bool) -> list[Any]:
    """The items of a view with `words` in one of their texts, sorted by the column `order`."""
    columns = VIEWS[view]
    wanted = words.casefold()
    found = [
        item
        for item in items
        if not wanted or any(wanted in column.text(item).casefold() for column in columns)
    ]
    column = next(each for each in columns if each.name == order)
    descends = (column.value is not None) != upwards
    return sorted(found, key=column.key, reverse=descends)
