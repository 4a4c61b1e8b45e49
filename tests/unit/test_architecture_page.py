"""docs/architecture.md names files, classes and functions: each of them exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.support.paths import ROOT

PAGE = (ROOT / "docs" / "architecture.md").read_text()
_CODE = re.compile(r"`([^`\n]+)`")
_METHOD = re.compile(r"[A-Z]\w+\.(?!md)\w+")
_REFERENCE = re.compile(r"([\w./-]+\.(?:py|c|toml|md))(?:: ([\w.]+))?|([\w-]+/(?:[\w-]+/)*[\w-]*)")


def references(page: str) -> list[tuple[str, str]]:
    """Path and name (or "") of everything in the page's code spans that looks like a file."""
    found = (_REFERENCE.fullmatch(span) for span in _CODE.findall(page))
    return sorted({(match[1] or match[3], match[2] or "") for match in found if match})


def methods(page: str) -> list[str]:
    """Everything that looks like `Class.method`, without a file."""
    return sorted({span for span in _CODE.findall(page) if _METHOD.fullmatch(span)})


def missing(path: str, name: str) -> str | None:
    """What is not there: the file, or the name in it."""
    file = next((base / path for base in (ROOT / "v6fwd", ROOT) if (base / path).exists()), None)
    if file is None:
        return f"{path}: {name}" if name else path
    return None if not name or name in names_of(file) else f"{path}: {name}"


def names_of(file: Path) -> set[str]:
    """Classes, functions, and methods as Class.method."""
    names = set()
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            functions = (each for each in node.body if isinstance(each, ast.FunctionDef))
            names |= {f"{node.name}.{each.name}" for each in functions}
    return names


@pytest.mark.parametrize(("path", "name"), references(PAGE))
def test_what_the_page_names_exists(path: str, name: str) -> None:
    assert missing(path, name) is None


@pytest.mark.parametrize("method", methods(PAGE))
def test_methods_that_the_page_names_without_a_file_exist(method: str) -> None:
    assert any(method in names_of(file) for file in (ROOT / "v6fwd").rglob("*.py"))


def test_links_lead_to_files() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", PAGE)
    assert links
    assert [link for link in links if not (ROOT / "docs" / link).exists()] == []


def test_references_are_found() -> None:
    page = (
        "In `relay/reactor.py: Reactor.watch`, `tests/unit/`, `docs/serve.md`, not `broke(side)`."
    )
    found = [("docs/serve.md", ""), ("relay/reactor.py", "Reactor.watch"), ("tests/unit/", "")]
    assert references(page) == found
    assert len(references(PAGE)) > 50
    assert methods("`Side.moved` and `Side`, `side.moved`") == ["Side.moved"]


@pytest.mark.parametrize("name", ["Reactor", "Reactor.watch"])
def test_what_is_there_is_not_missing(name: str) -> None:
    assert missing("relay/reactor.py", name) is None


@pytest.mark.parametrize("path", ["relay/reactor.py", "relay/engine.py"])
def test_what_is_not_there_is_missing(path: str) -> None:
    assert missing(path, "Reactor.gone") is not None


def test_the_page_is_short() -> None:
    assert len(PAGE.splitlines()) <= 150
