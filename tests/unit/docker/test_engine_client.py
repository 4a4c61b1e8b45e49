"""Whatever the Engine says, or whoever is in its place: an answer, or a line for the operator."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.fake_engine import EVENT, HEAD, Answer, FakeEngine, hangs, says
from v6fwd.docker.engine import client as engine_api
from v6fwd.docker.engine.client import EngineApi, EngineError

ITEMS: list[dict[str, Any]] = [{"Id": "4f", "Names": ["/wéb"]}, {"Id": "50"}]
BODY = json.dumps(ITEMS, ensure_ascii=False).encode()


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[FakeEngine]:
    engine = FakeEngine(tmp_path / "docker.sock")
    await engine.start()
    yield engine
    await engine.stop()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_api, "PATIENCE", 0.05)


async def refused(engine: FakeEngine, answer: Answer) -> str:
    """What is said of a list that is answered like this."""
    engine.containers = answer
    with pytest.raises(EngineError) as caught:
        await EngineApi(engine.host).containers()
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(engine.host, "HOST")


# ---- a list ----------------------------------------------------------------------------------


async def test_a_list(engine: FakeEngine) -> None:
    engine.containers = says(HEAD + BODY)
    assert await EngineApi(engine.host).containers() == ITEMS
    assert engine.paths == ["/containers/json?all=1"]


@pytest.mark.parametrize("version", [b"HTTP/1.0 200 OK", b"HTTP/1.1 200 OK", b"HTTP/1.0 200 "])
async def test_an_end_is_the_end(engine: FakeEngine, version: bytes) -> None:
    """Whether or not a length is told, and in however many parts it comes."""
    head = version + b"\r\nContent-Length: %d\r\n\r\n" % len(BODY)
    engine.containers = says(*(bytes([each]) for each in head + BODY))
    assert await EngineApi(engine.host).containers() == ITEMS


async def test_cut_at_every_byte(engine: FakeEngine) -> None:
    whole = HEAD + BODY
    for cut in range(len(whole)):
        told = await refused(engine, says(whole[:cut]))
        if cut < len(HEAD):
            assert told == "Docker at HOST broke off", cut
        else:
            assert told == "Docker's answer is not JSON, or it broke off", cut


@pytest.mark.parametrize(
    "body", [b"{}", b"3", b'"x"', b"null", b"[1]", b"[[]]", b'{"message": "no"}', b"[{}, null]"]
)
async def test_no_list_of_containers(engine: FakeEngine, body: bytes) -> None:
    told = await refused(engine, says(HEAD + body))
    assert told == "Docker at HOST answers with something else than containers"


@pytest.mark.parametrize("body", [b"[" * 200_000, b"\xff\xfe", b"[{}]x", b"\x00"])
async def test_no_json(engine: FakeEngine, body: bytes) -> None:
    told = await refused(engine, says(HEAD + body))
    assert told == "Docker's answer is not JSON, or it broke off"


@pytest.mark.parametrize(
    "head",
    [
        *(b"SSH-2.0-OpenSSH_9.2\r\n\r\n", b"\r\n\r\n", b"a b c\r\n\r\n", b"\xff \xff\r\n\r\n"),
        *(b"HTTP/2 200 OK\r\n\r\n", b"HTTP/1.0 2\xb2\xb2 OK\r\n\r\n", b"HTTP/1.0 2000 OK\r\n\r\n"),
    ],
)
async def test_somebody_else_answers(engine: FakeEngine, head: bytes) -> None:
    told = await refused(engine, says(head))
    assert told == "the server at HOST is not Docker: it does not speak HTTP"


async def test_a_head_without_an_end(engine: FakeEngine) -> None:
    told = await refused(engine, says(b"HTTP/1.0 200 OK\r\nX: " + bytes(engine_api.MAX_LINE * 3)))
    assert told == "Docker at HOST broke off"


async def test_chunks_are_refused(engine: FakeEngine) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    told = await refused(engine, says(head + b"2\r\n[]\r\n0\r\n\r\n"))
    assert told == "the server at HOST does not speak HTTP/1.0, as Docker does"


@pytest.mark.parametrize("status", [b"400 Bad Request", b"403 ", b"500 Internal", b"301 Moved"])
async def test_a_refusal_with_a_message(engine: FakeEngine, status: bytes) -> None:
    told = await refused(
        engine, says(b"HTTP/1.0 " + status + b'\r\n\r\n{"message":"no\r\nway \xff"}' + b"x" * 9999)
    )
    expected = f'Docker at HOST answers {status[:3].decode()}: {{"message":"no way '
    assert told.startswith(expected + "\N{REPLACEMENT CHARACTER}")
    assert len(told) < 300


async def test_more_than_we_take(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_api, "MAX_ANSWER", 1000)
    told = await refused(engine, says(HEAD + b"[" + b" " * 5000))
    assert told == "Docker's answer has more than 1000 bytes"


# ---- silence ---------------------------------------------------------------------------------


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    "said", [b"", b"HTTP/1.0 200 OK\r\n", HEAD, HEAD + b"[", b"HTTP/1.0 500 No\r\n\r\n"]
)
async def test_silence(engine: FakeEngine, said: bytes) -> None:
    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(said)
        await hangs(writer)

    assert await refused(engine, answer) == "Docker at HOST does not answer"


@pytest.mark.usefixtures("impatient")
async def test_nobody_takes_us_in(tmp_path: Path) -> None:
    """A program that listens and does nothing more."""
    path = tmp_path / "docker.sock"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        sock.listen(0)
        with pytest.raises(EngineError, match="does not answer"):
            await EngineApi(f"unix://{path}").containers()


# ---- no Engine -------------------------------------------------------------------------------


async def unasked(path: Path) -> str:
    """What is said where nobody can be asked."""
    with pytest.raises(EngineError) as caught:
        await EngineApi(f"unix://{path}").containers()
    return str(caught.value).replace(str(path), "PATH")


async def test_no_socket(tmp_path: Path) -> None:
    told = await unasked(tmp_path / "none")
    assert told == "cannot ask Docker at unix://PATH: no such file or directory"


async def test_no_longer_a_socket(tmp_path: Path) -> None:
    """A file, and the socket of an Engine that is gone."""
    (tmp_path / "file").touch()
    expected = "cannot ask Docker at unix://PATH: connection refused"
    assert await unasked(tmp_path / "file") == expected
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "left"))
    assert await unasked(tmp_path / "left") == expected


async def test_a_path_that_is_too_long(tmp_path: Path) -> None:
    told = await unasked(tmp_path / ("x" * 200))
    assert told.startswith("cannot ask Docker at unix://PATH: ")


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes somebody else for a moment")
async def test_not_ours_to_ask(engine: FakeEngine) -> None:
    engine.path.chmod(0o600)
    for folder in (engine.path.parent, engine.path.parent.parent):
        folder.chmod(0o755)
    os.seteuid(65534)
    try:
        told = await unasked(engine.path)
    finally:
        os.seteuid(0)
    assert told == "cannot ask Docker at unix://PATH: permission denied"


# ---- events ----------------------------------------------------------------------------------


async def heard(engine: FakeEngine, *parts: bytes) -> tuple[list[dict[str, Any]], str]:
    """The events that are understood, and what is said then; "" for a clean end."""
    engine.events = says(*parts)
    found: list[dict[str, Any]] = []
    try:
        async with EngineApi(engine.host).events() as events:
            async for event in events:
                found.append(event)
    except EngineError as error:
        return found, str(error).replace(engine.host, "HOST")
    return found, ""


async def test_events(engine: FakeEngine) -> None:
    event = json.loads(EVENT)
    assert await heard(engine, HEAD, EVENT, EVENT * 2) == ([event] * 3, "")
    parts = [bytes([each]) for each in HEAD + EVENT]
    assert await heard(engine, *parts) == ([event], "")
    assert re.match("/events.since=[0-9]+&filters=%7B%22type%22", engine.paths[0])


async def test_what_happened_before_the_engine_subscribed(engine: FakeEngine) -> None:
    """It answers first; what it tells from now on is to begin with what came in between."""
    asked = time.time()
    async with EngineApi(engine.host).events():
        [path] = engine.paths
    since = re.search("since=([0-9]+)", path)
    assert since is not None
    assert int(since[1]) <= asked


async def test_events_cut_at_every_byte(engine: FakeEngine) -> None:
    whole = HEAD + EVENT * 2
    for cut in range(len(whole)):
        found, told = await heard(engine, whole[:cut])
        count, left = divmod(cut - len(HEAD), len(EVENT))
        if cut < len(HEAD):
            assert (found, told) == ([], "Docker at HOST broke off"), cut
        elif left == len(EVENT) - 1:  # all but the newline
            assert (len(found), told) == (count + 1, ""), cut
        else:
            assert len(found) == count, cut
            assert bool(told) is bool(left), cut


@pytest.mark.parametrize("line", [b"\n", b"garbage\n", b"\xff\n", b'{"a":\n'])
async def test_an_event_that_is_none(engine: FakeEngine, line: bytes) -> None:
    found, told = await heard(engine, HEAD + EVENT + line + EVENT)
    assert (len(found), told) == (1, "Docker's answer is not JSON, or it broke off")


async def test_an_event_as_long_as_they_get(engine: FakeEngine) -> None:
    def event(size: int) -> bytes:
        return b'{"x":"%s"}\n' % (b"x" * (size - 9))

    found, told = await heard(engine, HEAD, event(engine_api.MAX_LINE))
    assert (len(found), told) == (1, "")
    found, told = await heard(engine, HEAD, event(engine_api.MAX_LINE * 3))
    assert (len(found), told) == (0, "Docker sent an event of more than 1048576 bytes")


@pytest.mark.usefixtures("impatient")
async def test_events_may_be_silent(engine: FakeEngine) -> None:
    """For as long as they like: silence costs us nothing once there was a head."""
    async with EngineApi(engine.host).events() as events:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(aiter(events)), 3 * engine_api.PATIENCE)
