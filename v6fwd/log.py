"""Writes one line per event to stderr, as text or JSON.

A line is written only if the descriptor accepts it without blocking. poll(2) reports a pipe as
writable when it has room for PIPE_BUF (4,096) bytes, so a shorter line neither blocks nor is
split. A line that would block is dropped and counted: forwarding never waits for the log.

On a terminal and in a file a line of text begins with time and level. The journal has a time of its
own, and takes the level from `<4>` (sd-daemon(3)). Whoever reads a pipe adds what he wants.
"""

from __future__ import annotations

import enum
import os
import select
import stat
import time
from collections.abc import Callable, Coroutine

from v6fwd.model.lean import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio

SEVERITIES = {"error": 3, "warning": 4, "info": 6}
"""Levels as syslog(3) and the journal number them."""
MAX_LINE = 4096
"""Bytes of a line, its newline included: PIPE_BUF, what one write(2) puts into a pipe whole."""


class LogFormat(enum.StrEnum):
    """Format of a log line."""

    TEXT = "text"
    JSON = "json"


class _Reader(enum.Enum):
    PEOPLE = enum.auto()
    JOURNAL = enum.auto()
    PROGRAM = enum.auto()


class Limiter:
    """Token bucket: `burst` lines at once, then one per `interval` seconds; counts the rest."""

    __slots__ = ("_burst", "_interval", "_last", "_suppressed", "_tokens")

    def __init__(self, burst: int, interval: float) -> None:
        self._burst = burst
        self._interval = interval
        self._tokens = float(burst)
        self._last = float("-inf")
        self._suppressed = 0

    def admit(self, now: float) -> int | None:
        """Return None if the line must be dropped, else how many were dropped before it.

        `now` is a monotonic time in seconds.
        """
        self._tokens = min(self._burst, self._tokens + (now - self._last) / self._interval)
        self._last = now
        if self._tokens < 1:
            self._suppressed += 1
            return None
        self._tokens -= 1
        suppressed, self._suppressed = self._suppressed, 0
        return suppressed


class Log:
    """Writes events. `event` is a stable identifier for programs, `text` a sentence for people."""

    reader = "stderr"
    """Named as the receiver when lines were dropped."""

    def __init__(
        self,
        style: LogFormat = LogFormat.TEXT,
        *,
        fd: int = 2,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._style = style
        self._fd = fd
        self._clock = clock
        self._now = now
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)
        self._dropped = 0
        self._limiters: dict[str, Limiter] = {}
        self._reader = _reader_of(fd)
        self.heard: Callable[[str, str, str], None] | None = None
        """Gets level, event and text of each line that was written."""
        self._second, self._stamp = -1, ""  # the last line's time, as a number and as text
        self._stamped(now())  # reads /etc/localtime, which a worker may not be able to do later

    def info(self, event: str, text: str, **fields: object) -> None:
        """Log an event that needs no action."""
        self._write("info", event, text, fields)

    def warning(self, event: str, text: str, **fields: object) -> None:
        """Log an event that the operator should check."""
        self._write("warning", event, text, fields)

    def error(self, event: str, text: str, **fields: object) -> None:
        """Log an event that ends the program, or a bug."""
        self._write("error", event, text, fields)

    def limited(self, key: str, event: str, text: str, *, burst: int = 5, **fields: object) -> None:
        """Log what clients or targets can trigger: `burst` lines per key, then one per 10 s."""
        limiter = self._limiters.get(key)
        if limiter is None:
            limiter = self._limiters.setdefault(key, Limiter(burst, interval=10.0))
        suppressed = limiter.admit(self._clock())
        if suppressed is None:
            return
        if suppressed:
            text = f"{text} (and {suppressed} more like it)"
            fields["suppressed"] = suppressed
        self._write("warning", event, text, fields)

    def _write(self, level: str, event: str, text: str, fields: dict[str, object]) -> None:
        if self.heard is not None:
            self.heard(level, event, text)
        if not self._put(self._line(level, event, text, fields)):
            self._dropped += 1
        elif self._dropped:
            text = f"{self._dropped} log lines were dropped: {self.reader} did not take them"
            if self._put(self._line("warning", "log-dropped", text, {})):
                self._dropped = 0

    def _put(self, line: bytes) -> bool:
        """Write the line if that does not block. On a full pipe or disk only the line is lost."""
        try:
            ready = self._poll.poll(0)
            if ready and ready[0][1] & select.POLLOUT:
                os.write(self._fd, line)
                return True
        except OSError:
            pass
        return False

    def _line(self, level: str, event: str, text: str, fields: dict[str, object]) -> bytes:
        if self._style is LogFormat.JSON:
            seconds, thousandths = divmod(round(self._now() * 1e6) // 1000, 1000)
            stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
            record: dict[str, object] = {
                "time": f"{stamp}.{thousandths:03}+00:00",
                "level": level,
                "event": event,
                "text": text,
            }
            for name, value in fields.items():
                plain = value if isinstance(value, int | float) else str(value)
                record[name.replace("_", "-")] = plain
            return _json_line(record)
        # Truncation may split a UTF-8 sequence: drop the incomplete one.
        text = self._head(level) + escaped(text.replace("\n", " "))
        line = _encode(text)[: MAX_LINE - 1]
        return line.decode("utf-8", "ignore").encode() + b"\n"

    def _head(self, level: str) -> str:
        """What stands before a text: that which nobody else adds."""
        if self._reader is _Reader.JOURNAL:
            return f"<{SEVERITIES[level]}>"
        return f"{self._stamped(self._now())} {level}: " if self._reader is _Reader.PEOPLE else ""

    def _stamped(self, now: float) -> str:
        """The local time, to a second, for which it is formatted once."""
        if int(now) != self._second:
            self._second = int(now)
            self._stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now))
        return self._stamp


