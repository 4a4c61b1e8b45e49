"""The commands, one file each: they parse, call and print."""

from __future__ import annotations

TYPE_CHECKING = False  # `typing` takes 2 ms of a start; mypy knows the name

if TYPE_CHECKING:
    from v6fwd.cli.commands import COMMANDS as COMMANDS
    from v6fwd.cli.commands import main as main


def __getattr__(name: str) -> object:
    """`main`, the group of all commands, when it is needed: `quick` does without click."""
    if name not in ("COMMANDS", "main"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from v6fwd.cli import commands

    return getattr(commands, name)
