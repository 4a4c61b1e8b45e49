"""dataclasses without `inspect`, which it needs for a class that has no docstring: 1.3 MB, 4 ms.

For processes of which there are many, and for a quick start. Whoever uses it gets it.
"""

import sys
from types import ModuleType
from typing import Any


class _Later(ModuleType):
    """Stands for a module that is imported when something of it is used."""

    def __getattr__(self, name: str) -> Any:
        from importlib import import_module

        return getattr(import_module(self.__name__), name)


if "inspect" not in sys.modules:
    sys.modules["inspect"] = _Later("inspect")
    import dataclasses  # noqa: F401

    del sys.modules["inspect"]
