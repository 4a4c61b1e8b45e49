"""What `v6fwd top` shows, and what its keys do. Nothing here asks or waits."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from v6fwd.cli.tables import moment, size, table
from v6fwd.cli.top_columns import FIRST_SORT, VIEWS, Column, chosen
from v6fwd.cli.top_details import GONE, details, find, identity
from v6fwd.daemon.view.rows import HELD, Row, summed
from v6fwd.log import counted, escaped

KEYS = "q quit  Tab view  s sort  r reverse  / filter  p pause  d details"
FRAME = 4
"""Lines that are no items: two of figures, the table's head, the keys."""
_ARROWS = {"\x1b[A": -1, "\x1b[B": 1, "\x1b[5~": -10, "\x1b[6~": 10, "k": -1, "j": 1}
_DETAILS = ("d", "\r", "\n")


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
    at: int = 0
    """The item that the cursor is at."""
    first: int = 0
    """The item at the top."""
    is_open: bool = False
    """Whether the details of one item are shown."""
    opened: Hashable = None
    """Which one; None: that at the cursor, when it is shown."""
    is_over: bool = False

    def press(self, key: str) -> None:
        """Obey a key, or the sequence of a special one."""
        if self.is_typing:
            self._type(key)
        elif key in _ARROWS:
            self.at = max(0, self.at + _ARROWS[key])
        elif key in _DETAILS or (self.is_open and key == "\x1b"):
            self.is_open, self.opened = not self.is_open, None
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
        self.at = 0
        self.is_open, self.opened = False, None

    def _type(self, key: str) -> None:
        if key in ("\r", "\n"):
            self.is_typing = False
        elif key in ("\x1b", "\x03"):
            self.is_typing, self.words = False, ""
        elif key in ("\x7f", "\x08"):
            self.words = self.words[:-1]
        elif key.isprintable():
            self.words += key
        self.at = 0


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
            yield from self._body(max(1, height - FRAME))
        yield Text(_foot(self.choice), style="reverse", no_wrap=True, overflow="crop")

    def _body(self, room: int) -> Iterator[Table | Text]:
        choice, columns = self.choice, VIEWS[self.choice.view]
        every = self.gathered.items
        items = chosen(every, choice.view, choice.words, choice.order, upwards=choice.upwards)
        choice.at = max(0, min(choice.at, len(items) - 1))
        if choice.is_open and items and choice.opened is None:
            choice.opened = identity(items[choice.at])
        if choice.opened is not None:
            yield from _details(find(every, choice.opened), room + 1)
        else:
            choice.first = min(choice.first, choice.at, max(0, len(items) - room))
            choice.first = max(choice.first, choice.at - room + 1)
            yield _items(columns, choice, items[choice.first : choice.first + room])


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


def _details(item: Any, room: int) -> Iterator[Text]:
    if item is None:
        yield Text(GONE)
        return
    for name, text in details(item)[:room]:
        line = Text(f"{name:>22}  ", style="bold", no_wrap=True, overflow="ellipsis")
        yield line.append(escaped(text), style="not bold")


def _items(columns: Sequence[Column], choice: Choice, items: Sequence[Any]) -> Table:
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
    for number, item in enumerate(items, choice.first):
        is_bad = isinstance(item, Row) and item.is_trouble
        cells = [Text(escaped(column.text(item))) for column in columns]
        style = "red" if is_bad else ""
        shown.add_row(*cells, style=f"{style} reverse" if number == choice.at else style)
    return shown


def _foot(choice: Choice) -> str:
    if choice.is_typing:
        return f"filter: {escaped(choice.words)}_  Enter: keep, Esc: clear"
    if choice.opened is not None:
        return f"[{choice.view}] d, Esc: back  p pause  q quit"
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
