"""The house: imports point one way, pure rooms stay pure, and what the package says is true."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

import v6fwd

PACKAGE = Path(v6fwd.__file__).parent
ROOT = PACKAGE.parent

RANKS = {
    "model": 0,
    "client_ip": 1,
    "log": 1,
    "syslog": 2,
    "relay": 2,
    "config": 2,
    "demo": 3,
    "daemon": 3,
    "docker": 3,
    "cli": 4,
}
"""A room may import itself and the rooms below it; rooms of one rank do not know each other."""

PURE = ("model", "client_ip")

_IO_AND_TIME = (
    "asyncio concurrent ctypes datetime fcntl fileinput io logging multiprocessing os pathlib"
    " random resource secrets select selectors shutil signal socket socketserver ssl subprocess"
    " sys tempfile threading time uvloop v6fwd.log v6fwd.syslog"
)
IMPURE = frozenset(_IO_AND_TIME.split())
_FOR_TYPES = ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def imports_of(source: str) -> Iterator[str]:
    """Every module that the text imports when it runs, wherever in it the import stands."""
    yield from _imports(ast.parse(source))


def _imports(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        yield from _from_import(node)
    else:
        for child in _children_that_run(node):
            yield from _imports(child)


def _children_that_run(node: ast.AST) -> Iterable[ast.AST]:
    if isinstance(node, ast.If) and ast.unparse(node.test) in _FOR_TYPES:
        return node.orelse
    return ast.iter_child_nodes(node)


def _from_import(node: ast.ImportFrom) -> Iterator[str]:
    if node.level:
        yield "." * node.level + (node.module or "")
    elif node.module == "v6fwd":  # the rooms themselves: from v6fwd import relay
        yield from (f"v6fwd.{alias.name}" for alias in node.names)
    else:
        yield node.module or ""


def room_of(module: str) -> str:
    """The room of a dotted name below v6fwd; "" for the package itself."""
    return module.split(".")[1] if "." in module else ""


def broken_rules(module: str, source: str) -> list[str]:
    """What the imports in `source`, the text of `module`, do that the house forbids."""
    room = room_of(module)
    return [why for name in imports_of(source) if (why := _broken_rule(room, name))]


def _broken_rule(room: str, name: str) -> str | None:
    if name.startswith("."):
        return f"relative import {name}"
    if room in PURE and (name in IMPURE or name.split(".")[0] in IMPURE):
        return f"{room} is pure and imports {name}"
    if not name.startswith("v6fwd."):
        return None
    other = room_of(name)
    if other not in RANKS or other == room or room == "__main__":
        return None
    if room not in RANKS:
        return f"the package itself imports {name}"
    return None if RANKS[other] < RANKS[room] else f"{room} imports up: {name}"


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = ["v6fwd", *path.relative_to(PACKAGE).with_suffix("").parts]
        if parts[-1] == "__init__":
            parts.pop()
        found[".".join(parts)] = path
    return found


def rooms() -> set[str]:
    """The rooms that exist: folders with a package in them, and modules at the top."""
    return {room_of(name) for name in modules()} - {"", "__main__"}


@pytest.mark.parametrize(("module", "path"), modules().items(), ids=modules().keys())
def test_imports_point_down(module: str, path: Path) -> None:
    assert broken_rules(module, path.read_text(encoding="utf-8")) == []


def test_every_room_has_a_rank() -> None:
    assert rooms() <= set(RANKS)


@pytest.mark.parametrize(
    ("module", "source", "why"),
    [
        ("v6fwd.relay.tcp", "from v6fwd.cli import main", "relay imports up: v6fwd.cli"),
        ("v6fwd.relay.tcp", "import v6fwd.demo.lab", "relay imports up: v6fwd.demo.lab"),
        ("v6fwd.relay.tcp", "from v6fwd import cli", "relay imports up: v6fwd.cli"),
        ("v6fwd.relay", "def f():\n    import v6fwd.cli", "relay imports up: v6fwd.cli"),
        ("v6fwd.demo.show", "import v6fwd.cli.demo", "demo imports up: v6fwd.cli.demo"),
        ("v6fwd.log", "import v6fwd.client_ip.trust", "log imports up: v6fwd.client_ip.trust"),
        ("v6fwd.model", "import v6fwd.client_ip", "model imports up: v6fwd.client_ip"),
        ("v6fwd.client_ip.trust", "import v6fwd.log", "client_ip is pure and imports v6fwd.log"),
        ("v6fwd.client_ip.trust", "from os import path", "client_ip is pure and imports os"),
        ("v6fwd.client_ip.trust", "import os.path", "client_ip is pure and imports os.path"),
        (
            "v6fwd.model",
            "try:\n    import socket\nexcept ImportError: pass",
            "model is pure and imports socket",
        ),
        (
            "v6fwd.model",
            "if TYPE_CHECKING:\n    pass\nelse:\n    import time",
            "model is pure and imports time",
        ),
        ("v6fwd.relay.tcp", "from . import pipes", "relative import ."),
        ("v6fwd", "from v6fwd.model import Forward", "the package itself imports v6fwd.model"),
    ],
)
def test_the_checker_finds(module: str, source: str, why: str) -> None:
    assert broken_rules(module, source) == [why]


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("v6fwd.cli.forward", "from v6fwd.relay.service import run\nimport uvloop"),
        ("v6fwd.relay.tcp", "import os\nfrom v6fwd.relay.pipes import Pipe"),
        ("v6fwd.client_ip.trust", "if TYPE_CHECKING:\n    from socket import SocketKind"),
        ("v6fwd.client_ip.trust", "import osmium"),  # begins as os does, and is not os
        ("v6fwd.cli", "from v6fwd import __version__"),
        ("v6fwd.__main__", "from v6fwd.cli import main"),
    ],
)
def test_the_checker_allows(module: str, source: str) -> None:
    assert broken_rules(module, source) == []


def test_the_checker_sees_what_is_there() -> None:
    """A walk that finds nothing would pass all the tests above."""
    names = set(imports_of((PACKAGE / "relay" / "dial.py").read_text(encoding="utf-8")))
    assert {"os", "select", "v6fwd.model", "v6fwd.client_ip.proxy_read"} <= names


def test_the_package_says_which_rooms_there_are() -> None:
    assert v6fwd.__doc__ is not None
    named = re.findall(r"^ {4}(\w+)(?:/|\.py) {2,}\S", v6fwd.__doc__, re.MULTILINE)
    assert sorted(named) == sorted(rooms())


def test_the_rooms_stand_from_top_to_bottom() -> None:
    assert v6fwd.__doc__ is not None
    named = re.findall(r"^ {4}(\w+)(?:/|\.py) ", v6fwd.__doc__, re.MULTILINE)
    ranks = [RANKS[room] for room in named]
    assert ranks == sorted(ranks, reverse=True)


def test_the_list_of_rooms_is_short() -> None:
    assert v6fwd.__doc__ is not None
    assert len(re.findall(r"^ {4}\S", v6fwd.__doc__, re.MULTILINE)) <= 10


def test_the_changelog_knows_this_version() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    heads = re.findall(r"^## \[([^\]]+)\]", changelog, re.MULTILINE)
    assert heads, "no release heading"
    assert heads[0] in ("Unreleased", v6fwd.__version__)


def test_the_version_is_one_that_can_be_ordered() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+(?:\.dev\d+|(?:a|b|rc)\d+)?", v6fwd.__version__)


# Somebody's own folders, and where packages come from: neither is any business of a checkout.
# Character classes keep this file out of its own net.
_FOREIGN = re.compile(
    r"(?<![\w.~-])/(?:[w]ork|[r]oot)/"
    r"|[p]ypi\.org|[p]ythonhosted\.org|[r]egistry\.npmjs|[c]rates\.io|[p]roxy\.golang"
)


def tracked_files() -> list[Path]:
    """The files that git tracks and that are here; none where this is no checkout."""
    try:
        command = ["git", "-C", str(ROOT), "ls-files", "-z"]
        listing = subprocess.run(command, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return []
    paths = (ROOT / name for name in listing.decode().split("\0") if name)
    return [path for path in paths if path.is_file()]


def test_no_file_names_this_machine_or_a_registry() -> None:
    files = tracked_files()
    if not files:
        pytest.skip("not a git checkout")
    for path in files:
        found = _FOREIGN.search(path.read_text(encoding="utf-8", errors="replace"))
        assert found is None, f"{path.relative_to(ROOT)} mentions {found[0]}"


@pytest.mark.parametrize("text", ["cd /{}ork/main", "'/{}ork/x'"], ids=["shell", "quoted"])
def test_the_net_has_no_hole(text: str) -> None:
    assert _FOREIGN.search(text.format("w"))


@pytest.mark.parametrize("text", ["net/work/it", "./work/x", "/network/", "/rooted/"])
def test_the_net_catches_no_innocents(text: str) -> None:
    assert _FOREIGN.search(text) is None
