"""Modules that are imported when something of them is used, for others that import them at once."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from v6fwd.model.lean import Any


class _Later(ModuleType):
    """Stands for a module that is imported when something of it is used."""

    def __getattr__(self, name: str) -> Any:
        from importlib import import_module

        return getattr(import_module(self.__name__), name)


@contextmanager
def later(name: str) -> Iterator[None]:
    """Let what is imported here have that module later. Whoever has imported it before keeps it."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = _Later(name)
    try:
        yield
    finally:
        del sys.modules[name]


with later("inspect"):  # for a class without docstring: 1.3 MB, 4 ms
    import dataclasses  # noqa: F401
