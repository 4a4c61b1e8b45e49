"""Regular expressions that are compiled when they are first used: 0.1 ms each of a start.

`re` is imported then, too: another 1.2 ms. A relay of plain addresses uses none.
"""

from __future__ import annotations

from v6fwd.model.lean import Any

_METHODS = ("fullmatch", "match", "search")


class Lazy:
    """A pattern; its methods are those of re.Pattern: fullmatch, match, search."""

    def __init__(self, pattern: str | bytes, flags: int = 0) -> None:
        self._made_of: tuple[Any, int] = pattern, flags

    def __getattr__(self, name: str) -> Any:
        """Only the first use of a method comes here: from then on the object has it itself."""
        if name not in _METHODS:
            raise AttributeError(name)
        self.compile()
        return getattr(self, name)

    def compile(self) -> None:
        """Do it now."""
        import re

        compiled = re.compile(*self._made_of)
        for name in _METHODS:
            setattr(self, name, getattr(compiled, name))
