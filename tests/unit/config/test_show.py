"""`v6fwd config show` and `example`: what is in force, and where it comes from."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests.support.paths import ROOT
from v6fwd.cli import main
from v6fwd.config import load
from v6fwd.config.keys import DEFAULTS, TABLES
from v6fwd.config.show import _toml

EXAMPLE = (ROOT / "v6fwd.example.toml").read_text()

MAIN = """\
include = "more/*.toml"
max-flows = 7

[defaults]
client-ip = "proxy-v2"
idle-timeout = "5m"

[metrics]
listen = "[::1]:9464"

[[docker.rule]]
host-port = "53/udp"
client-ip = "none"

[[forward]]
listen = "[::]:8080"
target = "172.17.0.2:80"

[[forward]]
listen = 8081
target = "docker:web:80"
client-ip = 'x-forwarded-for'
deny = ["192.0.2.7", "2001:db8::/32"]
"""
MORE = """\
defaults.idle-timeout = 7.5

[[forward]]
listen = "[::]:8082"
target = "unix:/run/app.sock"
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    (tmp_path / "more").mkdir()
    (tmp_path / "v6fwd.toml").write_text(MAIN)
    (tmp_path / "more" / "a.toml").write_text(MORE)
    return tmp_path


def show(*words: str) -> str:
    """What the command prints."""
    result = CliRunner().invoke(main, ["config", "show", *words])
    assert result.exit_code == 0, result.output
    return result.stdout


def sources(text: str) -> list[dict[str, str]]:
    """The comment behind each key, by table in their order."""
    found: list[dict[str, str]] = [{}]
    for line in text.splitlines():
        if line.startswith("["):
            found.append({"": line})
        elif match := re.fullmatch(r"([a-z0-9-]+) = .*?  # (.*)", line):
            found[-1][match[1]] = match[2]
    return found


def test_where_each_value_comes_from(folder: Path) -> None:  # noqa: ARG001
    text = show()
    top, defaults, _, metrics, docker, rule, first, second, third = sources(text)
    assert (top["max-flows"], top["log-format"]) == ("v6fwd.toml line 2", "default")
    assert defaults["idle-timeout"] == "[defaults] of v6fwd.toml line 6"
    assert defaults["udp-timeout"] == "default"
    assert metrics["listen"] == "[metrics] of v6fwd.toml line 9"
    assert docker["transparent-fallback"] == "default"
    assert rule["host-port"] == "[[docker.rule]] 1 of v6fwd.toml line 12"
    assert first["client-ip"] == "[defaults] of v6fwd.toml line 5"
    assert second["client-ip"] == "[[forward]] 2 of v6fwd.toml line 22"
    assert second["deny"] == "[[forward]] 2 of v6fwd.toml line 23"
    assert third["idle-timeout"] == "[defaults] of more/a.toml"  # a dotted key: no line is known
    assert third["client-ip"] == "[defaults] of v6fwd.toml line 5"
    assert third["target"] == "[[forward]] 1 of more/a.toml line 5"


def test_every_key_stands_there(folder: Path) -> None:  # noqa: ARG001
    top, defaults, control, metrics, docker, _, *forwards = sources(show())
    assert top.keys() == TABLES["the main file"].keys() - {"include"}
    for table in (defaults, control, metrics, docker):
        assert table.keys() - {""} == TABLES[table[""]].keys()
    for forward in forwards:
        assert forward.keys() - {""} == DEFAULTS.keys() | {"listen", "target"}


@pytest.mark.parametrize("text", [MAIN, EXAMPLE, "", re.sub("(?m)^#(?=[a-z]+ = )", "", EXAMPLE)])
def test_read_back_it_is_the_same(folder: Path, text: str) -> None:
    (folder / "v6fwd.toml").write_text(text)
    (folder / "again.toml").write_text(show())
    again = load(Path("again.toml"))
    assert again == load(Path("v6fwd.toml"))
    assert len(again.forwards) == (3 if text == MAIN else len(again.forwards))


@pytest.mark.parametrize(
    "value",
    ["", 'a"b\\c', "tab\tnew\nline\x7f\x01é\u2028", 5, 0.5, 5.0, 1e300, True, ["a", ["b"]], []],
)
def test_values(value: Any) -> None:
    text = _toml(value)
    assert "\n" not in text
    assert tomllib.loads(f"key = {text}")["key"] == value


def test_the_engine_of_the_environment(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ARG001
    monkeypatch.setenv("DOCKER_HOST", "unix:///run/user/1000/docker.sock")
    docker = sources(text := show())[4]
    assert 'host = "unix:///run/user/1000/docker.sock"' in text
    assert docker["host"] == "DOCKER_HOST"


def test_a_path_that_would_end_the_comment(folder: Path) -> None:
    (folder / "a\nworkers = 9.toml").write_text("workers = 1\n")
    assert tomllib.loads(show("-c", "a\nworkers = 9.toml"))["workers"] == 1


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("[[forward]]\nlisten = 80\n", "v6fwd.toml: [[forward]] 1: target is missing"),
        ("workers = 0\n", "v6fwd.toml: workers = 0: "),
        ('[[forward]]\nlisten = 80\ntarget = "[::1]:80"\n', "leads back to [::]:80 itself"),
    ],
)
def test_mistakes_in_place_of_it(folder: Path, text: str, mistake: str) -> None:
    (folder / "v6fwd.toml").write_text(text)
    result = CliRunner().invoke(main, ["config", "show"])
    assert (result.exit_code, result.stdout) == (2, "")
    assert mistake in result.stderr


def test_no_file(folder: Path) -> None:  # noqa: ARG001
    result = CliRunner().invoke(main, ["config", "show", "-c", "no.toml"])
    assert result.exit_code == 2
    assert "no.toml: cannot be read: no such file" in result.stderr
    assert "v6fwd config example" in result.stderr


def test_the_example_is_the_one_in_the_package() -> None:
    """The file at the top is a link to it, and setuptools takes it along."""
    assert CliRunner().invoke(main, ["config", "example"]).stdout == EXAMPLE
    link = ROOT / "v6fwd.example.toml"
    assert link.is_symlink()
    inside = link.resolve().relative_to(ROOT / "v6fwd")
    data = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert str(inside) in data["package-data"]["v6fwd"]
