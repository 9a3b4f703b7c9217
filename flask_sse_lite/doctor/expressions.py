"""Expressions: the value of an expression of a Python file, without running the file.

Here lives which expressions can be followed: numbers and texts, arithmetic, names that
are known, the number of processors, and the environment, as such files of settings have
them. Any other expression, and whatever could take long, has no value here.
"""

from __future__ import annotations

import ast
import operator
import os
from collections.abc import Callable, Mapping
from typing import Any

_OPERATORS: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
}

_BUILTINS: Mapping[str, Callable[..., Any]] = {
    function.__name__: function for function in (int, float, str, max, min)
}

#: Functions that say how many processors there are.
_COUNTS = ("os.cpu_count", "multiprocessing.cpu_count")

#: Functions that give a variable of the environment.
_GETTERS = ("os.getenv", "os.environ.get")


class Evaluator:
    """What is known at a place of the file. It changes as the file is read on."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        #: The environment.
        self.variables = variables
        #: The values of names.
        self.values: dict[str, Any] = {}
        #: What imported names stand for, such as ``os`` or ``os.cpu_count``.
        self.imported: dict[str, str] = {}
        #: Names that the file binds: they are no longer Python's own.
        self.bound: set[str] = set()

    def forget(self, name: str) -> None:
        """A name stands for something else from here on."""
        self.values.pop(name, None)
        self.imported.pop(name, None)
        self.bound.add(name)

    def note_import(self, statement: ast.stmt) -> None:
        """Note what the names of an import stand for."""
        if isinstance(statement, ast.Import):
            for alias in statement.names:
                whole = alias.name if alias.asname else alias.name.partition(".")[0]
                self.imported[alias.asname or whole] = whole
        elif isinstance(statement, ast.ImportFrom) and not statement.level:
            for alias in statement.names:
                name = alias.asname or alias.name
                self.imported[name] = f"{statement.module}.{alias.name}"

    def value(self, node: ast.expr) -> Any:
        """What an expression comes to.

        :raises ValueError: if that cannot be told.
        """
        try:
            return self._value(node)
        except (ArithmeticError, TypeError, LookupError) as error:
            raise ValueError(str(error)) from error

    def _value(self, node: ast.expr) -> Any:
        if isinstance(node, ast.Constant):
            return node.value
        if isinstance(node, ast.Name):
            return self.values[node.id]
        if isinstance(node, (ast.List, ast.Tuple)):
            return [self._value(element) for element in node.elts]
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            return -self._number(node.operand)
        if isinstance(node, ast.BinOp):
            # A text could be made long by a number.
            left, right = self._number(node.left), self._number(node.right)
            return _OPERATORS[type(node.op)](left, right)
        if isinstance(node, ast.BoolOp) and isinstance(node.op, ast.Or):
            found = None
            for part in node.values:
                if found := self._value(part):
                    break
            return found
        if isinstance(node, ast.Subscript) and self._named(node.value) == "os.environ":
            return self.variables[self._value(node.slice)]
        if isinstance(node, ast.Call) and not node.keywords:
            return self._called(node)
        raise ValueError("an expression that is not followed")

    def _number(self, node: ast.expr) -> int | float:
        found = self._value(node)
        if not isinstance(found, (int, float)):
            raise ValueError("no number")
        return found

    def _called(self, node: ast.Call) -> Any:
        name = self._named(node.func)
        words = [self._value(word) for word in node.args]
        if name in _COUNTS and not words:
            return os.cpu_count() or 1
        if name in _GETTERS:
            return self.variables.get(*words)
        if isinstance(node.func, ast.Name) and node.func.id not in self.bound:
            return _BUILTINS[node.func.id](*words)
        raise ValueError("a function that is not followed")

    def _named(self, node: ast.expr) -> str:
        """What an imported name stands for, with dots; empty for another expression."""
        if isinstance(node, ast.Name):
            return self.imported.get(node.id, "")
        if isinstance(node, ast.Attribute) and (whole := self._named(node.value)):
            return f"{whole}.{node.attr}"
        return ""
