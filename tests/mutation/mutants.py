"""Mutants: small changes of one source file, one at a time."""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator
from typing import TypeGuard

from tests.support.paths import ROOT

SWAPS: dict[type, type] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
    ast.And: ast.Or, ast.Or: ast.And, ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv,
    ast.FloorDiv: ast.Mult, ast.Div: ast.Mult, ast.Mod: ast.Mult, ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd, ast.LShift: ast.RShift, ast.RShift: ast.LShift,
}  # fmt: skip
LEFT_OUT = (ast.Expr, ast.AugAssign, ast.Raise, ast.Break, ast.Continue, ast.Delete)
Change = tuple[ast.AST, str, object, int]
"""A node, one of its fields, what the field becomes, and the line."""


def changes(node: ast.AST, line: int = 1) -> Iterator[Change]:
    """What can be changed below a node; types, decorators and docstrings are no behaviour."""
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "msg"):
            continue
        for at, child in enumerate(value) if isinstance(value, list) else [(-1, value)]:
            if not isinstance(child, ast.AST) or isinstance(child, ast.Assert):
                continue
            here = getattr(child, "lineno", line)
            for new in replacements(child):
                yield node, name, new if at < 0 else [*value[:at], new, *value[at + 1 :]], here
            yield from changes(child, here)


def replacements(node: ast.AST) -> Iterator[ast.AST]:
    """What may stand in a node's place."""
    if type(node) in SWAPS:
        yield SWAPS[type(node)]()
    elif is_not(node):
        yield node.operand
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool | int | float):
        new = not node.value if isinstance(node.value, bool) else node.value + 1
        yield ast.Constant(new)
    elif isinstance(node, ast.If | ast.IfExp | ast.While) and not is_not(node.test):
        turned = copy.copy(node)
        turned.test = ast.UnaryOp(ast.Not(), node.test)
        yield turned
    elif is_left_out(node):
        yield ast.Pass()


def is_not(node: ast.AST) -> TypeGuard[ast.UnaryOp]:
    """Whether it is `not ...`."""
    return isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not)


def is_left_out(node: ast.AST) -> bool:
    """Whether the statement can go: neither a docstring nor what an abstract method raises."""
    if isinstance(node, ast.Expr):
        return not isinstance(node.value, ast.Constant)
    if isinstance(node, ast.Assign):
        return isinstance(node.targets[0], ast.Attribute | ast.Subscript)
    return isinstance(node, LEFT_OUT) and "NotImplementedError" not in ast.unparse(node)


class Mutant:
    """One change of one file."""

    def __init__(self, file: str, number: int) -> None:
        tree = ast.parse((ROOT / file).read_text())
        before = ast.unparse(tree).splitlines()
        # Counted anew, since each mutant has a tree of its own.
        node, name, value, self.line = list(changes(tree))[number]
        self.lines = lines_around(tree, self.line)
        setattr(node, name, value)
        self.file = file
        self.number = number
        self.text = ast.unparse(ast.fix_missing_locations(tree))
        after = self.text.splitlines()
        at = next((n for n, (a, b) in enumerate(zip(before, after, strict=False)) if a != b), 0)
        self.change = f"{before[at].strip()}   ->   {after[at].strip()}"


def lines_around(tree: ast.AST, line: int) -> range:
    """The lines of the statement that has this line; of a compound one only its head."""
    around = range(line, line + 1)
    for node in ast.walk(tree):  # the innermost comes last
        if isinstance(node, ast.stmt) and node.lineno <= line <= (node.end_lineno or 0):
            end = node.end_lineno or 0
            if body := getattr(node, "body", None):
                end = max(line, body[0].lineno - 1)
            around = range(node.lineno, end + 1)
    return around


def count(file: str) -> int:
    """How many mutants a file has."""
    return len(list(changes(ast.parse((ROOT / file).read_text()))))
