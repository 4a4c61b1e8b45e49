"""v6fwd.toml: what it may say, what comes of it, and a line for every mistake in it."""

from __future__ import annotations

import re
import textwrap
import tomllib
from collections.abc import Sequence
from dataclasses import fields
from datetime import date
from ipaddress import ip_network
from pathlib import Path

import click
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.paths import ROOT
from v6fwd.cli.forward import forward
from v6fwd.config import Config, ConfigError, Docker, Metrics, load
from v6fwd.config.keys import (
    DEFAULTS,
    DOCKER_RULE,
    FLOW_LIMITS,
    GUARD,
    PAIR,
    PROCESS_LIMITS,
    TABLES,
    TOP,
)
from v6fwd.config.rules import Rule
from v6fwd.log import LogFormat
from v6fwd.model import (
    ClientIP,
    Endpoint,
    Forward,
    Guard,
    Limits,
    Protocol,
    Transparent,
    TransparentFallback,
    UdpProxy,
    parse_networks,
)

EXAMPLE = ROOT / "v6fwd.example.toml"


class Folder:
    """Configuration files of a test."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._path = path
        monkeypatch.chdir(path)

    def write(self, name: str, text: str) -> None:
        """Put a file there."""
        path = self._path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(textwrap.dedent(text))

    def load(self, text: str) -> Config:
        """What v6fwd.toml says."""
        self.write("v6fwd.toml", text)
        return load(Path("v6fwd.toml"))

    def mistakes(self, text: str) -> list[str]:
        """What is told of a v6fwd.toml that cannot be used."""
        with pytest.raises(ConfigError) as caught:
            self.load(text)
        assert str(caught.value).split("\n") == list(caught.value.mistakes)
        return list(caught.value.mistakes)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    return Folder(tmp_path, monkeypatch)


PAIR_TEXT = 'listen = "[::]:8080"\ntarget = "172.17.0.2:80"\n'
ONE = f"[[forward]]\n{PAIR_TEXT}"


def test_an_empty_file_is_all_defaults(folder: Folder) -> None:
    assert folder.load("") == Config()
    assert Config().workers >= 1


def test_one_forward(folder: Folder) -> None:
    (forward,) = folder.load(ONE).forwards
    assert forward == Forward(Endpoint("::", 8080), Endpoint("172.17.0.2", 80))


def test_everything_that_a_forward_may_say(folder: Folder) -> None:
    config = folder.load(
        ONE
        + """
        client-ip = "proxy-v2"
        accept-proxy = "10.0.0.0/8, ::1"
        udp-proxy = "first"
        connect-timeout = 1
        idle-timeout = 0.5
        header-timeout = "7"
        udp-timeout = 9
        allow = ["2001:db8::/32", "192.0.2.0/24,192.0.2.7"]
        deny = "::ffff:192.0.2.9"
        client-flows = 3
        client-rate = 0.5
        client-prefix = 56
        """
    )
    assert config.forwards == (
        Forward(
            Endpoint("::", 8080),
            Endpoint("172.17.0.2", 80),
            ClientIP.PROXY_V2,
            parse_networks("10.0.0.0/8,::1"),
            UdpProxy.FIRST,
            limits=Limits(connect_timeout=1, idle_timeout=0.5, header_timeout=7, udp_timeout=9),
            guard=Guard(
                parse_networks("2001:db8::/32,192.0.2.0/24,192.0.2.7"),
                parse_networks("192.0.2.9"),
                3,
                0.5,
                56,
            ),
        ),
    )


def test_everything_that_a_transparent_forward_may_say(folder: Folder) -> None:
    (forward,) = folder.load(
        ONE
        + """
        client-ip = "transparent"
        target-netns = "/run/docker/netns/1"
        transparent-fallback = "none"
        pseudo-ipv4 = 128
        pseudo-store = "/a/file"
        """
    ).forwards
    fallback = TransparentFallback.NONE
    assert forward.client_ip is ClientIP.TRANSPARENT
    assert forward.transparent == Transparent("/run/docker/netns/1", fallback, 128, "/a/file")


def test_a_process_id_may_be_a_number(folder: Folder) -> None:
    (forward,) = folder.load(f'{ONE}client-ip = "transparent"\ntarget-netns = 17\n').forwards
    assert forward.transparent == Transparent("17")


def test_everything_beside_the_forwards(folder: Folder) -> None:
    config = folder.load(
        """
        workers = 3
        user = "nobody"
        log-format = "json"
        log-flows = true
        drain-timeout = 0
        interrupt-timeout = 2
        max-flows = 100
        [control]
        socket = "/run/x.sock"
        group = "daemon"
        [metrics]
        listen = "[::1]:9464"
        status-page = true
        status-host = "v6fwd.example.net"
        [docker]
        host = "unix:///run/other.sock"
        """
    )
    assert (config.workers, config.user) == (3, "nobody")
    assert (config.log_format, config.log_flows) == (LogFormat.JSON, True)
    assert config.limits == Limits(drain_timeout=0, interrupt_timeout=2, max_flows=100)
    assert (config.control.socket, config.control.group) == ("/run/x.sock", "daemon")
    assert config.metrics == Metrics(Endpoint("::1", 9464), True, "v6fwd.example.net")
    assert config.docker.host == "unix:///run/other.sock"


@pytest.mark.parametrize(
    "keys",
    [
        'listen = "unix:/run/v6fwd/status.sock"\nadmin = true',
        'listen = "[::1]:9464"\ntoken-file = "/etc/token"\nadmin = true',
        'listen = "[2001:db8::1]:9464"\ntoken-file = "/etc/token"',
        'listen = "127.0.0.2:9464"',
    ],
)
def test_a_status_page_that_not_everybody_reaches(folder: Folder, keys: str) -> None:
    config = folder.load(f"[metrics]\nstatus-page = true\n{keys}\n")
    assert config.metrics.status_page


def test_control_socket_and_metrics_can_be_off(folder: Folder) -> None:
    config = folder.load('[control]\nsocket = ""\n[metrics]\nlisten = ""\n')
    assert config.control.socket == ""
    assert config.metrics == Metrics(None, False, "")


def test_ranges_and_protocols(folder: Folder) -> None:
    config = folder.load('[[forward]]\nlisten = "53-54/tcp+udp"\ntarget = "h:1053-1054"\n')
    assert [str(forward) for forward in config.forwards] == [
        "[::]:53 -> h:1053",
        "[::]:54 -> h:1054",
        "[::]:53/udp -> h:1053/udp",
        "[::]:54/udp -> h:1054/udp",
    ]


def test_a_port_without_quotes(folder: Folder) -> None:
    (forward,) = folder.load('[[forward]]\nlisten = 80\ntarget = "h:1"\n').forwards
    assert forward.listen == Endpoint("::", 80)


def test_a_forward_overrides_the_defaults(folder: Folder) -> None:
    config = folder.load(
        """
        drain-timeout = 3
        [defaults]
        client-ip = "proxy-v1"
        connect-timeout = 1
        client-flows = 7
        [[forward]]
        listen = "1"
        target = "h:1"
        [[forward]]
        listen = "2"
        target = "h:2"
        client-ip = "none"
        connect-timeout = 2
        client-flows = 0
        """
    )
    first, second = config.forwards
    assert (first.client_ip, second.client_ip) == (ClientIP.PROXY_V1, ClientIP.NONE)
    assert first.limits == config.limits == Limits(connect_timeout=1, drain_timeout=3)
    assert second.limits == Limits(connect_timeout=2, drain_timeout=3)
    assert (first.guard.client_flows, second.guard.client_flows) == (7, 0)


def test_many_forwards_share_what_is_equal(folder: Folder) -> None:
    tables = "".join(f'[[forward]]\nlisten = {port}\ntarget = "h:1"\n' for port in range(1, 500))
    forwards = folder.load(f"[defaults]\nconnect-timeout = 1.5\n{tables}").forwards
    assert len({id(forward.limits) for forward in forwards}) == 1
    assert len({id(forward.guard) for forward in forwards}) == 1


# ---- further files ---------------------------------------------------------------------------


def test_included_files(folder: Folder) -> None:
    folder.write("v6fwd.d/b.toml", '[[forward]]\nlisten = 3\ntarget = "b:1"\n')
    folder.write(
        "v6fwd.d/a.toml",
        '[defaults]\nclient-ip = "none"\n[[forward]]\nlisten = 2\ntarget = "a:1"\n',
    )
    folder.write("v6fwd.d/c.other", "no TOML")
    config = folder.load(
        'include = "v6fwd.d/*.toml"\n[defaults]\nclient-ip = "proxy-v2"\nudp-timeout = 5\n' + ONE
    )
    assert [str(forward.target) for forward in config.forwards] == ["172.17.0.2:80", "a:1", "b:1"]
    assert [forward.client_ip.value for forward in config.forwards] == [
        "proxy-v2",
        "none",
        "proxy-v2",
    ]
    assert {forward.limits.udp_timeout for forward in config.forwards} == {5}


def test_a_file_that_two_patterns_match_is_read_once(folder: Folder) -> None:
    folder.write("a.toml", '[[forward]]\nlisten = 2\ntarget = "a:1"\n')
    config = folder.load(f'include = ["a.toml", "*.toml"]\n{ONE}')
    assert len(config.forwards) == 2


def test_an_empty_folder_is_no_mistake(folder: Folder) -> None:
    assert folder.load('include = "v6fwd.d/*.toml"').forwards == ()


def test_included_files_are_looked_for_beside_the_main_one(folder: Folder, tmp_path: Path) -> None:
    folder.write("sub/v6fwd.toml", 'include = "more.toml"')
    folder.write("sub/more.toml", ONE)
    assert len(load(tmp_path / "sub" / "v6fwd.toml").forwards) == 1


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no\.toml: cannot be read: no such file or directory"):
        load(tmp_path / "no.toml")


def test_mistakes_name_their_own_file(folder: Folder) -> None:
    folder.write("a.toml", 'workers = 1\ncontrol = 3\n[[forward]]\nlisten = "x"\ntarget = "h:1"\n')
    folder.write("b.toml", "x = = 1\n")
    mistakes = folder.mistakes('include = ["a.toml", "b.toml", "c.toml"]\nworkers = 0\n')
    starts = [
        "v6fwd.toml: workers = 0: not a whole number from 1 to 256",
        'v6fwd.toml: include = "c.toml": there is no such file',
        "a.toml: workers = 1: unknown key in an included file; it belongs at the top of the main",
        "a.toml: control = 3: unknown key in an included file; [control] belongs into the main",
        "a.toml: [[forward]] 1 (x): listen = \"x\": 'x' is not an address and port: write [::]:80",
        "b.toml: not TOML: Invalid value (at line 1, column 5)",
    ]
    assert [line[: len(start)] for line, start in zip(mistakes, starts, strict=True)] == starts


def test_twins_name_both_places(folder: Folder) -> None:
    folder.write("a.toml", '[[forward]]\nlisten = "8079-8081"\ntarget = "h:1-3"\n')
    first = "[::]:8080 is given already in v6fwd.toml: [[forward]] 1 ([::]:8080), line 3"
    assert folder.mistakes(f'include = "a.toml"\n{ONE}{ONE}') == [
        f'v6fwd.toml: [[forward]] 2 ([::]:8080): listen = "[::]:8080": {first} (line 6)',
        f'a.toml: [[forward]] 1 (8079-8081): listen = "8079-8081": {first} (line 2)',
    ]


def test_lines_of_mistakes(folder: Folder) -> None:
    """Of keys, of tables that lack one, and of what looks like a table in a text."""
    text = '''# one
        workers = 0

        [defaults]
        "client-ip" = "x"
        [docker]
        host = """tcp:///a
        [defaults]
        workers = 1"""
        [[docker.rule]]
        client-ip = "none"
        [[ docker . rule ]]
        host-port = 0
        [[forward]]
        listen = "[::]:80"
        target = "a:1"
        allow = [
            "x",
        ]
        [[forward]]
        listen = "81"
    '''
    lines = [re.search(r" \(line ([0-9]+)\)$", told) for told in folder.mistakes(text)]
    assert sorted(int(line[1]) if line else 0 for line in lines) == [2, 5, 7, 12, 13, 17, 20]


def test_a_table_that_is_not_written_as_one_has_no_line(folder: Folder) -> None:
    (line,) = folder.mistakes('forward = [{ listen = "[::]:80", target = "x" }]')
    assert line.endswith("or unix:/run/app.sock")


# ---- mistakes --------------------------------------------------------------------------------

MISTAKES = [
    ("x", "v6fwd.toml: not TOML: "),
    ('[[forward]]\nlisten = "1"\n', "v6fwd.toml: [[forward]] 1 (1): target is missing; write targ"),
    ("[[forward]]\ntarget = 'h:1'\n", "v6fwd.toml: [[forward]] 1: listen is missing; write listen"),
    (f"[forward]\n{PAIR_TEXT}", "v6fwd.toml: forward: not a list of tables; write [[forward]] ab"),
    ("forward = [1]", "v6fwd.toml: forward: not a list of tables; write [[forward]] above each"),
    ("defaults = 1", "v6fwd.toml: defaults = 1: not a table; write [defaults] above its keys"),
    ("workers = 1.5", "v6fwd.toml: workers = 1.5: not a whole number from 1 to 256"),
    ("workers = 257", "v6fwd.toml: workers = 257: not a whole number from 1 to 256"),
    ("workers = true", "v6fwd.toml: workers = true: not a number"),
    ("worker = 2", "v6fwd.toml: worker = 2: unknown key in the main file; did you mean workers?"),
    ("forwards = []", "unknown key in the main file; did you mean forward?"),
    ('client-ip = "none"', "unknown key in the main file; it belongs in [defaults] or a [[forwa"),
    (
        "zzz = 1",
        "unknown key in the main file; there are workers, engine, user, include,",
    ),
    ('"a b\\n" = 1', 'v6fwd.toml: "a b\\n" = 1: unknown key'),
    ('user = "no-such-user"', 'user = "no-such-user": there is no such user on this machine'),
    ('log-format = "xml"', 'log-format = "xml": not one of text, json'),
    ('log-flows = "yes"', 'log-flows = "yes": write true or false, without quotes'),
    ("include = 1", "include = 1: not a text; put it into quotes"),
    ('drain-timeout = "5x"', "drain-timeout = \"5x\": '5x' is not a time; write 0 to 31622400"),
    ("drain-timeout = nan", "drain-timeout = NaN: 'nan' is not a time"),
    ("max-flows = -1", "max-flows = -1: not a whole number from 0 to 1000000000"),
    ("[defaults]\nconnect-timeout = 0", "[defaults]: connect-timeout = 0: '0' is not a time; wri"),
    ("[defaults]\nlisten = 1", "unknown key in [defaults]; it belongs in a [[forward]]"),
    ("[defaults]\nclient-rate = -1", "client-rate = -1: '-1' is not a rate; write 0.001 to 1000"),
    ("[defaults]\nclient-prefix = 129", "client-prefix = 129: not a whole number from 1 to 128"),
    ('[defaults]\nclient-ip = "proxy_v2"', "forwarded, transparent; did you mean proxy-v2?"),
    ("[defaults]\npseudo-ipv4 = 56", "[defaults]: pseudo-ipv4 = 56: not one of 64, 128"),
    ("[defaults]\npseudo-store = ''", 'pseudo-store = "": not a path'),
    ("[defaults]\ntarget-netns = 0", "target-netns = 0: not a whole number from 1 to"),
    ("[defaults]\ntarget-netns = true", "target-netns = true: not a text; put it into quotes"),
    ("[defaults]\ntransparent-fallback = 'v1'", "not one of refuse, proxy-v2, none"),
    (f"{ONE}target-netns = 'x'", "[::]:8080: target-netns goes with transparent, not with none"),
    ("[defaults]\nclient-ip = 2", "client-ip = 2: not a text; put it into quotes"),
    ("[defaults]\nclient_ip = 'none'", "unknown key in [defaults]; did you mean client-ip?"),
    ("[defaults]\nallow = ['::1', 3]", 'allow = ["::1", 3]: not a text; put it into quotes'),
    ("[defaults]\ndeny = '10.0.0.1/8'", "'10.0.0.1/8' is not a network: it has host bits set; w"),
    (
        "[control]\nsocket = 'run/x'",
        "[control]: socket = \"run/x\": 'unix:run/x': the path must st",
    ),
    ("[control]\ngroup = 'no-such-group'", "there is no such group on this machine"),
    ("[control]\nworkers = 2", "unknown key in [control]; it belongs at the top of the main fil"),
    ("[control]\nx = 2", "unknown key in [control]; there are socket, group"),
    ("[metrics]\nlisten = '9-10'", "metrics have one TCP port; write one such as [::1]:9464"),
    ("[metrics]\nlisten = '9/udp'", "metrics have one TCP port; write one such as [::1]:9464"),
    ("[metrics]\nadmin = true", "needs status-page = true"),
    (
        "[metrics]\nlisten = '[::1]:9464'\nstatus-page = true\nadmin = true",
        "any user of this host can connect to [::1]:9464; set token-file, or listen",
    ),
    (
        "[metrics]\nlisten = '[2001:db8::1]:9464'\nstatus-page = true",
        "whoever reaches [2001:db8::1]:9464 could see all clients; set token-file, or listen",
    ),
    (
        "[metrics]\nlisten = '9464'\nstatus-page = true",
        "whoever reaches [::]:9464 could see all clients; set token-file, or listen",
    ),
    ("[metrics]\nlisten = 'unix:status.sock'", "the path must start with /"),
    ("[metrics]\nstatus-page = 'yes'", "write true or false, without quotes"),
    ("[metrics]\nstatus-host = 'h:80'", "not a host name; write one such as v6fwd.example.net"),
    ("[metrics]\nstatus-host = 'h/'", "not a host name; write one such as v6fwd.example.net"),
    ("[docker]\nhost = 'tcp://h:1'", "not a socket of the Engine; write one such as unix:///run"),
    (
        '[[forward]]\nlisten = "1-3"\ntarget = "h:1-2"',
        "v6fwd.toml: [[forward]] 1 (1-3): listen and target: '1-3' has 3 ports and 'h:1-2' has 2",
    ),
    (
        '[[forward]]\nlisten = "53/tcp+udp"\ntarget = "h:53"\nclient-ip = "proxy-v1"',
        '[[forward]] 1 (53/tcp+udp): client-ip = "proxy-v1": [::]:53/udp: proxy-v1 is for TCP al',
    ),
    ('[[forward]]\nlisten = "1/udp"\ntarget = "unix:/a"', "a unix socket cannot be the target of"),
    (f"workers = 0x{'f' * 5000}", "v6fwd.toml: workers = ...: not a number"),
    (f"workers = {'9' * 5000}", "v6fwd.toml: not TOML: "),
    (f"{'a.' * 3000}a = 1", "v6fwd.toml: a = ...: unknown key in the main file"),
    (f"a = {'[' * 3000}", "v6fwd.toml: not TOML: "),
    (f"a = '{'x' * 100}'", f'a = "{"x" * 59}...: unknown key'),
]


@pytest.mark.parametrize(("text", "mistake"), MISTAKES, ids=[text[:40] for text, _ in MISTAKES])
def test_a_mistake(folder: Folder, text: str, mistake: str) -> None:
    (line,) = folder.mistakes(text)
    assert mistake in line
    assert line.startswith("v6fwd.toml: ")


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "v6fwd.toml"
    path.write_bytes(b"x = '\xff'")
    with pytest.raises(ConfigError, match=r"v6fwd\.toml: not UTF-8: byte 6; TOML must be"):
        load(path)


def test_a_folder_in_place_of_a_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: is a directory"):
        load(tmp_path)


def test_forwards_that_lead_back_to_themselves(folder: Folder) -> None:
    first = '[[forward]]\nlisten = "[::]:80-82"\ntarget = "127.0.0.1:81-83"\n'
    assert folder.load(first)
    folder.write("last.toml", '[[forward]]\nlisten = "[::]:83"\ntarget = "localhost:80"\n')
    assert folder.mistakes(f'include = "last.toml"\n{first}') == [
        (
            'v6fwd.toml: [[forward]] 1 ([::]:80-82): target = "127.0.0.1:83":'
            " it leads back to [::]:82 itself (line 4)"
        ),
        (
            'last.toml: [[forward]] 1 ([::]:83): target = "localhost:80":'
            " it leads back to [::]:83 itself (line 3)"
        ),
    ]


def test_this_hosts_own_addresses_lead_back(folder: Folder) -> None:
    folder.write("v6fwd.toml", '[[forward]]\nlisten = "80"\ntarget = "192.0.2.1:80"\n')
    assert load(Path("v6fwd.toml"))
    with pytest.raises(ConfigError, match="leads back"):
        load(Path("v6fwd.toml"), is_local=lambda packed: packed == bytes((192, 0, 2, 1)))


def test_all_mistakes_at_once(folder: Folder) -> None:
    mistakes = folder.mistakes(
        "workers = 0\n[defaults]\nclient-flows = -1\n[control]\nx = 1\n"
        "[[forward]]\nlisten = 1\ntarget = 2\nallow = 3\n[[forward]]\n"
    )
    assert len(mistakes) == 7


_SCALARS = st.one_of(
    st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.just(date(2000, 1, 1))
)
_VALUES = _SCALARS | st.lists(_SCALARS, max_size=3) | st.just({"a": {"b": 1}})
_KEYS = st.sampled_from(sorted({key for table in TABLES.values() for key in table})) | st.text()
_TABLE = st.dictionaries(_KEYS, _VALUES, max_size=5)
_NAMES = st.sampled_from(["forward", "defaults", "control", "metrics", "docker", "workers", "x"])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(document=st.dictionaries(_NAMES, _TABLE | st.lists(_TABLE, max_size=3) | _VALUES))
def test_any_configuration_is_accepted_or_refused_with_a_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, document: dict[str, object]
) -> None:
    path = tmp_path / "v6fwd.toml"
    path.touch()
    monkeypatch.setattr(tomllib, "loads", lambda _text: dict(document))
    mistakes: Sequence[str] = ()
    try:
        load(path)
    except ConfigError as error:
        mistakes = error.mistakes or ["no word about it"]
    assert all(line.startswith(f"{path}: ") and "\n" not in line for line in mistakes)


# ---- keys and options ------------------------------------------------------------------------


def test_every_option_has_a_key_and_every_key_its_option() -> None:
    options = {param.name for param in forward.params if isinstance(param, click.Option)}
    keys = {key.replace("-", "_") for key in (*TOP, *DEFAULTS)}
    assert keys - options == {"workers", "user", "include"}  # what one process in front needs not
    assert options - keys == set()
    assert set(PAIR) == {"listen", "target"}  # the words LISTEN and TARGET


def test_every_limit_and_guard_has_a_key() -> None:
    limits = {field.name.replace("_", "-") for field in fields(Limits)}
    assert limits == PROCESS_LIMITS.keys() | FLOW_LIMITS.keys()
    assert {field.name.replace("_", "-") for field in fields(Guard)} == GUARD.keys()


# ---- the example -----------------------------------------------------------------------------


def with_all_keys(text: str) -> str:
    """The example with its commented-out keys put in force."""
    return re.sub(r"^#(?=[a-z-]+ = )", "", text, flags=re.MULTILINE)


def test_the_example_says_what_are_the_defaults(folder: Folder) -> None:
    config = folder.load(EXAMPLE.read_text())
    docker = Docker(rules=config.docker.rules)
    plain = Config(forwards=config.forwards, workers=config.workers, docker=docker)
    assert config == plain
    assert config.forwards[-1].limits == Limits()
    assert config.forwards[-1].guard == Guard()


def test_the_example_holds_with_every_key_in_force(folder: Folder) -> None:
    config = folder.load(with_all_keys(EXAMPLE.read_text()))
    assert config.user == "nobody"
    assert len(config.forwards) == 15


def test_the_example_knows_every_key() -> None:
    document = tomllib.loads(with_all_keys(EXAMPLE.read_text()))
    told = {
        "the main file": {key for key, value in document.items() if not isinstance(value, dict)},
        **{
            f"[{name}]": set(document[name])
            for name in ("defaults", "control", "metrics", "docker")
        },
    }
    for table, keys in told.items():
        assert keys - {"forward", "rule"} == TABLES[table].keys()
    assert {"listen", "target"} <= {key for table in document["forward"] for key in table}
    assert {key for table in document["docker"]["rule"] for key in table} <= DOCKER_RULE.keys()


def test_rules_for_docker(folder: Folder) -> None:
    head = '[docker]\nhost = "unix:///run/other.sock"\n'
    rules = (
        '[[docker.rule]]\nhost-port = "53/udp"\nclient-ip = "proxy-v2"\n'
        '[[docker.rule]]\nnetwork = "front"\nimage = "nginx:*"\nclient-ip = "x-forwarded-for"\n'
    )
    assert folder.load(head + rules).docker == Docker(
        "unix:///run/other.sock",
        (
            Rule(ClientIP.PROXY_V2, range(53, 54), Protocol.UDP),
            Rule(ClientIP.X_FORWARDED_FOR, network="front", image="nginx:*"),
        ),
    )


def test_who_may_come_for_docker(folder: Folder) -> None:
    """[defaults] goes for published ports, too; a rule has its own."""
    docker = folder.load(
        '[defaults]\ndeny = "192.0.2.7"\nclient-flows = 3\n'
        '[[docker.rule]]\nclient-ip = "none"\nallow = "2001:db8::/32"\nclient-rate = 2\n'
    ).docker
    assert docker.guard == Guard(deny=(ip_network("192.0.2.7"),), client_flows=3)
    [rule] = docker.rules
    assert rule.guard == (("allow", (ip_network("2001:db8::/32"),)), ("client_rate", 2.0))
    with pytest.raises(ConfigError, match=r"\[\[docker.rule\]\] 1: allow = \"x\""):
        folder.load('[[docker.rule]]\nclient-ip = "none"\nallow = "x"\n')


def test_transparent_for_docker(folder: Folder) -> None:
    plain = folder.load("").docker.transparent
    assert plain == Transparent(fallback=TransparentFallback.NONE)
    keys = 'transparent-fallback = "refuse"\npseudo-ipv4 = 128\npseudo-store = "/tmp/store"\n'
    said = folder.load(f"[docker]\n{keys}").docker.transparent
    assert said == Transparent("", TransparentFallback.REFUSE, 128, "/tmp/store")
    with pytest.raises(ConfigError, match=r"\[docker\]: target-netns"):
        folder.load('[docker]\ntarget-netns = "web"\n')
    assert folder.load("").docker.transparent_address
    assert not folder.load("[docker]\ntransparent-address = false\n").docker.transparent_address
    with pytest.raises(ConfigError, match=r"\[docker\]: transparent-address"):
        folder.load("[docker]\ntransparent-address = 'no'\n")


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        ('host-port = "80-8"\nclient-ip = "none"', "host-port"),
        ('container = "web"', "client-ip is missing"),
        ('client-ip = "proxy"', "client-ip"),
        ('client-ip = "none"\nlabel = "x"', "label"),
    ],
)
def test_wrong_rules(folder: Folder, rule: str, told: str) -> None:
    with pytest.raises(ConfigError, match=rf"\[\[docker.rule\]\] 1: {told}"):
        folder.load(f"[[docker.rule]]\n{rule}\n")


def test_the_example_is_narrow_enough_to_read() -> None:
    assert max(len(line) for line in EXAMPLE.read_text().splitlines()) <= 100
