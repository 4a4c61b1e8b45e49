"""The shim under real engines where no daemon of ours runs: it behaves as docker-proxy."""

from __future__ import annotations

import re
import signal
import sys

from tests.docker.conftest import ask
from tests.support.engine import Engine
from tests.support.process import eventually
from v6fwd.demo.lab import BRIDGE_V4, CLIENT_V4, HOST_V4, HOST_V6

PUBLISHED = ("--publish", "8080:80/tcp", "--publish", "8080:80/udp")
SEEN = {HOST_V6: BRIDGE_V4, HOST_V4: CLIENT_V4}
"""As whom a client of each of the host's addresses appears behind docker-proxy."""


def is_quiet(engine: Engine) -> bool:
    """Whether nothing is published any more."""
    return not engine.proxies() and not any(":8080" in each for each in engine.listeners())


def serves(engine: Engine) -> None:
    """Both families and both protocols get answers."""
    for host, seen in SEEN.items():
        for protocol in ("tcp", "udp"):
            assert ask(engine, protocol, host, 8080) == [f"from {seen} hello"]


def test_docker_run_and_rm(engine: Engine) -> None:
    engine.run("--name", "one", *PUBLISHED, "echo", "80")
    serves(engine)
    assert len(engine.proxies()) == 4
    assert {each for each in engine.listeners() if ":8080" in each} == {
        f"{protocol} {host}:8080" for protocol in ("tcp", "udp") for host in ("0.0.0.0", "[::]")
    }
    engine.remove("one")
    assert is_quiet(engine)


def test_status_shows_who_serves(engine: Engine) -> None:
    engine.run("--name", "one", *PUBLISHED, "echo", "80")
    words = ("-m", "v6fwd", "docker", "status", "--daemon-json", str(engine.config))
    told = engine.lab.run("host", sys.executable, *words)
    assert told.returncode == 0, told.stderr
    first, *lines = told.stdout.splitlines()
    assert first.endswith("v6fwd-docker-proxy")
    pids = {f"pid {pid}" for pid, _ in engine.proxies()}
    mine = [line.split("  ") for line in lines if line.rpartition("  ")[2] in pids]
    assert sorted(words[0] for words in mine) == [
        "0.0.0.0:8080", "0.0.0.0:8080/udp", "[::]:8080", "[::]:8080/udp",
    ]  # fmt: skip
    assert all("v6fwd, alone" in words for words in mine)
    engine.remove("one")


def test_docker_restart(engine: Engine) -> None:
    engine.run("--name", "one", *PUBLISHED, "echo", "80")
    before = dict(engine.proxies())
    engine.docker("restart", "--time", "1", "one")
    assert not before.keys() & dict(engine.proxies()).keys()
    serves(engine)
    engine.remove("one")
    assert is_quiet(engine)


def test_a_port_in_use_is_reported(engine: Engine) -> None:
    engine.run("--name", "one", *PUBLISHED, "echo", "80")
    failed = engine.try_docker("run", "--name", "two", "--publish", "8080:80", "echo", "80")
    assert failed.returncode == 125
    assert "port is already allocated" in failed.stderr
    engine.remove("one", "two")
    assert is_quiet(engine)


def test_a_port_of_another_program_is_reported(engine: Engine) -> None:
    script = "import socket, time; held = socket.create_server(('127.0.0.9', 8080)); time.sleep(60)"
    stranger = engine.lab.start("host", "python3", "-c", script)
    eventually(lambda: "tcp 127.0.0.9:8080" in engine.listeners(), "the stranger listens")
    failed = engine.try_docker("run", "--name", "two", *PUBLISHED, "echo", "80")
    assert failed.returncode == 125
    assert "address already in use" in failed.stderr
    stranger.kill()
    stranger.wait()
    engine.remove("two")
    assert is_quiet(engine)


def test_who_wants_a_published_port_is_told_whose_it_is(engine: Engine) -> None:
    engine.run("--name", "one", *PUBLISHED, "echo", "80")
    words = (sys.executable, "-m", "v6fwd", "forward", "[::]:8080", "127.0.0.1:9")
    done = engine.lab.run("host", *words, env=engine.environment)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    holder = re.fullmatch(
        r"cannot listen on \[::\]:8080: address already in use"
        r" \(v6fwd, pid ([0-9]+), container one\)",
        line,
    )
    assert holder is not None, line
    assert int(holder[1]) in dict(engine.proxies())
    engine.remove("one")


def test_twenty_ports(engine: Engine) -> None:
    ports = range(9000, 9020)
    engine.run("--name", "many", "--publish", "9000-9019:9000-9019", "echo", "9000", "9019")
    assert ask(engine, "tcp", HOST_V6, *ports) == [f"from {BRIDGE_V4} hello"] * 20
    assert len(engine.proxies()) == 40
    engine.remove("many")
    assert not engine.proxies()


def test_the_engine_restarts_under_a_container(engine: Engine) -> None:
    """With live-restore the container lives on; the proxies end with dockerd and come back."""
    engine.run("--name", "one", *PUBLISHED, "echo", "80")
    before = dict(engine.proxies())
    engine.stop()
    eventually(lambda: is_quiet(engine), "the proxies have ended")
    engine.start()
    assert len(engine.proxies()) == 4
    assert not before.keys() & dict(engine.proxies()).keys()
    serves(engine)
    engine.remove("one")
    assert is_quiet(engine)


def test_the_engine_is_killed(engine: Engine) -> None:
    """The last one of this module: the kernel tells the proxies (PR_SET_PDEATHSIG)."""
    engine.run("--name", "one", *PUBLISHED, "echo", "80")
    assert len(engine.proxies()) == 4
    engine.stop(signal.SIGKILL)
    eventually(lambda: is_quiet(engine), "the proxies have ended")
