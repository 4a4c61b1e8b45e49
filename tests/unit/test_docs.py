"""What the documents tell people to type is accepted: commands, options, keys, targets, files."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from tests.support.pages import PAGES, blocks, commands
from tests.support.paths import ROOT
from v6fwd.cli import main
from v6fwd.config import load
from v6fwd.docker.policy.labels import read_labels

_KEY = re.compile(r"[a-z-]+ = ")


def parse(words: list[str]) -> None:
    """Let click parse a command line of v6fwd without running it; raises what click raises.

    A command without a word behind it is one that a sentence mentions.
    """
    command: click.Command = main
    # Without its parent a command would learn other names for --help, and keep them.
    parent = click.Context(main, **main.context_settings)
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        name, *words = words
        found = command.get_command(parent, name)
        assert found is not None, f"no command {name}"
        command = found
    if words and "--help" not in words:
        command.make_context(command.name, words, parent=parent)


V6FWD = [(page, words) for page in PAGES for words in commands(page, "v6fwd")]
TOML = [
    (page, block)
    for page in PAGES
    if page not in ("docs/servers.md", "docs/modes.md")  # the servers' own; see test_servers_page
    for block in blocks(page)
    for first in block[:1]
    if first.startswith("[") or _KEY.match(first)
]


@pytest.mark.parametrize(("page", "words"), V6FWD, ids=[" ".join(words) for _, words in V6FWD])
def test_a_command_is_accepted(page: str, words: list[str]) -> None:  # noqa: ARG001 - for the id
    parse(words)


def test_commands_are_found() -> None:
    pages = {page for page, _ in V6FWD}
    assert {"README.md", "docs/docker.md", "docs/serve.md", "docs/transparent.md"} <= pages
    assert ["serve", "-c", "v6fwd.toml", "--check"] in [words for _, words in V6FWD]


@pytest.mark.parametrize(
    "words", [["forward", "8080", "host:80", "--client-up", "none"], ["status", "--jason"]]
)
def test_a_wrong_option_is_not_accepted(words: list[str]) -> None:
    with pytest.raises(click.UsageError):
        parse(words)


@pytest.mark.parametrize(("page", "block"), TOML, ids=[f"{page}-{one[0]}" for page, one in TOML])
def test_a_configuration_is_accepted(page: str, block: list[str], tmp_path: Path) -> None:  # noqa: ARG001
    file = tmp_path / "v6fwd.toml"
    head = "" if block[0].startswith("[") else "[defaults]\n"
    file.write_text(head + "\n".join(block) + "\n")
    load(file)


def test_configurations_are_found() -> None:
    assert {page for page, _ in TOML} >= {"README.md", "docs/docker.md", "docs/serve.md"}


@pytest.mark.parametrize("page", PAGES)
def test_targets_of_make_exist(page: str) -> None:
    makefile = (ROOT / "Makefile").read_text()
    rings = re.findall(r"^RINGS := (.*)", makefile, re.MULTILINE)
    phony = re.findall(r"^\.PHONY: (.*)", makefile, re.MULTILINE)
    targets = set(" ".join(rings + phony).split())
    for words in commands(page, "make"):
        assert {word for word in words if "=" not in word} <= targets


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files(page: str) -> None:
    links = re.findall(r"\]\(([^)#]+)\)", (ROOT / page).read_text())
    files = [link for link in links if "://" not in link]
    assert [link for link in files if not ((ROOT / page).parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES)
def test_tests_and_scripts_that_a_page_names_exist(page: str) -> None:
    named = re.findall(r"(?<![\w/])(?:tests|scripts|contrib)/[\w/.-]*\w", (ROOT / page).read_text())
    assert [name for name in named if not (ROOT / name).exists()] == []


def options(command: click.Command) -> Iterator[str]:
    """The long options of a command and of those below it."""
    for param in command.params:
        yield from (name for name in param.opts if name.startswith("--"))
    if isinstance(command, click.Group):
        for name in command.commands.values():
            yield from options(name)


@pytest.mark.parametrize("page", [*PAGES, "SECURITY.md", "CHANGELOG.md"])
def test_options_that_a_page_names_exist(page: str) -> None:
    named = re.findall(r"`(--[a-z0-9-]+)", (ROOT / page).read_text())
    ours = {*options(main), "--label", "--help", "--network", "--pid"}  # the others are docker's
    assert sorted(set(named) - ours) == []


LABEL = re.compile(r"(v6fwd\.client-ip[\w./-]*)=([\w-]+)")


@pytest.mark.parametrize("page", ["README.md", "docs/docker.md", "docs/transparent.md"])
def test_labels_are_accepted(page: str) -> None:
    named = LABEL.findall((ROOT / page).read_text())
    assert named
    for key, value in named:
        labels = read_labels({key: value})
        assert labels.errors == ()
        assert len(labels.labels) == 1


def test_the_reference_is_what_the_code_gives() -> None:
    words = [sys.executable, str(ROOT / "scripts" / "reference")]
    made = subprocess.run(words, capture_output=True, text=True, check=True, cwd=ROOT)
    assert (ROOT / "docs" / "reference.md").read_text() == made.stdout, "run `make reference`"


def test_every_log_event_is_explained() -> None:
    events = re.findall(r"^\| `([a-z0-9-]+)` \| [a-z ]+ \|$", read("reference.md"), re.MULTILINE)
    told = re.findall(r"^\| `([a-z0-9-]+)` \|", read("troubleshooting.md"), re.MULTILINE)
    assert len(events) > 50
    assert sorted(told) == sorted(events)


def read(page: str) -> str:
    """The text of a page."""
    return (ROOT / "docs" / page).read_text()


def test_the_site_is_built_and_its_links_lead_somewhere(tmp_path: Path) -> None:
    words = ["mkdocs", "build", "--quiet", "--strict", "--site-dir", str(tmp_path / "site")]
    words += ["--config-file", str(ROOT / "contrib" / "docs" / "mkdocs.yml")]
    built = subprocess.run([sys.executable, "-m", *words], capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    pages = {path.stem for path in (tmp_path / "site").glob("*.html")}
    assert {path.stem for path in (ROOT / "docs").glob("*.md")} <= pages
