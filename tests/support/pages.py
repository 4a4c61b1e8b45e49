"""For tests of what README and docs/ tell people to type: their blocks and commands."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

from tests.support.paths import ROOT

PAGES = ["README.md", "CONTRIBUTING.md", "tests/README.md"]
PAGES += [f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: str, heading: str = "") -> list[list[str]]:
    """Paragraphs that are indented, without their indentation; those below a heading."""
    text = (ROOT / page).read_text()
    if heading:
        text = text.partition(f"## {heading}\n")[2]
    found = re.findall(r"(?:^    .*\n)+", text, re.MULTILINE)
    return [[line[4:] for line in block.strip("\n").split("\n")] for block in found]


def typed(page: str, heading: str) -> list[str]:
    """The commands of the first block below a heading, one each, without comments."""
    lines = (line.partition("#")[0] for line in blocks(page, heading)[0])
    return [command.strip() for line in lines for command in line.split("&&")]


def fenced(page: str, kind: str) -> list[str]:
    """The texts of blocks between fences that name their language."""
    return re.findall(
        rf"^```{kind}\n(.*?)^```$", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL
    )


def lines(page: str, program: str) -> Iterator[str]:
    """The lines of blocks that call a program."""
    for block in blocks(page):
        for line in block:
            if line.removeprefix("$ ").startswith(f"{program} "):
                yield line.removeprefix("$ ")


def commands(page: str, program: str) -> Iterator[list[str]]:
    """The words behind a program's name, wherever a line of a block or a code span calls it."""
    spans = re.findall(r"`([^`\n]+)`", (ROOT / page).read_text())
    for line in [
        *lines(page, program),
        *(span for span in spans if span.startswith(f"{program} ")),
    ]:
        yield words(line)


def words(line: str) -> list[str]:
    """The words behind the program's name, to the end of the first command."""
    shell = shlex.shlex(line, posix=True, punctuation_chars="&|;>")
    shell.commenters = "#"
    shell.whitespace_split = True
    found = list(shell)
    end = next((at for at, word in enumerate(found) if set(word) <= set("&|;>")), None)
    return found[1:end]
