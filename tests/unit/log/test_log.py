"""Log lines: their two forms, their limits, and that nothing ever waits for them."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import pty
import re
import select
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from v6fwd.log import MAX_LINE, Limiter, Log, LogFormat, in_background
from v6fwd.model import Endpoint


class Clock:
    """A clock that stands still unless told otherwise."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Reader:
    """A pipe and what came out of it."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        fcntl.fcntl(self.writer, fcntl.F_SETPIPE_SZ, 2 * 4096)
        os.set_blocking(self.reader, False)

    def read(self, size: int = 1 << 20) -> bytes:
        """What is there now."""
        try:
            return os.read(self.reader, size)
        except BlockingIOError:
            return b""

    def lines(self) -> list[str]:
        """The whole lines that are there now."""
        data = self.read().decode()
        assert not data or data.endswith("\n")
        return data.splitlines()

    def fill(self) -> None:
        """Leave no room: two pages, each of them full."""
        assert os.write(self.writer, bytes(8192)) == 8192
        assert not select.select([], [self.writer], [], 0)[1]

    def close(self) -> None:
        """Give both ends back; a test may have closed one."""
        for fd in (self.reader, self.writer):
            if fd >= 0:
                os.close(fd)


@pytest.fixture
def pipe() -> Iterator[Reader]:
    reader = Reader()
    yield reader
    reader.close()


def record(line: str) -> dict[str, Any]:
    """A line of JSON."""
    parsed = json.loads(line)
    assert isinstance(parsed, dict)
    return parsed


# ---- forms -----------------------------------------------------------------------------------


@pytest.mark.parametrize("level", ["info", "warning", "error"])
def test_text_is_the_sentence_alone(pipe: Reader, level: str) -> None:
    getattr(Log(fd=pipe.writer), level)("ready", "ready: 2 forwards", forwards=2)
    assert pipe.read() == b"ready: 2 forwards\n"


@pytest.mark.parametrize("level", ["info", "warning", "error"])
def test_in_a_file_a_line_has_time_and_level(tmp_path: Path, level: str) -> None:
    times = iter([0, 1453940453.25, 1453940453.75, 1453940454.0])
    with (tmp_path / "log").open("wb") as file:
        log = Log(fd=file.fileno(), now=lambda: next(times))
        for text in ("one", "two", "three"):
            getattr(log, level)("x", text)
    moments = [time.localtime(1453940453 + more) for more in (0, 0, 1)]
    stamps = [time.strftime("%Y-%m-%d %H:%M:%S", moment) for moment in moments]
    texts = zip(stamps, ("one", "two", "three"), strict=True)
    assert (tmp_path / "log").read_text().splitlines() == [
        f"{stamp} {level}: {text}" for stamp, text in texts
    ]


def test_on_a_terminal_a_line_has_time_and_level() -> None:
    controller, terminal = pty.openpty()
    try:
        Log(fd=terminal).warning("x", "careful")
        line = os.read(controller, 100).decode()
    finally:
        os.close(controller)
        os.close(terminal)
    assert re.fullmatch(r"[0-9-]{10} [0-9:]{8} warning: careful\r\n", line)


@pytest.mark.parametrize(("level", "number"), [("info", 6), ("warning", 4), ("error", 3)])
def test_the_journal_takes_the_level_from_the_line(
    pipe: Reader, monkeypatch: pytest.MonkeyPatch, level: str, number: int
) -> None:
    found = os.fstat(pipe.writer)
    monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino}")
    getattr(Log(fd=pipe.writer), level)("x", "text")
    assert pipe.read() == f"<{number}>text\n".encode()


def test_another_stream_of_the_journal(pipe: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program started by a service inherits the variable, whatever its stderr is."""
    monkeypatch.setenv("JOURNAL_STREAM", f"{os.fstat(pipe.writer).st_dev}:0")
    Log(fd=pipe.writer).info("x", "text")
    assert pipe.read() == b"text\n"


