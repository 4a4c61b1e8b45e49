"""Readers of what other programs of this machine say: Docker, the kernel, our own processes, files.

Each holds: the reader raises what it documents and nothing else; what it returns has the types that
it promises; an error is a line that can be logged. The first byte chooses the reader where a target
has several.
"""

from __future__ import annotations

import asyncio
import contextlib
import glob
import ipaddress
import json
import os
import struct
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

from v6fwd.config import Config, ConfigError, reader
from v6fwd.daemon import wire
from v6fwd.daemon.control import Control
from v6fwd.daemon.helper import _REQUESTS
from v6fwd.daemon.messages import (
    Answer,
    Message,
    MessageError,
    Report,
    read_by_helper,
    read_by_supervisor,
    read_by_worker,
    read_items,
    read_nothing,
    to_bytes,
)
from v6fwd.docker.engine.client import EngineApi, EngineError
from v6fwd.docker.engine.containers import find_containers, targets
from v6fwd.docker.engine.watcher import _read
from v6fwd.docker.nft_watch import NftWatch, _messages
from v6fwd.docker.policy.docker_user import UntranslatableError, read_rules, translate
from v6fwd.docker.policy.modes import choose
from v6fwd.docker.shim.flags import parse_flags
from v6fwd.docker.shim.published import split_command
from v6fwd.docker.shim.rendezvous import read_line
from v6fwd.docker.swarm.ingress import read_ingress
from v6fwd.errors import RelayError
from v6fwd.log import MAX_LINE, escaped
from v6fwd.model import Endpoint, Forward, InputError, Protocol
from v6fwd.netns.netlink import Netlink, SockDiag
from v6fwd.netns.netlink_format import read_attributes, read_messages
from v6fwd.netns.search import Links
from v6fwd.netns.watch import LinkWatch
from v6fwd.relay.transparent.privileged import AheadRequest, NetnsView, SocketRequest

Target = Callable[[bytes], None]
_FORWARD = Forward(Endpoint("::", 80), Endpoint("172.17.0.2", 80))


def _is_line(text: str) -> None:
    """As the log writes it: something, and nothing that a terminal obeys."""
    assert text
    assert "\n" not in text or escaped(text.replace("\n", " ")).isprintable()
    assert len(text) < 64 * MAX_LINE


# ---- the Engine ------------------------------------------------------------------------------


class _Writer:
    """Takes the request."""

    def write(self, data: bytes) -> None:
        pass

    def close(self) -> None:
        pass


class _Answered(EngineApi):
    """An Engine that has said all that it says."""

    def __init__(self, data: bytes) -> None:
        super().__init__("unix:///run/docker.sock")
        self._data = data

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        stream = asyncio.StreamReader(limit=1 << 16)
        stream.feed_data(self._data)
        stream.feed_eof()
        return stream, cast("asyncio.StreamWriter", _Writer())


async def _events(api: EngineApi) -> None:
    async with api.events() as events:
        async for _ in events:
            pass


async def _containers(api: EngineApi) -> None:
    """What is listed can be used wherever containers are."""
    containers = _read(await api.containers(), api.host)
    assert find_containers(containers, _FORWARD) in ([], containers) or len(containers) > 1
    for each in containers:
        assert hash((each.id, each.name, each.image))
        assert all(isinstance(name, str) for name in (*each.hosts, each.address()))
        for port, protocol in targets(each):
            choice = choose(each.as_published(port, port, protocol))
            for text in (choice.source, *choice.errors):
                _is_line(text)


def _ingress(answer: Any) -> None:
    """What is read of a swarm is names, ports, and addresses in its network."""
    try:
        ingress = read_ingress(answer)
    except ValueError:
        return
    tasks = [task.address for service in ingress.services for task in service.tasks]
    for address in (ingress.own, *tasks, *ingress.nodes.values(), *ingress.containers):
        assert ipaddress.IPv4Address(address) in ingress.network
    for service in ingress.services:
        _is_line(service.name)
        assert all(0 < port < 65536 for pair in service.ports for port in pair)


async def _ask(which: int, api: EngineApi) -> None:
    if which == 0:
        await _containers(api)
    elif which == 1:
        await _events(api)
    elif which == 2:
        assert 0 <= await api.pid("one") < 1 << 31
    else:
        _ingress(await api.get("/info"))


def engine(data: bytes) -> None:
    """Heads, lists, events and one container."""
    loop = _loop()
    try:
        loop.run_until_complete(_ask(data[0] % 4 if data else 0, _Answered(data[1:])))
    except EngineError as error:
        _is_line(str(error))


_loops: list[asyncio.AbstractEventLoop] = []


def _loop() -> asyncio.AbstractEventLoop:
    """One for all inputs: a new one costs more than most of them."""
    if not _loops:
        _loops.append(asyncio.SelectorEventLoop())
    return _loops[0]


# ---- the kernel ------------------------------------------------------------------------------


