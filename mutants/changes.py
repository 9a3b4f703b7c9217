"""The changes that are made to a module, one at a time.

Here lives what is changed, and how such a mutant is named: by its module, its function
and the change, so that the name outlives edits elsewhere. What stands outside of
functions stays, because a limit is a choice, and a type is mypy's affair. So do the
texts of errors.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from copy import copy
from typing import Any, NamedTuple

SWAPS: dict[type[ast.AST], type[ast.AST]] = {
    **{ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt},
    **{ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is},
    **{ast.In: ast.NotIn, ast.NotIn: ast.In, ast.And: ast.Or, ast.Or: ast.And},
    **{ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv},
    **{ast.FloorDiv: ast.Mult, ast.Div: ast.Mult, ast.Mod: ast.Mult},
    **{ast.Break: ast.Continue, ast.Continue: ast.Break},
}

#: What a condition consists of that is changed itself.
CONDITIONS = (ast.Compare, ast.BoolOp, ast.UnaryOp, ast.Constant)


class Mutant(NamedTuple):
    """A module with one change.

    :param first: the line at which the function begins, decorators included.
    :param last: the line at which it ends.
    :param source: the whole module.
    """

    module: str
    function: str
    change: str
    first: int
    last: int
    source: str

    @property
    def name(self) -> str:
        return f"{self.module} {self.function}: {self.change}"


class Function(NamedTuple):
    """A function or a method, and the lines that it takes."""

    name: str
    first: int
    last: int
    node: ast.FunctionDef


def functions(tree: ast.AST, prefix: str = "") -> Iterator[Function]:
    """The functions of a module and the methods of its classes. What is defined within
    one of them is a part of it."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef):
            yield from functions(node, f"{prefix}{node.name}.")
        elif isinstance(node, ast.FunctionDef):
            first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
            yield Function(prefix + node.name, first, node.end_lineno or first, node)


def mutants(module: str, source: str) -> Iterator[Mutant]:
    """All mutants of a module."""
    for function in functions(ast.parse(source)):
        seen: Counter[str] = Counter()
        for node, new in _within(function.node):
            old = ast.get_source_segment(source, node) or ""
            change = f"{' '.join(old.split())} → {new}"
            seen[change] += 1
            if seen[change] > 1:
                change += f" #{seen[change]}"
            changed = _put(source, node, new)
            name, first, last, _ = function
            yield Mutant(module, name, change, first, last, changed)


def _put(source: str, node: ast.expr | ast.stmt, new: str) -> str:
    """A source with another text where a node stands."""
    assert node.end_lineno is not None
    assert node.end_col_offset is not None
    lines = source.encode().splitlines(keepends=True)
    first, last = lines[node.lineno - 1], lines[node.end_lineno - 1]
    before = [*lines[: node.lineno - 1], first[: node.col_offset]]
    after = [last[node.end_col_offset :], *lines[node.end_lineno :]]
    return b"".join([*before, new.encode(), *after]).decode()


Change = tuple[ast.expr | ast.stmt, str]


def _within(node: ast.AST) -> Iterator[Change]:
    """The changes of a node and of all that it consists of."""
    yield from _changes(node)
    for part in _parts(node):
        if not isinstance(node, ast.Raise):
            yield from _within(part)
            continue
        # The text of an error is for people.
        yield from (c for c in _within(part) if not _is_text(c[0]))


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _parts(node: ast.AST) -> Iterator[ast.AST]:
    """What a node consists of, without types, docstrings and formatted texts."""
    if isinstance(node, ast.FunctionDef | ast.Lambda):
        arguments = node.args
        yield from (d for d in (*arguments.defaults, *arguments.kw_defaults) if d)
        yield from node.body if isinstance(node.body, list) else [node.body]
    elif isinstance(node, ast.AnnAssign):
        yield from [node.value] if node.value else []
    elif not isinstance(node, ast.JoinedStr) and not (
        isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    ):
        yield from ast.iter_child_nodes(node)


def _changes(node: ast.AST) -> Iterator[Change]:
    """The changes of a node itself."""
    if isinstance(node, ast.Compare):
        for at, op in enumerate(node.ops):
            ops = [*node.ops[:at], *_swapped(op), *node.ops[at + 1 :]]
            yield _as(node, ops=ops)
    elif isinstance(node, ast.BoolOp | ast.BinOp | ast.AugAssign):
        for op in _swapped(node.op):
            yield _as(node, op=op)
    elif isinstance(node, ast.Break | ast.Continue):
        for other in _swapped(node):
            yield node, ast.unparse(other)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield node, f"({ast.unparse(node.operand)})"
    elif isinstance(node, ast.Constant):
        yield from ((node, f"({value!r})") for value in _others(node.value))
    elif isinstance(node, ast.Return) and node.value:
        if not (isinstance(node.value, ast.Constant) and node.value.value is None):
            yield node, "return None"
    elif isinstance(node, ast.Delete) or (
        isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
    ):
        yield node, "pass"
    if isinstance(node, ast.If | ast.IfExp | ast.While):
        if not isinstance(node.test, CONDITIONS):
            yield node.test, f"(not ({ast.unparse(node.test)}))"


def _swapped(op: ast.AST) -> Iterator[Any]:
    if other := SWAPS.get(type(op)):
        yield other()


def _as(node: ast.expr | ast.stmt, **fields: object) -> Change:
    """A node with other fields."""
    changed = copy(node)
    for field, value in fields.items():
        setattr(changed, field, value)
    text = ast.unparse(changed)
    return node, text if isinstance(node, ast.stmt) else f"({text})"


def _others(value: object) -> list[object]:
    """What a constant is changed to."""
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int | float):
        return [value + 1, value - 1]
    if isinstance(value, str):
        return [f"XX{value}"]
    return [b"XX" + value] if isinstance(value, bytes) else []