def test_json_has_a_time_of_its_own(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as file:
        Log(LogFormat.JSON, fd=file.fileno()).info("x", "text")
    assert record((tmp_path / "log").read_text())["text"] == "text"


@pytest.mark.parametrize("level", ["info", "warning", "error"])
def test_json_is_a_record(pipe: Reader, level: str) -> None:
    log = Log(LogFormat.JSON, fd=pipe.writer, now=lambda: 1453940453.25)
    getattr(log, level)("flow", "a flow", client=Endpoint("::1", 80), bytes_in=7)
    (line,) = pipe.lines()
    assert record(line) == {
        "time": "2016-01-28T00:20:53.250+00:00",
        "level": level,
        "event": "flow",
        "text": "a flow",
        "client": "[::1]:80",
        "bytes-in": 7,
    }


@pytest.mark.parametrize("style", LogFormat)
def test_a_newline_makes_no_second_line(pipe: Reader, style: LogFormat) -> None:
    Log(style, fd=pipe.writer).info("x", "one\ntwo\n")
    (line,) = pipe.lines()
    text = record(line)["text"] if style is LogFormat.JSON else line
    assert text.split() == ["one", "two"]


@pytest.mark.parametrize("style", LogFormat)
def test_what_is_not_utf8_is_escaped(pipe: Reader, style: LogFormat) -> None:
    Log(style, fd=pipe.writer).info("x", "path /\udcff \u00fc")  # os.fsdecode(b"path /\xff ...")
    (line,) = pipe.lines()
    if style is LogFormat.TEXT:
        assert line == "path /\\udcff \u00fc"
    else:
        assert record(line)["text"] == "path /\udcff \u00fc"


HOSTILE = "none\x1b]0;title\x07\x1b[2K\rready: 1 forwards\r\x9b2J\x7f\u202e\u2028\U000e0001"


@pytest.mark.parametrize("style", LogFormat)
def test_nothing_that_a_terminal_obeys_is_written(pipe: Reader, style: LogFormat) -> None:
    """Labels, names and headers come from anybody; a forged line or title must not."""
    Log(style, fd=pipe.writer).info("x", f"label {HOSTILE}", container=HOSTILE)
    (line,) = pipe.read().decode().split("\n")[:-1]
    assert line.isprintable()
    if style is LogFormat.JSON:
        assert record(line)["text"] == f"label {HOSTILE}"
        assert record(line)["container"] == HOSTILE
    else:
        assert line.startswith("label none\\x1b]0;title\\x07\\x1b[2K\\rready: 1 forwards\\r\\x9b2J")


@settings(max_examples=100, deadline=None)
@given(st.text(st.characters(exclude_categories=[]), max_size=200))
def test_any_text_makes_one_json_line(text: str) -> None:
    pipe = Reader()
    try:
        Log(LogFormat.JSON, fd=pipe.writer).info("x", text)
        data = pipe.read()
    finally:
        pipe.close()
    assert data.count(b"\n") == 1
    assert record(data.decode())["text"] == text


@pytest.mark.parametrize("spare", [1, 0, -1, -5000], ids=["shorter", "equal", "longer", "far"])
def test_a_line_fits_one_write(pipe: Reader, spare: int) -> None:
    """PIPE_BUF, pipe(7): more could be torn, or block although poll(2) saw room."""
    text = "x" * (MAX_LINE - 1 - spare)
    Log(fd=pipe.writer).info("x", text)
    assert pipe.read() == text.encode()[: MAX_LINE - 1] + b"\n"


def test_max_line_is_pipe_buf() -> None:
    assert select.PIPE_BUF == MAX_LINE


@pytest.mark.parametrize("shift", range(3))
def test_a_cut_line_is_still_utf8(pipe: Reader, shift: int) -> None:
    text = "x" * shift + "\u20ac" * MAX_LINE
    Log(fd=pipe.writer).info("x", text)
    (line,) = pipe.lines()
    assert line == text[: len(line)]
    assert MAX_LINE - 3 <= len(line.encode()) + 1 <= MAX_LINE


@pytest.mark.parametrize("letter", ["x", "\u20ac", '"', "\x01"])
def test_a_cut_line_is_still_json(pipe: Reader, letter: str) -> None:
    Log(LogFormat.JSON, fd=pipe.writer).info("x", letter * MAX_LINE, client="::1")
    (line,) = pipe.lines()
    assert len(line.encode()) < MAX_LINE
    assert record(line)["event"] == "x"
    assert record(line)["client"] == "::1"
    assert record(line)["text"].startswith(letter * 100)


# ---- a reader that does not read -------------------------------------------------------------


def dropped(count: int) -> str:
    """The line that tells of lost ones."""
    return f"{count} log lines were dropped: stderr did not take them"


def test_a_full_pipe_costs_lines_and_says_so_later(pipe: Reader) -> None:
    """The pipe blocks, as stderr does: a write too many would hang here until the time limit."""
    assert os.get_blocking(pipe.writer)
    log = Log(fd=pipe.writer)
    pipe.fill()
    for number in range(3):
        log.info("x", f"lost {number}")
    pipe.read()
    log.info("x", "here again")
    log.info("x", "and on")
    assert pipe.lines() == ["here again", dropped(3), "and on"]


def test_the_line_about_lost_lines_is_not_counted(pipe: Reader) -> None:
    """There is room for the line itself, and none for the one that tells of the others."""
    log = Log(fd=pipe.writer)
    pipe.fill()
    log.info("x", "lost")
    assert len(pipe.read(4096)) == 4096
    log.info("x", "x" * 4000)
    pipe.read()
    log.info("x", "here again")
    assert pipe.lines() == ["here again", dropped(1)]


def test_lost_lines_are_told_as_json_too(pipe: Reader) -> None:
    log = Log(LogFormat.JSON, fd=pipe.writer)
    pipe.fill()
    log.info("x", "lost")
    pipe.read()
    log.info("x", "here again")
    told = record(pipe.lines()[1])
    assert (told["level"], told["event"]) == ("warning", "log-dropped")
    assert told["text"] == dropped(1)


@pytest.mark.parametrize("end", ["reader", "writer"], ids=["EPIPE", "POLLNVAL"])
def test_a_log_whose_pipe_is_closed_raises_nothing(pipe: Reader, end: str) -> None:
    log = Log(fd=pipe.writer)
    os.close(getattr(pipe, end))
    setattr(pipe, end, -1)
    for _ in range(3):
        log.error("x", "into the void")
    if end == "writer":
        assert pipe.lines() == []


def test_a_full_disk() -> None:
    fd = os.open("/dev/full", os.O_WRONLY | os.O_CLOEXEC)
    try:
        Log(fd=fd).error("x", "into the void")  # ENOSPC
    finally:
        os.close(fd)


def test_a_file_takes_every_line(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("wb", buffering=0) as file:
        log = Log(fd=file.fileno())
        for number in range(1000):
            log.info("x", f"line {number}")
    assert re.findall("info: (.*)\n", path.read_text()) == [f"line {at}" for at in range(1000)]


# ---- rates -----------------------------------------------------------------------------------


def test_limiter_table() -> None:
    limiter = Limiter(burst=2, interval=10.0)
    steps = [
        *((0.0, 0), (0.0, 0), (0.0, None), (9.9, None)),  # two at once, then none
        *((10.0, 2), (10.0, None), (19.9, None)),  # a token in 10 s; two were lost before it
        *((20.0, 2), (1000.0, 0), (1000.0, 0), (1000.0, None)),  # never more than the burst
    ]
    for now, expected in steps:
        assert limiter.admit(now) == expected, now


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 5), st.lists(st.floats(0, 30), max_size=60))
def test_limiter_loses_no_count(burst: int, gaps: list[float]) -> None:
    limiter, now, told, admitted = Limiter(burst, interval=10.0), 0.0, 0, 0
    for gap in gaps:
        now += gap
        verdict = limiter.admit(now)
        if verdict is not None:
            admitted += 1
            told += verdict
    assert admitted <= burst + sum(gaps) / 10 + 1e-6
    assert limiter.admit(now + 10 * burst + 1) == len(gaps) - admitted - told


