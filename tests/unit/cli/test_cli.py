"""The command line: what it takes, and one plain line for everything that it does not."""

from __future__ import annotations

import importlib
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

import v6fwd
from v6fwd.cli import COMMANDS, main
from v6fwd.cli.forward import GROUPS, forward
from v6fwd.log import LogFormat
from v6fwd.model import (
    ClientIP,
    Guard,
    Limits,
    Transparent,
    TransparentFallback,
    parse_networks,
)

PAIR = ("[::1]:8080", "127.0.0.1:80")


def run(*words: str) -> Result:
    """Run a command line in this process."""
    return CliRunner().invoke(main, words, prog_name="v6fwd")


class Served:
    """Stands where the relay is started, and remembers with what."""

    def __init__(self) -> None:
        self.forwards: list[str] = []
        self.limits = Limits()
        self.networks: list[str] = []
        self.guards: set[Guard] = set()
        self.modes: set[ClientIP] = set()
        self.log_flows: bool | None = None

    def __call__(self, forwards: Any, limits: Limits, *, log_flows: bool, **_: object) -> None:
        self.forwards = [str(forward) for forward in forwards]
        self.limits = limits
        self.networks = [str(network) for network in forwards[0].accept_proxy]
        self.guards = {forward.guard for forward in forwards}
        self.modes = {forward.client_ip for forward in forwards}
        self.log_flows = log_flows


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Served:
    served = Served()
    # By its name in sys.modules: v6fwd.cli.forward as an attribute is the command.
    monkeypatch.setattr(importlib.import_module("v6fwd.cli.forward"), "serve_here", served)
    return served


# ---- what is taken ---------------------------------------------------------------------------


def test_the_shortest_command_line(served: Served) -> None:
    result = run("forward", *PAIR)
    assert (result.exit_code, result.output) == (0, "")
    assert served.forwards == ["[::1]:8080 -> 127.0.0.1:80"]
    assert served.limits == Limits()
    assert served.modes == {ClientIP.NONE}
    assert served.networks == []
    assert served.guards == {Guard()}
    assert served.log_flows is False


def test_pairs_and_ranges(served: Served) -> None:
    result = run("forward", "80-81", "h:8080-8081", "0.0.0.0:443", "unix:/a")
    assert result.exit_code == 0, result.output
    assert served.forwards == [
        "[::]:80 -> h:8080",
        "[::]:81 -> h:8081",
        "0.0.0.0:443 -> unix:/a",
    ]


@pytest.mark.parametrize("mode", ClientIP)
def test_every_mode(served: Served, mode: ClientIP) -> None:
    assert run("forward", *PAIR, "--client-ip", mode.value).exit_code == 0
    assert served.modes == {mode}


@pytest.mark.parametrize("style", LogFormat)
def test_every_log_format(served: Served, style: LogFormat) -> None:
    assert run("forward", *PAIR, "--log-format", style.value, "--log-flows").exit_code == 0
    assert served.log_flows is True


def test_accept_proxy_adds_up(served: Served) -> None:
    words = ("--accept-proxy", "10.0.0.0/8, ::1", "--accept-proxy", "192.0.2.7")
    assert run("forward", *words, *PAIR).exit_code == 0
    assert served.networks == ["10.0.0.0/8", "::1/128", "192.0.2.7/32"]


def test_the_guard(served: Served) -> None:
    words = ("--allow", "2001:db8::/32", "--allow", "192.0.2.0/24", "--deny", "192.0.2.7")
    numbers = ("--client-flows", "20", "--client-rate", "0.5", "--client-prefix", "56")
    assert run("forward", *words, *numbers, *PAIR).exit_code == 0
    nets = parse_networks("2001:db8::/32,192.0.2.0/24"), parse_networks("192.0.2.7")
    assert served.guards == {Guard(*nets, 20, 0.5, 56)}


def options() -> dict[str, click.Option]:
    """The options of `forward` by the name of their parameter."""
    return {
        param.name: param
        for param in forward.params
        if isinstance(param, click.Option) and param.name is not None
    }


LIMITS = {field.name: field for field in fields(Limits)}
GUARD = {field.name: field for field in fields(Guard)}


@pytest.mark.parametrize("name", LIMITS)
def test_every_limit_is_an_option(name: str) -> None:
    assert options()[name].opts == [f"--{name.replace('_', '-')}"]
    assert options()[name].default == LIMITS[name].default


@pytest.mark.parametrize("name", GUARD)
def test_every_field_of_a_guard_is_an_option(name: str) -> None:
    assert options()[name].opts == [f"--{name.replace('_', '-')}"]
    if name.startswith("client"):
        assert options()[name].default == GUARD[name].default


