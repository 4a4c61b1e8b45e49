"""The types of options: every error names what was typed and what would be right."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import click

from v6fwd.model import InputError
from v6fwd.model.hints import did_you_mean


class Parsed(click.ParamType[Any]):
    """What `parse` makes of a text; it raises InputError."""

    def __init__(self, name: str, parse: Callable[[str], Any]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Parse a text; a default that is no text stays as it is."""
        try:
            return self._parse(value) if isinstance(value, str) else value
        except InputError as error:
            raise click.BadParameter(str(error), ctx, param) from None


class OneOf(click.Choice[str]):
    """One of some words; a similar word is named."""

    def __init__(self, choices: Iterable[object]) -> None:
        super().__init__([str(each) for each in choices])

    def get_invalid_choice_message(self, value: Any, ctx: click.Context | None) -> str:
        """click's text, and the hint."""
        text = super().get_invalid_choice_message(value, ctx)
        return f"{text.removesuffix('.')}{did_you_mean(str(value), self.choices) or '.'}"


def whole(least: int, most: int = 10**9) -> Parsed:
    """A whole number within bounds."""

    def parse(text: str) -> int:
        number = int(text) if text.isascii() and text.isdecimal() and len(text) <= 10 else -1
        if not least <= number <= most:
            raise InputError(f"{text!r} is not a whole number from {least} to {most}")
        return number

    return Parsed("number", parse)