def test_limited_lines_are_counted(pipe: Reader) -> None:
    clock = Clock()
    log = Log(fd=pipe.writer, clock=clock)
    for number in range(5):
        log.limited("key", "x", f"line {number}", burst=2)
    assert pipe.lines() == ["line 0", "line 1"]
    clock.now += 10
    log.limited("key", "x", "later", burst=2)
    assert pipe.lines() == ["later (and 3 more like it)"]
    clock.now += 10
    log.limited("key", "x", "later still", burst=2)
    assert pipe.lines() == ["later still"]


def test_limited_lines_are_warnings_with_their_fields(pipe: Reader) -> None:
    clock = Clock()
    log = Log(LogFormat.JSON, fd=pipe.writer, clock=clock)
    for _ in range(3):
        log.limited("key", "refused", "no", burst=1, client="::1")
        clock.now += 5
    first, second = map(record, pipe.lines())
    assert (first["level"], first["event"], first["client"]) == ("warning", "refused", "::1")
    assert "suppressed" not in first
    assert (second["suppressed"], second["client"]) == (1, "::1")


def test_every_key_has_its_own_rate(pipe: Reader) -> None:
    log = Log(fd=pipe.writer, clock=Clock())
    for key in ("a", "b", "a", "b"):
        log.limited(key, "x", key, burst=1)
    assert pipe.lines() == ["a", "b"]


async def test_a_task_that_is_kept_reports_its_failure() -> None:
    reported: list[object] = []

    async def fail() -> None:
        raise ValueError("too soon")

    asyncio.get_running_loop().set_exception_handler(
        lambda _, context: reported.append(str(context["exception"]))
    )
    task = in_background(fail(), "early")
    await asyncio.wait([task])
    await asyncio.sleep(0)
    assert reported == ["too soon"]


async def test_a_task_that_is_cancelled_is_no_failure() -> None:
    reported: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    task = in_background(asyncio.sleep(60), "long")
    task.cancel()
    await asyncio.wait([task])
    await asyncio.sleep(0)
    assert not reported