@pytest.mark.parametrize("name", LIMITS)
def test_every_limit_gets_where_it_belongs(served: Served, name: str) -> None:
    value = 17_000 if name == "max_head" else 17
    result = run("forward", *PAIR, f"--{name.replace('_', '-')}", str(value))
    assert result.exit_code == 0, result.output
    for other in LIMITS:
        expected = value if other == name else LIMITS[other].default
        assert getattr(served.limits, other) == expected, other


ZERO_ALLOWED = ("drain-timeout", "interrupt-timeout", "idle-timeout", "max-flows")


@pytest.mark.parametrize("option", ZERO_ALLOWED)
def test_zero_where_it_means_something(served: Served, option: str) -> None:
    assert run("forward", *PAIR, f"--{option}", "0").exit_code == 0
    assert getattr(served.limits, option.replace("-", "_")) == 0


def test_fractions_of_a_second(served: Served) -> None:
    assert run("forward", *PAIR, "--connect-timeout", "0.25").exit_code == 0
    assert served.limits.connect_timeout == 0.25


# ---- help ------------------------------------------------------------------------------------


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_names_every_command(flag: str) -> None:
    result = run(flag)
    assert result.exit_code == 0
    for name, command in main.commands.items():
        assert (f"\n  {name} " in result.output) is not command.hidden


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_a_command_is_what_its_line_in_the_help_says(name: str) -> None:
    """The line stands where no command need be imported for it; it is short, and a sentence."""
    command = COMMANDS[name].load()
    assert command.name == name
    assert command.hidden is COMMANDS[name].is_hidden
    if not command.hidden:
        assert re.fullmatch(r"[A-Z].{10,64}\.", COMMANDS[name].help)


@pytest.mark.parametrize("words", [(), ("docker",)])
def test_help_cuts_no_line(words: tuple[str, ...]) -> None:
    result = CliRunner().invoke(main, [*words, "--help"], terminal_width=80)
    assert "..." not in result.output.replace("[ARGS]...", "")


def test_every_option_of_forward_has_a_heading() -> None:
    named = [name for names in GROUPS.values() for name in names]
    assert sorted(named) == sorted(options())
    text = run("forward", "--help").output
    for heading in GROUPS:
        assert f"\n{heading}:\n" in text


@pytest.mark.parametrize("flag", ["--version", "-V", "--help", "-h"])
def test_no_command_is_imported_for(flag: str) -> None:
    code = (
        "import sys; from v6fwd.cli import main; main([sys.argv[1]], standalone_mode=False);"
        "print(sorted(name for name in sys.modules if name.startswith('v6fwd')))"
    )
    command = [sys.executable, "-c", code, flag]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[-1] == (
        "['v6fwd', 'v6fwd.cli', 'v6fwd.cli.commands', 'v6fwd.cli.lazy']"
    )


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_names_every_option_with_its_default(flag: str) -> None:
    result = run("forward", flag)
    assert result.exit_code == 0
    text = " ".join(result.output.split())
    for name, option in options().items():
        assert option.opts[0] in text
        assert option.help
        if name in LIMITS:
            assert f"[default: {option.default}" in text


@pytest.mark.parametrize("name", ["demo", "forward"])
def test_every_command_tells_its_exit_status(name: str) -> None:
    assert "Exit status: 0" in run(name, "--help").output


def test_help_names_every_value() -> None:
    text = run("forward", "--help").output
    for value in (*ClientIP, *LogFormat):
        assert value in text


@pytest.mark.parametrize("flag", ["-V", "--version"])
def test_version(flag: str) -> None:
    result = run(flag)
    assert (result.exit_code, result.output) == (0, f"v6fwd, version {v6fwd.__version__}\n")


# ---- what is not taken -----------------------------------------------------------------------

