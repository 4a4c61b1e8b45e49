"""The command line that is read without click is read as click does, or not at all."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.imports import AT_RUN, imported_by
from v6fwd.cli import quick
from v6fwd.cli.daemon import DEFAULT
from v6fwd.cli.forward import forward
from v6fwd.cli.quick import CommandLine, read, read_serve
from v6fwd.cli.serve import serve
from v6fwd.config import Config

PAIR = ("[::1]:8080", "127.0.0.1:80")
WORDS = """none proxy-v1 proxy-v2 x-forwarded-for transparent auto ring epoll text json 0 1 5s 500ms
2m ::1 10.0.0.0/8,2001:db8::/32 3/s 0.5 -1 nonsense -- --log-flows"""
VALUES = [*WORDS.split(), "", " ", "a b"]
PLACES = [
    "[::]:8080",
    "8080",
    "0.0.0.0:81",
    "[::]:5000-5002",
    "[::1]:53/udp",
    "127.0.0.1:80",
    "h:80",
    "unix:/a",
    "127.0.0.1:6000-6002",
    "127.0.0.1:53",
    "docker:web:80",
    "[fe80::1%lo]:80",
    "x",
]
NAMES = [*quick._KINDS, quick.FLAG, "--max-flows", "--help", "--nothing", "-h", "--"]

options = st.one_of(
    st.tuples(st.sampled_from(NAMES), st.sampled_from(VALUES)),
    st.builds(
        lambda name, value: (f"{name}={value}",), st.sampled_from(NAMES), st.sampled_from(VALUES)
    ),
    st.just((quick.FLAG,)),
    st.tuples(st.sampled_from(PLACES)),
    st.sampled_from([PAIR, ("8080", "h:80"), ("[::1]:53/udp", "127.0.0.1:53")]),
)
lines = st.lists(options, max_size=6).map(lambda parts: [word for part in parts for word in part])


def by_click(words: list[str]) -> CommandLine | None:
    """What click reads; None: it refuses, or prints a text."""
    read_by_click: list[CommandLine] = []

    def served(forwards: Any, limits: Any, *, log_flows: Any, log_format: Any, engine: Any) -> None:
        read_by_click.append(CommandLine(forwards, limits, log_flows, log_format, engine))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(importlib.import_module("v6fwd.cli.forward"), "serve_here", served)
        try:
            forward.main(words, standalone_mode=False)
        except (click.ClickException, click.exceptions.Exit):
            return None
    return read_by_click[0] if read_by_click else None


@given(lines)
def test_it_reads_as_click_does(words: list[str]) -> None:
    line = read(words)
    if line is not None:
        assert line == by_click(words)


@pytest.mark.parametrize(
    "words",
    [
        PAIR,
        ("8080", "h:80", "[::1]:53/udp", "127.0.0.1:53", "--log-flows"),
        (*PAIR, "--client-ip=proxy-v2", "--accept-proxy", "10.0.0.0/8", "--engine", "epoll"),
        (*PAIR, "--drain-timeout", "0", "--deny=::1", "--client-rate", "3", "--log-format", "json"),
    ],
)
def test_what_is_usual_needs_no_click(words: tuple[str, ...]) -> None:
    line = read(words)
    assert line is not None
    assert line == by_click([*words])


@pytest.mark.parametrize("name", quick._KINDS)
def test_every_option_that_is_read(name: str) -> None:
    """Some value of VALUES is read; a test above compares it with click's."""
    assert any(read([*PAIR, name, value]) is not None for value in VALUES if value)


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("8080",),
        (*PAIR, "--help"),
        (*PAIR, "--max-flows", "3"),
        (*PAIR, "--client-ip", "nonsense"),
        (*PAIR, "--client-ip"),
        (*PAIR, "--log-flows=1"),
        (*PAIR, "--deny", "::1", "--deny", "::2"),
        (*PAIR, *PAIR),
        ("[::1]:53/udp", "127.0.0.1:53", "--client-ip", "proxy-v1"),
    ],
)
def test_the_rest_is_left_to_click(words: tuple[str, ...]) -> None:
    assert read(words) is None


UNNEEDED = {
    *("asyncio", "click", "copy", "dataclasses", "inspect", "json", "logging", "re", "ssl"),
    *("traceback", "typing", "uvloop", "v6fwd.cli.failing", "v6fwd.client_ip.proxy"),
    *("v6fwd.model.banning", "v6fwd.model.hints", "v6fwd.relay.http", "v6fwd.relay.udp"),
}


def test_neither_click_nor_asyncio_is_imported_for_a_port() -> None:
    """A process a port: each module costs time and memory."""
    imported = imported_by(
        f"from v6fwd.__main__ import main; {AT_RUN}"
        "import v6fwd.netns.netlink;"  # where a host has a bridge of Docker's
        "sys.argv = ['v6fwd', 'forward', '[::1]:1', '127.0.0.1:80']; main()"
    )
    assert not UNNEEDED & imported
    ours = [name for name in imported if name.startswith("v6fwd.")]
    assert len(ours) <= 85, "each takes 0.1 ms of a start: load it where it is needed"


SERVE = [
    "-c",
    "--config",
    "--config=x",
    "-cx",
    "--docker",
    "--check",
    "--help",
    "x",
    "",
    "a b",
    "-",
]


@given(st.lists(st.sampled_from(SERVE), max_size=4))
def test_serve_is_read_as_click_does(words: list[str]) -> None:
    line = read_serve(words)
    if line is None:
        return
    served: list[tuple[Path, bool, bool]] = []
    with pytest.MonkeyPatch.context() as patch:
        module = importlib.import_module("v6fwd.cli.serve")
        patch.setattr(module, "configuration", lambda *_, **__: Config())
        patch.setattr(
            module,
            "serve_config",
            lambda path, _, *, docker, needs_file: served.append((path, docker, needs_file)),
        )
        serve.main(words, standalone_mode=False)
    name, docker = line
    assert served == [(Path(name) if name else DEFAULT, docker, bool(name) or not docker)]


@pytest.mark.parametrize("words", [(), ("-c", "x"), ("--docker",), ("--config", "x", "--docker")])
def test_what_is_usual_for_serve_needs_no_click(words: tuple[str, ...]) -> None:
    assert read_serve(words) is not None


REST = [("--check",), ("-c",), ("-c", "a", "-c", "b"), ("-c", "--docker"), ("x",), ("--help",)]


@pytest.mark.parametrize("words", REST)
def test_the_rest_of_serve_is_left_to_click(words: tuple[str, ...]) -> None:
    assert read_serve(words) is None
