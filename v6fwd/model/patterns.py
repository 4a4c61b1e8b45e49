"""Regular expressions that are compiled when they are first used: 0.1 ms each of a start.

`re` is imported then, too: another 1.2 ms. A relay of plain addresses uses none.
"""

from __future__ import annotations

from v6fwd.model.lean import Any


class Lazy:
    """A pattern; its methods are those of re.Pattern."""

    def __init__(self, pattern: str | bytes, flags: int = 0) -> None:
        self._made_of: tuple[Any, int] = pattern, flags

    def __getattr__(self, name: str) -> Any:
        """Only the first use of a method comes here: from then on the object has it itself."""
        if name.startswith("_"):
            raise AttributeError(name)
        import re

        method = getattr(re.compile(*self._made_of), name)
        setattr(self, name, method)
        return method