REFUSED = [
    pytest.param(("[::1]:x", "h:1"), "'x' is not a port", id="port"),
    pytest.param(("[::1]:65536", "h:1"), "'65536' is not a port", id="port too large"),
    pytest.param(("0", "h:1"), "'0' is not a port", id="port zero"),
    pytest.param(("[::g]:1", "h:1"), "'::g' is not an IPv6 address", id="address"),
    pytest.param(("::1:80", "h:1"), "an IPv6 address needs brackets", id="no brackets"),
    pytest.param(("eth0:80", "h:1"), "'eth0' is not an IP address", id="name to listen on"),
    pytest.param(("1", "300.1.1.1:1"), "'300.1.1.1' is neither", id="target address"),
    pytest.param(("1", "h"), "'h' is not an address and port", id="target without port"),
    pytest.param(("1", "unix:a"), "'unix:a': the path must start with /", id="unix path"),
    pytest.param(("1", "unix:/\udcff" + "x" * 200), "path", id="unix path, not UTF-8"),
    pytest.param(("53/sctp", "h:1"), "protocol 'sctp' cannot be forwarded", id="protocol"),
    pytest.param(
        ("53/tcp+udp", "h:1", "--client-ip", "proxy-v1"),
        "[::]:53/udp: proxy-v1 is for TCP alone",
        id="proxy-v1 for UDP",
    ),
    pytest.param(("53/udp", "h:1", "--udp-proxy", "last"), "'last'", id="which datagrams"),
    pytest.param(("5-4", "h:1"), "the range 5-4 runs backwards; write 4-5", id="range"),
    pytest.param(("1-3", "h:1-2"), "'1-3' has 3 ports and 'h:1-2' has 2", id="uneven ranges"),
    pytest.param(("1", "h:1", "2"), "LISTEN '2' has no TARGET behind it", id="odd words"),
    pytest.param(("1",), "LISTEN '1' has no TARGET behind it", id="one word"),
    pytest.param((), "Missing argument", id="no words"),
    pytest.param(("1", "a:1", "[::]:1", "b:2"), "[::]:1 is given twice, for a:1", id="twins"),
    pytest.param(("1-3", "a:1-3", "2", "b:2"), "[::]:2 is given twice, for a:2", id="twin range"),
    pytest.param((*PAIR, "--client-ip", "proxy"), "'proxy' is not one of", id="mode"),
    pytest.param((*PAIR, "--client-ip", "PROXY-V2"), "'PROXY-V2' is not one of", id="mode case"),
    pytest.param((*PAIR, "--accept-proxy", "10.0.0.1/8"), "write 10.0.0.0/8", id="host bits"),
    pytest.param((*PAIR, "--accept-proxy", "lan"), "'lan' is not a network", id="cidr"),
    pytest.param((*PAIR, "--accept-proxy", ""), "'' is not a network", id="empty cidr"),
    pytest.param((*PAIR, "--accept-proxy", "::1,"), "'' is not a network", id="comma"),
    pytest.param((*PAIR, "--connect-timeout", "0"), "'0' is not a time", id="no time at all"),
    pytest.param((*PAIR, "--header-timeout", "0"), "'0' is not a time", id="header time"),
    pytest.param((*PAIR, "--idle-timeout", "-1"), "'-1' is not a time", id="negative time"),
    pytest.param((*PAIR, "--drain-timeout", "5x"), "'5x' is not a time", id="no unit"),
    pytest.param((*PAIR, "--drain-timeout", "nan"), "'nan' is not a time", id="not a number"),
    pytest.param((*PAIR, "--drain-timeout", "inf"), "'inf' is not a time", id="endless"),
    pytest.param((*PAIR, "--drain-timeout", "1e9"), "'1e9' is not a time", id="decades"),
    pytest.param((*PAIR, "--drain-timeout", ""), "'' is not a time", id="empty time"),
    pytest.param((*PAIR, "--max-flows", "-1"), "'-1' is not a whole number", id="negative flows"),
    pytest.param(
        (*PAIR, "--max-flows", "many"),
        "'many' is not a whole number from 0 to 1000000000",
        id="flows",
    ),
    pytest.param((*PAIR, "--deny", "lan"), "'lan' is not a network", id="denied"),
    pytest.param((*PAIR, "--client-flows", "-1"), "'-1' is not a whole", id="client's flows"),
    pytest.param((*PAIR, "--client-rate", "1/s"), "'1/s' is not a rate", id="client's rate"),
    pytest.param((*PAIR, "--client-prefix", "0"), "'0' is not a whole number", id="prefix"),
    pytest.param((*PAIR, "--log-format", "xml"), "'xml' is not one of", id="log format"),
    pytest.param((*PAIR, "--frobnicate"), "No such option '--frobnicate'", id="option"),
    pytest.param((*PAIR, "--client-ip"), "Option '--client-ip' requires an argument", id="value"),
]


@pytest.mark.parametrize(("words", "why"), REFUSED)
def test_refused_in_one_line(served: Served, words: tuple[str, ...], why: str) -> None:
    result = run("forward", *words)
    assert result.exit_code == 2, result.output or repr(result.exception)
    assert served.forwards == []
    assert result.stdout == ""
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert why in line
    assert result.stderr.endswith(f"{line}\n")  # the last line, and all of it


def test_an_unknown_command() -> None:
    result = run("froward")
    assert result.exit_code == 2
    assert "No such command 'froward'" in result.stderr


# ---- a process of its own --------------------------------------------------------------------


