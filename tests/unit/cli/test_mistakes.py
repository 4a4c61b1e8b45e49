"""Typical mistakes: one line each, which names what was typed and what would be right."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from v6fwd.cli import main

PAIR = ("[::1]:8080", "127.0.0.1:80")
FORWARD = '[[forward]]\nlisten = "[::]:8080"\ntarget = "172.17.0.2:80"\n'

WORDS = [
    # what is typed behind `v6fwd`, what the line names, what would be right
    ("forward localhost:8080 172.17.0.2:80", "'localhost:8080'", "[::1]:8080 or 127.0.0.1:8080"),
    ("forward :8080 172.17.0.2:80", "':8080'", "[::]:8080"),
    ("forward *:8080 172.17.0.2:80", "'*'", "[::]"),
    ("forward eth0:8080 172.17.0.2:80", "'eth0'", "[::]"),
    ("forward ::1:8080 172.17.0.2:80", "'::1:8080'", "needs brackets"),
    ("forward 99999 172.17.0.2:80", "'99999'", "1 to 65535"),
    ("forward 8080/tpc 172.17.0.2:80", "'tpc'", "tcp and udp"),
    ("forward [fe80::1]:80 172.17.0.2:80", "fe80::1", "[fe80::1%eth0]:80"),
    ("forward http://[::]:8080 172.17.0.2:80", "'http://[::]:8080'", "[::]:8080"),
    ("forward 8080", "'8080'", "TARGET"),
    ("forward 8080 172.17.0.2", "'172.17.0.2'", "172.17.0.2:80"),
    ("forward 8080 http://172.17.0.2/", "'http://172.17.0.2/'", "172.17.0.2:80"),
    ("forward 8080 https://web/", "'https://web/'", "web:443"),
    ("forward 8080 300.1.1.1:80", "'300.1.1.1'", "an IP address nor a host name"),
    ("forward 8080 2001:db8::5:80", "'2001:db8::5:80'", "needs brackets"),
    ("forward 8080 [fe80::2]:80", "fe80::2", "[fe80::2%eth0]:80"),
    ("forward 8080 unix:app.sock", "'unix:app.sock'", "unix:/run/app.sock"),
    ("forward 5000-5009 172.17.0.2:5000", "'5000-5009'", "10 ports"),
    ("forward 5009-5000 172.17.0.2:1-10", "5009-5000", "5000-5009"),
    ("forward 53/udp 172.17.0.2:53 --client-ip proxy-v1", "proxy-v1", "proxy-v2"),
    ("forward 53/udp 172.17.0.2:53 --client-ip forwarded", "forwarded", "proxy-v2"),
    ("forward 80 h:80 --client-ip proxyv2", "'proxyv2'", "did you mean proxy-v2?"),
    ("forward 80 h:80 --client-ip proxy_v2", "'proxy_v2'", "did you mean proxy-v2?"),
    ("forward 80 h:80 --client-ip xff", "'xff'", "did you mean x-forwarded-for?"),
    ("forward 80 h:80 --client-ip X-Forwarded-For", "'X-Forwarded-For'", "mean x-forwarded-for?"),
    ("forward 80 h:80 --client-ip transparant", "'transparant'", "did you mean transparent?"),
    ("forward 80 h:80 --on-opaque passs", "'passs'", "did you mean pass?"),
    ("forward 80 h:80 --log-format JSON", "'JSON'", "did you mean json?"),
    ("forward 80 h:80 --max-flows x", "'x'", "whole number from 0"),
    ("forward 80 h:80 --max-flows -1", "'-1'", "whole number from 0"),
    ("forward 80 h:80 --idle-timeout 5min", "'5min'", "5s, 2m, 1h"),
    ("forward 80 h:80 --max-head 64KB", "'64KB'", "16k to 256k"),
    ("forward 80 h:80 --allow 10.0.0.1/8", "'10.0.0.1/8'", "10.0.0.0/8"),
    ("forward 80 h:80 --deny lan", "'lan'", "10.0.0.0/8 or 2001:db8::/32"),
    ("forward 80 h:80 --allow fe80::%eth0/10", "'fe80::%eth0/10'", "zone"),
    ("forward 80 h:80 --trust-forwarded ::1", "trust-forwarded", "x-forwarded-for or forwarded"),
    ("forward 80 h:80 --client_ip none", "--client_ip", "--client-ip"),
    ("forward 80 h:80 --clientip none", "--clientip", "--client-ip"),
    ("froward 80 h:80", "'froward'", "did you mean forward?"),
    ("docker instal", "'instal'", "did you mean install?"),
    ("frobnicate", "'frobnicate'", "there are demo, forward, serve"),
    ("stats", "'stats'", "did you mean status?"),
    ("flows --sort byte", "'byte'", "did you mean bytes?"),
    ("whois 192.0.2.7", "'192.0.2.7'", "240.0.0.0/4"),
    ("probe 172.17.0.2", "'172.17.0.2'", "172.17.0.2:80"),
    ("serve -c no.toml", "no.toml", "v6fwd config example"),
]


@pytest.mark.parametrize(("typed", "named", "right"), WORDS, ids=[row[0] for row in WORDS])
def test_a_mistake_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, typed: str, named: str, right: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, typed.split(), prog_name="v6fwd")
    assert result.exit_code == 2, result.output or repr(result.exception)
    line = result.stderr.splitlines()[-1]
    assert named in line
    assert right in line
    assert "localhost" not in typed or "[::]" not in line


FILES = [
    # a configuration, what the line names, what would be right
    ("\ufeff" + FORWARD, "v6fwd.toml", "UTF-8 without"),
    ('client-ip = "none"\n' + FORWARD, "client-ip", "in [defaults] or a [[forward]] (line 1)"),
    (FORWARD + 'client_ip = "none"', "client_ip", "did you mean client-ip? (line 4)"),
    (FORWARD + 'client-ip = "proxyv2"', '"proxyv2"', "did you mean proxy-v2? (line 4)"),
    (FORWARD + 'client-ip = "xff"', '"xff"', "did you mean x-forwarded-for? (line 4)"),
    (FORWARD + 'idle-timeout = "5min"', '"5min"', "5s, 2m, 1h (line 4)"),
    (FORWARD + "keep-underscores = 1", "keep-underscores = 1", "write true or false"),
    ("workers = 0", "workers = 0", "from 1 to 256 (line 1)"),
    ('[forward]\nlisten = "80"', "forward", "write [[forward]]"),
    ('[[forward]]\nlisten = "80"', "target is missing", 'write target = "172.17.0.2:80" (line 1)'),
    (FORWARD + FORWARD, "[::]:8080 is given already", "[[forward]] 1 ([::]:8080), line 2"),
    (FORWARD.replace("[::]", "localhost"), "localhost:8080", "[::1]:8080 or 127.0.0.1:8080"),
    ('[docker]\nhost = "tcp://h"', '"tcp://h"', "unix:///run/docker.sock (line 2)"),
    ('[metrics]\nlisten = "9464/udp"', '"9464/udp"', "[::1]:9464 (line 2)"),
]


@pytest.mark.parametrize(("text", "named", "right"), FILES, ids=[row[1] for row in FILES])
def test_a_mistake_in_a_file(tmp_path: Path, text: str, named: str, right: str) -> None:
    (tmp_path / "v6fwd.toml").write_text(text)
    words = ["serve", "--check", "-c", str(tmp_path / "v6fwd.toml")]
    result = CliRunner().invoke(main, words, prog_name="v6fwd")
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"{tmp_path}/v6fwd.toml: ")
    assert named in line
    assert right in line


@pytest.mark.parametrize("count", [0, 1, 2])
def test_a_right_file_has_one_line(tmp_path: Path, count: int) -> None:
    path = tmp_path / "v6fwd.toml"
    path.write_text("".join(FORWARD.replace("8080", str(8080 + at)) for at in range(count)))
    result = CliRunner().invoke(main, ["serve", "--check", "-c", str(path)])
    forwards = "1 forward" if count == 1 else f"{count} forwards"
    assert (result.exit_code, result.output) == (0, f"{path}: no mistakes, {forwards}\n")


def test_docker_needs_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["serve", "--check", "--docker"])
    assert (result.exit_code, result.output) == (0, "there is no v6fwd.toml; --docker needs none\n")
    named = CliRunner().invoke(main, ["serve", "--check", "--docker", "-c", "v6fwd.toml"])
    assert named.exit_code == 2


def test_a_file_that_is_there_is_read_with_docker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("v6fwd.toml").write_text("workers = 0")
    assert CliRunner().invoke(main, ["serve", "--check", "--docker"]).exit_code == 2
