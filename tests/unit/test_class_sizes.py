"""A class has at most 30 attributes and methods, or a line in its docstring that says why not."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator

import pytest

from tests.support.paths import ROOT

MOST = 30
REASON = "Large because "
"""What the line begins with."""


def classes(source: str) -> Iterator[ast.ClassDef]:
    return (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ClassDef))


def members(node: ast.ClassDef) -> set[str]:
    """Methods, slots, class attributes, and what the constructor sets; inherited ones not."""
    return {name for statement in node.body for name in _names(statement)}


def _names(statement: ast.stmt) -> Iterable[str]:
    match statement:
        case ast.FunctionDef(name="__init__" | "__post_init__" as name):
            return {name, *_set_on_self(statement)}
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
            return {name}
        case ast.AnnAssign(target=ast.Name(id=name)):
            return {name}
        case ast.Assign(targets=[ast.Name(id="__slots__")], value=value):
            constants = (node for node in ast.walk(value) if isinstance(node, ast.Constant))
            return {str(constant.value) for constant in constants}
        case ast.Assign(targets=targets):
            return {target.id for target in targets if isinstance(target, ast.Name)}
    return ()


def _set_on_self(function: ast.FunctionDef) -> Iterator[str]:
    for node in ast.walk(function):
        match node:
            case ast.Attribute(value=ast.Name(id="self"), attr=name, ctx=ast.Store()):
                yield name


def is_explained(node: ast.ClassDef) -> bool:
    lines = (ast.get_docstring(node) or "").splitlines()
    return any(line.startswith(REASON) and len(line) > len(REASON) for line in lines)


def too_large(source: str) -> dict[str, int]:
    """Classes over the limit without a reason, and how many members they have."""
    found = {node.name: len(members(node)) for node in classes(source) if not is_explained(node)}
    return {name: count for name, count in found.items() if count > MOST}


def test_no_class_is_large_without_a_reason() -> None:
    sources = (path.read_text() for path in (ROOT / "v6fwd").rglob("*.py"))
    found = {name: count for source in sources for name, count in too_large(source).items()}
    assert found == {}


SMALL = '''
class Some(Base):
    """One line.{more}"""
    __slots__ = ("a", "b")
    LIMIT = 1
    field: int = 0
    def __init__(self):
        self.a = other.c = 1
        self.d, self.e = 2, 3
    @property
    def one(self): self.never = 1
    async def two(self): pass
'''


def test_members_are_counted_once() -> None:
    (node,) = classes(SMALL.replace("{more}", ""))
    assert members(node) == {"a", "b", "d", "e", "LIMIT", "field", "__init__", "one", "two"}


@pytest.mark.parametrize(
    ("more", "found"),
    [
        ("", {"Some": 31}),
        ("\n\n    Large because it is a table.\n    ", {}),
        ("\n\n    Large because \n    ", {"Some": 31}),
    ],
    ids=["no reason", "a reason", "half a reason"],
)
def test_a_large_class_needs_a_reason(more: str, found: dict[str, int]) -> None:
    fields = "".join(f"    f{number}: int\n" for number in range(22))
    assert too_large(SMALL.replace("{more}", more) + fields) == found


def test_a_class_at_the_limit_needs_none() -> None:
    fields = "".join(f"    f{number}: int\n" for number in range(21))
    assert too_large(SMALL.replace("{more}", "") + fields) == {}
