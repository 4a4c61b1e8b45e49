"""`v6fwd config show`: every key with the value that is in force, and where that comes from.

The text is TOML. Read back, it gives the same configuration; included files are merged into it.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from v6fwd.config.keys import DOCKER_TRANSPARENT, FLOW_LIMITS, GUARD, MODES, TABLES, TRANSPARENT
from v6fwd.config.reader import Place, Reader, Values
from v6fwd.config.settings import Config, ConfigError, Control, Docker, Metrics
from v6fwd.model import Forward, Guard, Limits, Transparent

_SINGLE = ("[defaults]", "[control]", "[metrics]", "[docker]")
_COLUMN = 44
"""Where comments begin, behind shorter lines."""


def show(path: Path, is_local: Callable[[bytes], bool]) -> Iterator[str]:
    """Return the lines for a main file, which may be a pipe; see `load`. Raises ConfigError."""
    reader = Reader(at_start=True)
    config = reader.read(path)
    reader.refuse_loops(config.forwards, is_local)
    if reader.mistakes:
        raise ConfigError(reader.mistakes)
    return _Show(reader, path).lines()


class _Show:
    """The lines of a configuration without mistakes."""

    def __init__(self, reader: Reader, path: Path) -> None:
        self._reader = reader
        self._path = path
        self._said = {(place.path, place.header, place.number): place for place in reader.tables}
        self._defaults = _defaults()

    def lines(self) -> Iterator[str]:
        """Yield all."""
        yield "# In force, with where each value comes from. Included files are merged."
        yield from self._table("the main file", [self._place("")], self._defaults[""])
        for header in _SINGLE:
            yield from ("", header)
            yield from self._table(header, [self._place(header)], self._defaults[header])
        for place in self._all("[[docker.rule]]"):
            yield from ("", place.header)
            yield from self._table(place.header, [place], {})
        for place in self._all("[[forward]]"):
            yield from ("", place.header)
            defaults = [place.path, *([self._path] if place.path != self._path else ())]
            layers = [place, *(self._place("[defaults]", path) for path in defaults)]
            yield from self._table(place.header, layers, self._defaults["[defaults]"])

    def _place(self, header: str, path: Path | None = None) -> Place:
        path = path or self._path
        return self._said.get((path, header, 1), Place(path, header))

    def _all(self, header: str) -> Iterator[Place]:
        return (place for place in self._reader.tables if place.header == header)

    def _table(
        self, table: str, layers: Sequence[Place], defaults: Mapping[str, Any]
    ) -> Iterator[str]:
        """Yield the keys of a table; the first of the layers that has a key decides."""
        for key in TABLES[table]:
            place = next((each for each in layers if key in self._values(each)), None)
            if key == "include":
                continue
            if place is not None:
                yield _line(key, self._values(place)[key], self._source(place, key))
            elif key in defaults:
                yield _line(key, defaults[key], _default_source(table, key))

    def _values(self, place: Place) -> Values:
        return self._reader.tables.get(place, {})

    def _source(self, place: Place, key: str) -> str:
        number = f" {place.number}" if place.header.startswith("[[") else ""
        table = f"{place.header}{number} of " if place.header else ""
        line = self._reader.line(place, key)  # 0 for a key of an inline table
        return f"{table}{_on_a_line(place.path)}{f' line {line}' if line else ''}"


def _default_source(table: str, key: str) -> str:
    if (table, key) != ("[docker]", "host"):
        return "default"
    return "DOCKER_HOST" if Docker().host == os.environ.get("DOCKER_HOST") else "default"


def _line(key: str, value: Any, source: str) -> str:
    return f"{f'{key} = {_toml(value)}':<{_COLUMN}}  # {source}"


def _defaults() -> dict[str, dict[str, Any]]:
    """Return the default of every key that has one, by table."""
    limits = _of(Limits)
    return {
        "": {**_of(Config), **limits},
        "[defaults]": {
            **{key: _of(Forward)[key] for key in MODES},
            **_of_transparent(Transparent(), TRANSPARENT),
            **{key: limits[key] for key in FLOW_LIMITS},
            **{key: _of(Guard)[key] for key in GUARD},
        },
        "[control]": _of(Control),
        "[metrics]": _of(Metrics),
        "[docker]": {
            **_of(Docker),
            **_of_transparent(Docker().transparent, TRANSPARENT, DOCKER_TRANSPARENT),
        },
    }


def _of(kind: type) -> dict[str, Any]:
    """Return the defaults of a dataclass, by key."""
    found = {}
    for field in fields(kind):
        if field.default_factory is not MISSING:
            found[field.name.replace("_", "-")] = field.default_factory()
        elif field.default is not MISSING:
            found[field.name.replace("_", "-")] = field.default
    return found


def _of_transparent(
    values: Transparent, keys: Iterable[str], shown: Iterable[str] | None = None
) -> dict[str, Any]:
    named = {
        key: getattr(values, field.name)
        for key, field in zip(keys, fields(Transparent), strict=True)
    }
    return {key: named[key] for key in shown or named}


def _toml(value: Any) -> str:
    """Write a value as TOML 1.0 has it, on one line."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        is_whole = math.isfinite(value) and value == int(value) and abs(value) < 1e15
        return str(int(value)) if is_whole else repr(value)
    if isinstance(value, int):
        return str(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    text = "" if value is None else str(value)
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _on_a_line(path: Path) -> str:
    """The path, escaped where a comment cannot have it."""
    return str(path) if str(path).isprintable() else json.dumps(str(path))