def forward_process(*words: str | bytes) -> subprocess.CompletedProcess[str]:
    """`v6fwd forward WORDS`, which must end by itself."""
    command = [sys.executable, "-m", "v6fwd", "forward", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def taken_port() -> Iterator[int]:
    """A port of [::1] that somebody else listens on."""
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as server:
        yield int(server.getsockname()[1])


def test_a_port_in_use(taken_port: int) -> None:
    done = forward_process(f"[::1]:{taken_port}", "127.0.0.1:9")
    address = f"[::1]:{taken_port}"
    holder = f"{Path('/proc/self/comm').read_text().strip()}, pid {os.getpid()}"
    assert done.stderr == f"cannot listen on {address}: address already in use ({holder})\n"
    assert (done.returncode, done.stdout) == (1, "")


@pytest.mark.parametrize(
    ("listen", "target", "why"),
    [
        (
            "[2001:db8::1]:8080",  # RFC 3849: nobody's
            "127.0.0.1:9",
            "cannot listen on [2001:db8::1]:8080: cannot assign requested address",
        ),
        (
            "[::1]:8080",
            "no-such-host.invalid:80",  # RFC 6761, 6.4
            "cannot resolve target no-such-host.invalid:80: ",
        ),
        ("[fe80::1%nowhere0]:8080", "127.0.0.1:9", "cannot listen on [fe80::1%nowhere0]:8080: "),
    ],
    ids=["another host's address", "an unknown name", "an unknown interface"],
)
def test_what_it_cannot_open_is_one_line(listen: str, target: str, why: str) -> None:
    done = forward_process(listen, target)
    (line,) = done.stderr.splitlines()
    assert line.startswith(why)
    assert "Errno" not in line
    assert (done.returncode, done.stdout) == (1, "")


@pytest.mark.parametrize(
    "words",
    [
        (b"[fe80::1%\xff]:80", b"127.0.0.1:9"),
        (b"[::1]:8080", b"[fe80::1%\xff]:80"),
        (b"[::1]:8080", b"h\xff:80"),
        (b"\xff", b"127.0.0.1:9"),
        (b"[::1]:8080", b"127.0.0.1:9", b"--accept-proxy", b"\xff"),
    ],
    ids=["listen zone", "target zone", "name", "port", "cidr"],
)
def test_bytes_that_are_no_text(words: tuple[bytes, ...]) -> None:
    """A terminal of another encoding: refused as any other mistake is."""
    done = forward_process(*words)
    assert "Traceback" not in done.stderr
    assert done.stderr.count("Error: ") == 1
    assert done.returncode == 2


# ---- transparent -----------------------------------------------------------------------------


def test_transparent_options(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[Any] = []
    module = importlib.import_module("v6fwd.cli.forward")
    monkeypatch.setattr(module, "serve_here", lambda forwards, *_, **__: taken.extend(forwards))
    words = ("--target-netns", "name", "--transparent-fallback", "none", "--pseudo-ipv4", "128",
             "--pseudo-store", "/a/file")  # fmt: skip
    assert run("forward", *PAIR, "--client-ip", "transparent", *words).exit_code == 0
    assert run("forward", *PAIR, "--client-ip", "transparent").exit_code == 0
    fallback = TransparentFallback.NONE
    assert taken[0].transparent == Transparent("name", fallback, 128, "/a/file")
    assert taken[1].transparent == Transparent()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((*PAIR, "--target-netns", "x"), "target-netns goes with transparent, not with none"),
        (
            ("80", "unix:/a", "--client-ip", "transparent"),
            "unix:/a: a unix socket shows no client address; transparent needs IP",
        ),
        (
            ("80", "host:80", "--client-ip", "transparent", "--target-netns", "x"),
            "host:80: with target-netns write the container's own address",
        ),
        ((*PAIR, "--pseudo-ipv4", "56"), "'56' is not one of '64', '128'"),
        ((*PAIR, "--transparent-fallback", "v1"), "'v1' is not one of 'refuse'"),
    ],
)
def test_transparent_misfits(words: tuple[str, ...], message: str) -> None:
    result = run("forward", *words)
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())


def test_check_refuses_a_forward_that_leads_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        importlib.import_module("v6fwd.cli.daemon"),
        "is_local_address",
        lambda packed: packed != b"",
    )
    path = tmp_path / "v6fwd.toml"
    path.write_text('[[forward]]\nlisten = "8080"\ntarget = "192.0.2.1:8080"\n')
    told = CliRunner().invoke(main, ["serve", "--check", "-c", str(path)])
    assert told.exit_code == 2
    assert "leads back to [::]:8080 itself" in told.stderr
