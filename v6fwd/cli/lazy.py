"""Commands that are imported when they are called.

`v6fwd --version` took 28 MB and a tenth of a second with all of them, and every process of a daemon
keeps what it has imported.
"""

from __future__ import annotations

import gc
import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import click


@dataclass(frozen=True, slots=True)
class Lazy:
    """A command: `module:name` below v6fwd.cli, and its line in the help of the group."""

    where: str
    help: str
    is_hidden: bool = False

    def load(self) -> click.Command:
        """Import it. Modules leave no garbage: looking for some took a tenth of the start."""
        module, _, name = self.where.partition(":")
        gc.disable()
        try:
            command = getattr(importlib.import_module(f"v6fwd.cli.{module}"), name)
        finally:
            gc.enable()
        assert isinstance(command, click.Command)
        return command


class HelpfulGroup(click.Group):
    """A group whose help cuts no line, and that knows what a mistyped command may have meant."""

    def lines(self, ctx: click.Context) -> dict[str, str]:
        """The commands that the help shows, and what each does."""
        commands = {name: self.get_command(ctx, name) for name in self.list_commands(ctx)}
        return {
            name: command.get_short_help_str(limit=1000)
            for name, command in commands.items()
            if command is not None and not command.hidden
        }

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table of commands."""
        with formatter.section("Commands"):
            formatter.write_dl([*self.lines(ctx).items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """click's own, with a hint for a name that is not there."""
        if args and not args[0].startswith("-") and args[0] not in self.list_commands(ctx):
            from v6fwd.model.hints import did_you_mean

            names = [*self.lines(ctx)]
            hint = did_you_mean(args[0], names) or f"; there are {', '.join(names)}"
            ctx.fail(f"No such command {args[0]!r}{hint}")
        return super().resolve_command(ctx, args)


class LazyGroup(HelpfulGroup):
    """A group of Lazy commands. Its help imports none of them."""

    def __init__(self, *args: Any, lazy: Mapping[str, Lazy], **others: Any) -> None:
        self.lazy = lazy
        super().__init__(*args, **others)

    @property
    def commands(self) -> dict[str, click.Command]:
        """All commands, for those who look through them: imports every one."""
        return {name: each.load() for name, each in self.lazy.items()}

    @commands.setter
    def commands(self, value: object) -> None:
        """click sets an empty dict."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """All names, hidden ones too."""
        return list(self.lazy)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """The command of this name."""
        return self.lazy[cmd_name].load() if cmd_name in self.lazy else None

    def lines(self, ctx: click.Context) -> dict[str, str]:  # noqa: ARG002
        """As COMMANDS has them."""
        return {name: each.help for name, each in self.lazy.items() if not each.is_hidden}
