"""The shim's contract with dockerd where no daemon of ours runs, and what it leaves to others."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.process import eventually, free_port
from tests.support.shim import SOURCE, Shim, listening
from v6fwd import __version__
from v6fwd.model import Protocol

NOWHERE = ("127.0.0.1", 9)
FLAGS = ("-host-ip", "::1", "-host-port", "1", "-container-ip", "127.0.0.1")


def stock(folder: Path) -> dict[str, str]:
    """An environment in which docker-proxy is a program that tells how it was called."""
    program = folder / "docker-proxy"
    program.write_text(f'#!/bin/sh\nprintf "0\\n" >&3\nprintf "%s|" "$@" >{folder}/words\n')
    program.chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}"}


def without_python(folder: Path, shebang: str) -> None:
    """Put another `v6fwd` beside the shim."""
    launcher = folder / "v6fwd"
    launcher.unlink()
    launcher.write_text(f"#!{shebang}\n")


@pytest.mark.parametrize("flag", ["-v", "-version", "--version"])
def test_version_is_one_line(shim: Shim, flag: str) -> None:
    told = subprocess.run([*shim.command, flag], capture_output=True, text=True, check=True)
    assert told.stdout == f"v6fwd-docker-proxy {__version__}\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("protocol", Protocol)
def test_life_and_end(shim: Shim, protocol: Protocol, number: signal.Signals) -> None:
    port = free_port()
    shim.proxy(protocol, "::", port, NOWHERE)
    assert shim.all_status() == b"0\n"
    assert shim.stop(number) == 0
    listening(protocol, "::", port).close()


def test_connections_end_with_it(shim: Shim) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = free_port("::1")
        shim.proxy(Protocol.TCP, "::1", port, server.getsockname())
        assert shim.status() == b"0\n"
        with socket.create_connection(("::1", port)), server.accept()[0] as target:
            assert shim.stop() == 0
            with pytest.raises(ConnectionResetError):
                target.recv(1)


@pytest.mark.parametrize(
    ("protocol", "host", "text"),
    [
        (Protocol.TCP, "::", "listen tcp6 [::]"),
        (Protocol.TCP, "127.0.0.1", "listen tcp4 127.0.0.1"),
        (Protocol.UDP, "::1", "listen udp6 [::1]"),
        (Protocol.UDP, "0.0.0.0", "listen udp4 0.0.0.0"),
    ],
)
def test_port_in_use(shim: Shim, protocol: Protocol, host: str, text: str) -> None:
    with listening(protocol, host) as other:
        port = other.getsockname()[1]
        shim.proxy(protocol, host, port, NOWHERE)
        assert shim.all_status() == f"1\n{text}:{port}: bind: address already in use".encode()
        assert shim.wait() == 1


def test_a_descriptor_that_is_no_socket(shim: Shim) -> None:
    shim.start(*FLAGS, "-container-port=1", "-use-listen-fd")
    expected = b"1\ncannot use descriptor 4 as [::1]:1: "
    assert shim.all_status().startswith(expected)
    assert shim.wait() == 1


@pytest.mark.parametrize(
    "words",
    [
        ("-proto", "sctp", *FLAGS, "-use-listen-fd"),
        ("--proto=sctp", *FLAGS),
        ("-proto", "tcp", "-new-flag", "a value", *FLAGS),
    ],
)
def test_docker_proxy_does_what_we_cannot(
    shim: Shim, tmp_path: Path, words: tuple[str, ...]
) -> None:
    shim.start(*words, environment=stock(tmp_path))
    assert shim.status() == b"0\n"
    assert shim.wait() == 0
    assert (tmp_path / "words").read_text() == "".join(f"{word}|" for word in words)


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("-proto", "sctp"), "unsupported protocol sctp"),
        (("-new-flag",), "flag provided but not defined: -new-flag"),
    ],
)
def test_nor_is_there_a_docker_proxy(shim: Shim, words: tuple[str, ...], error: str) -> None:
    # As if docker-proxy had come back to the shim that is in its place.
    shim.start(*words, *FLAGS, environment={"V6FWD_SHIM_STOCK": "/nonexistent"})
    assert shim.all_status() == f"1\n{error}".encode()
    assert shim.wait() == 1


@pytest.mark.parametrize(
    "shebang",
    ["/nonexistent/python3", "/bin/sh", "/usr/bin/python3", "/usr/bin/env python3"],
)
def test_docker_proxy_takes_the_place_of_a_broken_python(
    shim: Shim, tmp_path: Path, shebang: str
) -> None:
    without_python(tmp_path, shebang)
    shim.start("-proto", "tcp", *FLAGS, environment=stock(tmp_path))
    assert shim.status() == b"0\n"
    assert shim.wait() == 0
    assert (tmp_path / "words").read_text() == "".join(
        f"{word}|" for word in ("-proto", "tcp", *FLAGS)
    )


def test_broken_python_and_no_docker_proxy(shim: Shim, tmp_path: Path) -> None:
    without_python(tmp_path, "/usr/bin/python3")
    shim.start(*FLAGS, environment={"V6FWD_SHIM_STOCK": "/nonexistent"})
    expected = b"1\nv6fwd is not installed for /usr/bin/python3: No module named 'v6fwd'"
    assert shim.all_status() == expected
    assert shim.wait() == 1


def test_it_holds_what_it_should(shim: Shim) -> None:
    """The status pipe is closed, and there is one listening socket."""
    with listening(Protocol.TCP, "::1") as listener:
        shim.proxy(Protocol.TCP, "::1", listener.getsockname()[1], NOWHERE, listener=listener)
    assert shim.all_status() == b"0\n"
    folder = Path(f"/proc/{shim.pid}/fd")
    eventually(lambda: os.readlink(folder / "4").startswith("socket:"), "the listener is there")
    assert not shim.children()
    assert shim.stop() == 0


def test_installed_with_the_package() -> None:
    """What `pip install` puts on PATH is this very file."""
    installed = Path(sys.executable).with_name(SOURCE.name)
    assert installed.read_bytes() == SOURCE.read_bytes(), "make installs it anew"
    assert os.access(installed, os.X_OK)


def test_a_port_that_leads_to_itself(shim: Shim) -> None:
    port = free_port("::1")
    shim.proxy(Protocol.TCP, "::1", port, ("::1", port))
    assert shim.all_status().startswith(b"1\n")
    assert shim.wait() == 1
