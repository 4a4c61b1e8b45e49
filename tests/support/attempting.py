"""For a reactor of a test's own: derive it from this, and it treats exceptions as the real one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Attempting:
    """Has the one method."""

    def attempt(self, owner: Any, call: Callable[..., object], *words: object) -> None:
        """An exception costs its owner, and nobody else."""
        try:
            call(*words)
        except Exception as error:
            owner.on_exception(error)