def _reader_of(fd: int) -> _Reader:
    """Who reads a descriptor; JOURNAL_STREAM names the journal's (systemd.exec(5))."""
    try:
        found = os.fstat(fd)
    except OSError:
        return _Reader.PROGRAM
    if os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}":
        return _Reader.JOURNAL
    return _Reader.PEOPLE if stat.S_ISREG(found.st_mode) or os.isatty(fd) else _Reader.PROGRAM


def counted(number: int, noun: str) -> str:
    """ "1 flow", "2 flows"."""
    return f"{number} {noun}{'s' if number != 1 else ''}"


def escaped(text: str) -> str:
    """Return the text with a backslash sequence for each character that is not printable.

    What comes from outside may have sequences that a terminal obeys, a carriage return that hides
    the line, or marks that turn the reading direction round.
    """
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in text
    )


def log_exceptions(loop: asyncio.AbstractEventLoop, log: Log) -> None:
    """Log unhandled exceptions of the loop, which asyncio would print with a traceback."""

    def tell(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        what = repr(context["exception"]) if "exception" in context else context["message"]
        log.limited("defect", "defect", f"internal error: {what}")

    loop.set_exception_handler(tell)


def in_background(coroutine: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
    """Start a task that nobody awaits, on the running loop; keep what is returned.

    An exception that ends it is reported to the loop's handler at once. asyncio does so when the
    task is collected: never, for one that is kept.
    """
    task = _loop().create_task(coroutine, name=name)
    task.add_done_callback(_report_failure)
    return task


def _report_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        context = {"message": f"task {task.get_name()} failed", "exception": error, "task": task}
        task.get_loop().call_exception_handler(context)


def attempt(call: Callable[..., object], *words: object) -> None:
    """Call; report an exception to the running loop's handler, and go on.

    For whoever has more to do: others to tell or to close, a timer that goes on for ever.
    """
    try:
        call(*words)
    except Exception as error:
        context = {"message": f"{call!r} failed", "exception": error}
        if _without_loop is None:
            _loop().call_exception_handler(context)
        else:
            _without_loop.limited("defect", "defect", f"internal error: {error!r}")


_without_loop: Log | None = None


def log_exceptions_without_loop(log: Log) -> None:
    """Log those that `attempt` meets, in a process where no loop of asyncio runs."""
    global _without_loop
    _without_loop = log


def _loop() -> asyncio.AbstractEventLoop:
    from asyncio import get_running_loop  # it is imported where one runs

    return get_running_loop()


def keep_standard_descriptors() -> None:
    """Open /dev/null on 0, 1 and 2 if closed, so that no socket gets the log's number."""
    number = os.open(os.devnull, os.O_RDWR)
    while number <= 2:
        number = os.open(os.devnull, os.O_RDWR)
    os.close(number)


def _json_line(record: dict[str, object]) -> bytes:
    """Encode a record as one valid line of JSON; shorten a text that is too long."""
    while len(line := _encode(_dumped(record))) >= MAX_LINE:
        text = str(record.get("text", ""))
        if text:
            record["text"] = text[: len(text) // 2]
        else:  # even without the text
            record = {name: record[name] for name in ("time", "level", "event")}
    return line + b"\n"


def _dumped(record: dict[str, object]) -> str:
    """JSON, in which what is not printable is escaped: it can only stand in strings."""
    import json  # 1 ms of a start: text needs none

    text = json.dumps(record, ensure_ascii=False)
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else json.dumps(each)[1:-1] for each in text)


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")
