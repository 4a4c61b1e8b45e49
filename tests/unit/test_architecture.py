"""The architecture: imports point one way and in no circle, pure packages stay pure."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Container, Iterable, Iterator, Mapping
from pathlib import Path

import pytest

import v6fwd

PACKAGE = Path(v6fwd.__file__).parent
ROOT = PACKAGE.parent

RANKS = {
    "model": 0,
    "errors": 1,
    "folder": 1,
    "client_ip": 1,
    "log": 1,
    "syslog": 2,
    "config": 2,
    "netns": 2,
    "relay": 3,
    "demo": 4,
    "probe": 4,
    "daemon": 4,
    "docker": 5,
    "doctor": 6,
    "cli": 7,
}
"""A package may import itself and those of a lower rank; packages of one rank import none of
each other."""

RELAY_MAY = {"tcp": (), "http": ("tcp",), "udp": (), "transparent": ()}
"""Which of its neighbours each folder of relay/ may import."""

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
    elif node.module == "v6fwd":  # the packages themselves: from v6fwd import relay
        yield from (f"v6fwd.{alias.name}" for alias in node.names)
    else:
        yield node.module or ""


def package_of(module: str) -> str:
    """The package of a dotted name below v6fwd; "" for v6fwd itself."""
    return module.split(".")[1] if "." in module else ""


def broken_rules(module: str, source: str) -> list[str]:
    """What the imports in `source`, the text of `module`, do that the architecture forbids."""
    package = package_of(module)
    return [why for name in imports_of(source) if (why := _broken_rule(package, name))]


def _broken_rule(package: str, name: str) -> str | None:
    if name.startswith("."):
        return f"relative import {name}"
    if package in PURE and (name in IMPURE or name.split(".")[0] in IMPURE):
        return f"{package} is pure and imports {name}"
    if not name.startswith("v6fwd."):
        return None
    other = package_of(name)
    if other not in RANKS or other == package or package == "__main__":
        return None
    if package not in RANKS:
        return f"the package itself imports {name}"
    return None if RANKS[other] < RANKS[package] else f"{package} imports up: {name}"


def imports_for_any_reason(source: str, known: Container[str]) -> Iterator[str]:
    """The modules of ours that the text names in an import, for types alone too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name for name in inner if name in known)
            if node.module in known and not all(name in known for name in inner):
                yield node.module


def import_graph(sources: Mapping[str, str]) -> dict[str, set[str]]:
    """Which modules each module imports, for any reason."""
    return {name: set(imports_for_any_reason(text, sources)) for name, text in sources.items()}


def circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """The sets of modules that import each other, directly or by way of others."""
    reached = {name: _reachable(graph, name) for name in graph}
    found = {
        frozenset({name} | {other for other in reached[name] if name in reached[other]})
        for name in graph
        if name in reached[name]
    }
    return sorted(sorted(circle) for circle in found)


def _reachable(graph: Mapping[str, set[str]], start: str) -> set[str]:
    seen: set[str] = set()
    todo = [start]
    while todo:
        for name in graph[todo.pop()] - seen:
            seen.add(name)
            todo.append(name)
    return seen


def sources() -> dict[str, str]:
    """The text of every module."""
    return {name: path.read_text(encoding="utf-8") for name, path in modules().items()}


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = ["v6fwd", *path.relative_to(PACKAGE).with_suffix("").parts]
        if parts[-1] == "__init__":
            parts.pop()
        found[".".join(parts)] = path
    return found


def packages() -> set[str]:
    """The packages that exist: folders with a package in them, and modules at the top."""
    return {package_of(name) for name in modules()} - {"", "__main__"}


@pytest.mark.parametrize(("module", "path"), modules().items(), ids=modules().keys())
def test_imports_point_down(module: str, path: Path) -> None:
    assert broken_rules(module, path.read_text(encoding="utf-8")) == []


def test_every_package_has_a_rank() -> None:
    assert packages() <= set(RANKS)


def test_no_modules_import_each_other() -> None:
    assert circles(import_graph(sources())) == []


def test_folders_of_the_relay_know_their_neighbours() -> None:
    arrows = {
        (module, name)
        for module, names in import_graph(sources()).items()
        for name in names
        if (of := _folder_of(module)) and (to := _folder_of(name)) and to != of
        if to not in RELAY_MAY[of]
    }
    assert arrows == set()


def _folder_of(module: str) -> str:
    parts = module.split(".")
    return (
        parts[2] if parts[:2] == ["v6fwd", "relay"] and parts[2:] and parts[2] in RELAY_MAY else ""
    )


def test_relay_has_few_modules_beside_its_folders() -> None:
    assert len(list((PACKAGE / "relay").glob("*.py"))) <= 20


def test_circles_are_found() -> None:
    graph = import_graph(
        {
            "v6fwd.a": "from v6fwd.b import B",
            "v6fwd.b": "if TYPE_CHECKING:\n    from v6fwd.c import C",
            "v6fwd.c": "def f():\n    import v6fwd.a",
            "v6fwd.d": "from v6fwd.a import A",
        }
    )
    assert circles(graph) == [["v6fwd.a", "v6fwd.b", "v6fwd.c"]]


@pytest.mark.parametrize(
    ("module", "source", "why"),
    [
        ("v6fwd.relay.tcp.flow", "from v6fwd.cli import main", "relay imports up: v6fwd.cli"),
        ("v6fwd.relay.tcp.flow", "import v6fwd.demo.lab", "relay imports up: v6fwd.demo.lab"),
        ("v6fwd.relay.tcp.flow", "from v6fwd import cli", "relay imports up: v6fwd.cli"),
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
        ("v6fwd.relay.tcp.flow", "from . import pipes", "relative import ."),
        ("v6fwd", "from v6fwd.model import Forward", "the package itself imports v6fwd.model"),
    ],
)
def test_the_checker_finds(module: str, source: str, why: str) -> None:
    assert broken_rules(module, source) == [why]


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("v6fwd.cli.forward", "from v6fwd.relay.relay import run\nimport uvloop"),
        ("v6fwd.relay.tcp.flow", "import os\nfrom v6fwd.relay.tcp.pipes import Pipe"),
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
    path = PACKAGE / "relay" / "tcp" / "proxy_header.py"
    names = set(imports_of(path.read_text(encoding="utf-8")))
    assert {"os", "select", "v6fwd.relay.ends", "v6fwd.client_ip.proxy.read"} <= names


def test_the_package_says_which_packages_there_are() -> None:
    assert v6fwd.__doc__ is not None
    named = re.findall(r"^ {4}(\w+)(?:/|\.py) {2,}\S", v6fwd.__doc__, re.MULTILINE)
    assert sorted(named) == sorted(packages())


def test_the_packages_stand_from_top_to_bottom() -> None:
    assert v6fwd.__doc__ is not None
    named = re.findall(r"^ {4}(\w+)(?:/|\.py) ", v6fwd.__doc__, re.MULTILINE)
    ranks = [RANKS[package] for package in named]
    assert ranks == sorted(ranks, reverse=True)


def test_the_list_of_packages_is_short() -> None:
    assert v6fwd.__doc__ is not None
    assert len(re.findall(r"^ {4}\S", v6fwd.__doc__, re.MULTILINE)) <= 15


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
def test_foreign_paths_are_found(text: str) -> None:
    assert _FOREIGN.search(text.format("w"))


@pytest.mark.parametrize("text", ["net/work/it", "./work/x", "/network/", "/rooted/"])
def test_other_paths_are_not_found(text: str) -> None:
    assert _FOREIGN.search(text) is None