class _Received:
    """A netlink socket that has these bytes for whoever asks, and then nothing."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def send(self, data: bytes) -> int:
        return len(data)

    def recv(self, _: int) -> bytes:
        data, self._data = self._data, b""
        if not data:
            raise BlockingIOError
        return data


def _netlink(kind: Any, data: bytes) -> Any:
    one = object.__new__(kind)
    one._socket, one._sequence, one._known = _Received(data), 0, {}
    one._names, one._types = [b"nat\0", b"filter\0"], frozenset({2, 5, 8})
    return one


ASKED: tuple[Callable[[bytes], object], ...] = (
    lambda data: _netlink(Netlink, data).addresses(),
    lambda data: _netlink(Netlink, data).is_local(bytes(4)),
    lambda data: _netlink(Netlink, data).delete_rules(range(100)),
    lambda data: _netlink(Netlink, data).delete_routes(range(100)),
    lambda data: _netlink(SockDiag, data).listening(Protocol.TCP, 80),
    lambda data: _netlink(SockDiag, data).listening(Protocol.UDP, 53),
    lambda data: _netlink(Links, data).links(),
    lambda data: _netlink(Links, data).number_of(3),
    lambda data: _netlink(LinkWatch, data).read(),
    lambda data: _netlink(NftWatch, data).has_news(),
    lambda data: _netlink(Links, data).device_to(bytes(16)),
)


def netlink(data: bytes) -> None:
    """Every message is read once, however long it says that it is; questions end with OSError."""
    which, rest = (data[0] if data else 0), data[1:]
    messages = [*read_messages(rest)]
    assert len(messages) <= len(rest) // 16
    assert len([*_messages(rest)]) <= len(rest) // 16
    assert len(read_attributes(rest)) <= len(rest) // 4
    with contextlib.suppress(OSError):
        ASKED[which % len(ASKED)](rest)


# ---- our own processes -----------------------------------------------------------------------

_CHANNELS = (read_by_worker, read_by_helper, read_by_supervisor, read_nothing)
_LISTENS = frozenset({"[::]:80", "0.0.0.0:80"})


def channel(data: bytes) -> None:
    """A message that is understood is written and understood again."""
    read = _CHANNELS[data[0] % len(_CHANNELS) if data else 0]
    try:
        message: Message = read(data[1:])
        assert read(to_bytes(message)) == message
        if isinstance(message, Report):
            assert message.listen.isprintable()
        if isinstance(message, Answer):
            items = read_items("flows" if message.last else "snapshot", message.part, _LISTENS)
            assert json.dumps(items).isprintable()
    except MessageError as error:
        _is_line(str(error))


def helper(data: bytes) -> None:
    """Requests to a helper, and its answers."""
    which, packet = (data[0] % 4 if data else 0), data[1:]
    with contextlib.suppress(wire.WireError, RelayError, OSError):
        if which == 0:
            kind, words = wire.read(packet, _REQUESTS)
            assert tuple(map(type, words)) == _REQUESTS[kind]
        elif which == 1:
            request: SocketRequest = wire.read_bound(packet)
            assert wire.read_bound(wire.pack_bound(request)) == request
        elif which == 2:
            ahead: AheadRequest = wire.read_ahead(packet)
            assert wire.read_ahead(wire.pack_ahead(ahead)) == ahead
        else:
            view = wire.read_view(wire.read_answer(packet))
            assert isinstance(view, NetnsView)


async def _obeyed(line: bytes) -> list[dict[str, Any]]:
    async def handler(request: dict[str, Any], _: object) -> Any:
        do = request.get("do")
        yield {"may": do in ("reload", "drain"), "listen": request["listen"], "do": f"{do!r}"}

    one: Any = Control.__new__(Control)
    one._handler = handler
    return [answer async for answer in one._answers(line, None)]


def control(data: bytes) -> None:
    """Every request has an answer, which JSON can write and a terminal can show."""
    answers = _loop().run_until_complete(_obeyed(data))
    assert answers
    for answer in answers:
        text = json.dumps(answer)
        assert text.isprintable()
        assert len(text) < 1000 + 20 * len(data)


# ---- files, flags and rules ------------------------------------------------------------------


def toml(data: bytes) -> None:
    """A configuration, or a line for each mistake; includes lead nowhere here."""
    with tempfile.NamedTemporaryFile(dir=_fast(), suffix=".toml") as file, _no_includes():
        file.write(data)
        file.flush()
        try:
            config = reader.read(Path(file.name))
        except ConfigError as error:
            lines = str(error).splitlines()
            assert lines
            for line in lines:
                _is_line(line)
            assert len(lines) <= 2 + len(data)
        else:
            assert isinstance(config, Config)
            assert hash(config.forwards) == hash(config.forwards)


def _fast() -> str | None:
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


@contextlib.contextmanager
def _no_includes() -> Iterator[None]:
    """Random patterns would read this machine's files."""
    found, glob.glob = glob.glob, cast("Any", lambda *_, **__: [])
    try:
        yield
    finally:
        glob.glob = found


def shim(data: bytes) -> None:
    """A command line, flags, and what is written into the FIFO."""
    which, rest = (data[0] % 3 if data else 0), data[1:]
    if which == 0:
        for line in rest.split(b"\n"):
            told = read_line(line)
            if told is not None:
                pid, started, stops = told
                assert 0 < pid < 1 << 31
                assert struct.pack("=qQ?", pid, started, stops)
        return
    words = rest.decode("utf-8", "replace").removesuffix("\0").split("\0")
    split = split_command(words) if which == 1 else (None, words)
    if split is None:
        return
    try:
        flags = parse_flags(split[1])
    except InputError as error:
        _is_line(escaped(str(error)))
    else:
        assert 0 <= flags.forward.listen.port < 65536
        assert escaped(str(flags.forward)).isprintable()


def rules(data: bytes) -> None:
    """What `iptables -S` prints is translated, or it is said which rule cannot be."""
    try:
        for rule in translate(read_rules(data.decode("utf-8", "replace")), _FORWARD):
            assert all(isinstance(word, str) for word in rule)
    except (UntranslatableError, ValueError) as error:
        _is_line(escaped(str(error)) or "-")


MACHINE_TARGETS: dict[str, Target] = {
    "engine": engine,
    "netlink": netlink,
    "channel": channel,
    "helper": helper,
    "control": control,
    "toml": toml,
    "shim": shim,
    "rules": rules,
}
