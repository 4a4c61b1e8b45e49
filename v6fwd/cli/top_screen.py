"""What `v6fwd top` shows, and what its keys do. Nothing here asks or waits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from v6fwd.cli.tables import moment, size, table
from v6fwd.cli.top_columns import FIRST_SORT, VIEWS, chosen
from v6fwd.daemon.view.rows import HELD, Row, summed
from v6fwd.log import counted, escaped

KEYS = "q quit  Tab view  s sort  r reverse  / filter  p pause  arrows scroll"
FRAME = 4
"""Lines that are no items: two of figures, the table's head, the keys."""
_ARROWS = {"\x1b[A": -1, "\x1b[B": 1, "\x1b[5~": -10, "\x1b[6~": 10, "k": -1, "j": 1}


@dataclass(frozen=True, slots=True)
class Gathered:
    """An answer of the daemon, for a view."""

    view: str
    status: dict[str, Any]
    rows: Sequence[Row]
    items: Sequence[Any]


@dataclass(slots=True)
class Choice:
    """What the user wants to see."""

    view: str = "forwards"
    order: str = FIRST_SORT
    words: str = ""
    """The filter."""
    upwards: bool = False
    is_paused: bool = False
    is_typing: bool = False
    """Keys go to the filter."""
    first: int = 0
    """The item at the top."""
    is_over: bool = False

    def press(self, key: str) -> None:
        """Obey a key, or the sequence of a special one."""
        if self.is_typing:
            self._type(key)
        elif key in _ARROWS:
            self.first = max(0, self.first + _ARROWS[key])
        elif key in ("q", "\x03", "\x04"):
            self.is_over = True
        elif key in ("\t", "v"):
            self._turn()
        elif key == "s":
            names = [column.name for column in VIEWS[self.view]]
            self.order = names[(names.index(self.order) + 1) % len(names)]
        elif key == "r":
            self.upwards = not self.upwards
        elif key == "/":
            self.is_typing = True
        elif key in ("p", " "):
            self.is_paused = not self.is_paused

    def _turn(self) -> None:
        views = [*VIEWS]
        self.view = views[(views.index(self.view) + 1) % len(views)]
        if self.order not in [column.name for column in VIEWS[self.view]]:
            self.order = FIRST_SORT
        self.first = 0

    def _type(self, key: str) -> None:
        if key in ("\r", "\n"):
            self.is_typing = False
        elif key in ("\x1b", "\x03"):
            self.is_typing, self.words = False, ""
        elif key in ("\x7f", "\x08"):
            self.words = self.words[:-1]
        elif key.isprintable():
            self.words += key
        self.first = 0


@dataclass(frozen=True, slots=True)
class Screen:
    """The whole terminal. `trouble`: why there is no newer answer; "": there is."""

    choice: Choice
    gathered: Gathered
    trouble: str = ""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        height = options.max_height
        yield from _figures(self.gathered, self.trouble)
        if self.gathered.view == self.choice.view:  # else there was no answer for a new view
            yield _items(self.choice, self.gathered, max(1, height - FRAME))
        yield Text(_foot(self.choice), style="reverse", no_wrap=True, overflow="crop")


def _figures(gathered: Gathered, trouble: str) -> list[Text]:
    lines = figures(gathered)
    second = Text(escaped(trouble) if trouble else lines[1], style="bold red" if trouble else "")
    texts = [Text(lines[0], style="bold"), second]
    for text in texts:
        text.no_wrap, text.overflow = True, "ellipsis"
    return texts


def figures(gathered: Gathered) -> list[str]:
    """Two lines: the daemon, and the sums of all forwards."""
    status, rows = gathered.status, gathered.rows
    rates = summed(rows)
    held = sum(row.state == HELD for row in rows)
    mismatches = sum(row.is_trouble and row.state != HELD for row in rows)
    workers = counted(len(status["workers"]), "worker")
    first = f"v6fwd {status['version']}, process {status['pid']}, since {moment(status['since'])}"
    second = [
        f"{sum(row.live for row in rows)} live, {rates.flows:.1f} flows/s",
        f"up {size(round(rates.up))}/s",
        f"down {size(round(rates.down))}/s",
        f"{rates.errors:.1f} errors/s",
        *([f"{held} held"] if held else []),
        *([f"{mismatches} mismatched"] if mismatches else []),
    ]
    return [f"{first}, {workers}", ", ".join(second)]


def _items(choice: Choice, gathered: Gathered, room: int) -> Table:
    columns = VIEWS[choice.view]
    items = chosen(gathered.items, choice.view, choice.words, choice.order, upwards=choice.upwards)
    choice.first = max(0, min(choice.first, len(items) - room))
    shown = Table(box=None, padding=(0, 1, 0, 0), expand=True, header_style="bold underline")
    for at, column in enumerate(columns):
        is_number = column.value is not None
        mark = ("^" if choice.upwards else "v") * (column.name == choice.order)
        shown.add_column(
            Text(column.name + mark),
            justify="right" if is_number else "left",
            no_wrap=True,
            overflow="ellipsis",
            ratio=None if is_number else 2 if not at else 1,
        )
    for item in items[choice.first : choice.first + room]:
        is_bad = isinstance(item, Row) and item.is_trouble
        cells = [Text(escaped(column.text(item))) for column in columns]
        shown.add_row(*cells, style="red" if is_bad else "")
    return shown


def _foot(choice: Choice) -> str:
    if choice.is_typing:
        return f"filter: {escaped(choice.words)}_  Enter: keep, Esc: clear"
    marks = [choice.view, *(["PAUSED"] if choice.is_paused else [])]
    marks += [f"/{escaped(choice.words)}"] if choice.words else []
    return f"[{' '.join(marks)}] {KEYS}"


def plain(choice: Choice, gathered: Gathered) -> str:
    """The figures, and all items as a table."""
    columns = VIEWS[choice.view]
    items = chosen(gathered.items, choice.view, choice.words, choice.order, upwards=choice.upwards)
    head = tuple(column.name for column in columns)
    right = [column.name for column in columns if column.value is not None]
    rows = [[column.text(item) for column in columns] for item in items]
    return "\n".join([*figures(gathered), table(head, rows, " ".join(right))])
