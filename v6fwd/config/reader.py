"""Reads the files and their tables, and reports every mistake in them at once.

One loop checks a table's keys. marshmallow did the same; it took 1.8 MB (PSS of a daemon with two
workers) and 30 ms of the start.
"""

from __future__ import annotations

import errno
import glob
import json
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from v6fwd.config.files import read_file
from v6fwd.config.keys import (
    FLOW_LIMITS,
    GUARD,
    METRICS,
    MODES,
    PROCESS_LIMITS,
    REQUIRED,
    SWARM,
    TABLES,
    TRANSPARENT,
    unknown_key,
)
from v6fwd.config.lines import Lines, find_lines
from v6fwd.config.rules import Rule
from v6fwd.config.settings import Config, ConfigError, Control, Docker, Metrics
from v6fwd.model import (
    Endpoint,
    Forward,
    Guard,
    InputError,
    Limits,
    Transparent,
    pair_up,
    refuse_misfits,
)
from v6fwd.model.loops import is_loopback, looping

_HINTS = {
    errno.ENOENT: "; write one, as `v6fwd config example` is, or name it with -c",
    errno.EACCES: "; run v6fwd as a user who may read it",
}
_SHOWN = 60
"""Characters of a wrong value in an error."""
_BARE_RE = re.compile(r"[A-Za-z0-9_-]+")  # TOML 1.0, "Keys"

Values = dict[str, Any]
"""What a table said: key to parsed value."""
_T = TypeVar("_T")
_TRANSPARENT = Transparent()


def read(
    path: Path, *, at_start: bool = False, is_local: Callable[[bytes], bool] = is_loopback
) -> Config:
    """Read `path` and the files that it includes, as `load` does. Raises ConfigError."""
    reader = Reader(at_start=at_start)
    config = reader.read(path)
    reader.refuse_loops(config.forwards, is_local)
    if reader.mistakes:
        raise ConfigError(reader.mistakes)
    return config


@dataclass(frozen=True, slots=True)
class Place:
    """A table: its file, its header ("" above all tables), and which one of several it is."""

    path: Path
    header: str = ""
    number: int = 1
    listen: str = ""
    """Of a forward: what it listens on."""

    def __str__(self) -> str:
        if not self.header:
            return str(self.path)
        number = f" {self.number}" if self.header.startswith("[[") else ""
        return f"{self.path}: {self.header}{number}{f' ({self.listen})' if self.listen else ''}"


class Reader:
    """Reads all files to their end, whatever is wrong in them."""

    def __init__(self, *, at_start: bool) -> None:
        self.mistakes: list[str] = []
        self.tables: dict[Place, Values] = {}
        """What each table said, in the order of reading."""
        self._at_start = at_start
        self._texts: dict[Path, str] = {}
        self._lines: dict[Path, Lines] = {}
        """Where keys stand, for files with a mistake."""
        self._places: dict[Endpoint, Place] = {}
        self._shared: dict[Any, Any] = {}

    def read(self, path: Path) -> Config:
        """Read the main file and what it includes. The result is void if there are mistakes."""
        document = self._document(path, any_kind=self._at_start)
        defaults = self._table(path, "defaults", document)
        rules = self._rules(path, document.get("docker"))
        parts = {name: self._table(path, name, document) for name in ("control", "docker")}
        metrics = self._table(path, "metrics", document)
        tables = document.pop("forward", [])
        top = self._checked(Place(path), "the main file", document)
        base = {key: value for key, value in top.items() if key in PROCESS_LIMITS} | defaults
        forwards = self._forwards(path, tables, base)
        for file in [*self._included(path, top.get("include", []))]:
            forwards += self._part(file, base)
        return Config(
            forwards=tuple(forwards),
            control=Control(**parts["control"]),
            metrics=self._metrics(path, metrics),
            docker=_docker(parts["docker"], rules, _guard(defaults)),
            limits=_limits(base),
            **_arguments(top, ("workers", "engine", "user", "log-format", "log-flows")),
        )

    def _metrics(self, path: Path, values: Values) -> Metrics:
        metrics = Metrics(**_arguments(values, METRICS))
        key, why = metrics.mistake()
        if why:
            self._wrong(Place(path, "[metrics]"), key, values, why)
        return metrics

    # -- files --

    def _part(self, path: Path, base: Values) -> list[Forward]:
        """Read an included file: its forwards, and defaults that apply to it only."""
        document = self._document(path)
        defaults = self._table(path, "defaults", document)
        tables = document.pop("forward", [])
        self._checked(Place(path), "an included file", document)
        return self._forwards(path, tables, base | defaults)

    def _document(self, path: Path, *, any_kind: bool = False) -> Values:
        try:
            self._texts[path] = read_file(path, any_kind=any_kind)
            return tomllib.loads(self._texts[path])
        except OSError as error:
            why = (error.strerror or str(error)).lower()
            hint = _HINTS.get(error.errno or 0, "")
            self._tell(f"{path}: cannot be read: {why}{hint}")
        except InputError as error:
            self._tell(f"{path}: cannot be read: {error}")
        except UnicodeDecodeError as error:
            self._tell(f"{path}: not UTF-8: byte {error.start + 1}; TOML must be")
        except (ValueError, RecursionError) as error:  # ValueError: thousands of digits, too
            self._tell(f"{path}: not TOML: {error}")
        return {}

    def _included(self, path: Path, patterns: list[str]) -> Iterator[Path]:
        """Expand the patterns: each file once, sorted by name."""
        seen = {path.resolve()}
        for pattern in patterns:
            names = sorted(glob.glob(pattern, root_dir=path.parent))
            if not names and not re.search(r"[*?[]", pattern):
                self._tell(f"{path}: include = {_shown(pattern)}: there is no such file")
            for file in (path.parent / name for name in names):
                if file.resolve() not in seen:
                    seen.add(file.resolve())
                    yield file

    # -- tables --

    def _table(self, path: Path, name: str, document: Values) -> Values:
        """Remove the table `[name]` from the document and check it."""
        table = document.pop(name, {})
        if not isinstance(table, dict):
            self._tell(
                f"{path}: {name} = {_shown(table)}: not a table; write [{name}] above its keys"
            )
            return {}
        return self._checked(Place(path, f"[{name}]"), f"[{name}]", table)

    def _checked(self, place: Place, table: str, values: Values) -> Values:
        """Return the valid values; report a mistake for each of the others."""
        self.tables[place] = values
        good: Values = {}
        for key, value in values.items():
            parse = TABLES[table].get(key)
            try:
                if parse is None:
                    raise InputError(unknown_key(table, key))
                good[key] = parse(value)
            except InputError as error:
                self._wrong(place, key, values, str(error))
        for key, example in REQUIRED.get(table, {}).items():
            if key not in values:
                self._wrong(place, key, values, f"is missing; write {example}")
        return good

    def _wrong(self, place: Place, key: str, values: Values, why: str) -> None:
        name = key if _BARE_RE.fullmatch(key) else _shown(key)
        if key not in values:  # what is missing has no value
            self._tell_at(place, f"{name} {why}")
        else:
            self._tell_at(place, f"{name} = {_shown(values[key])}: {why}", key)

    def _tell_at(self, place: Place, mistake: str, key: str = "") -> None:
        """Report a mistake with the line of its key, else of its table."""
        line = self.line(place, key)
        self._tell(f"{place}: {mistake}{f' (line {line})' if line else ''}")

    def line(self, place: Place, key: str) -> int:
        """Return the line of a key, else of its table; 0 where that is not known."""
        if place.path not in self._lines:
            self._lines[place.path] = find_lines(self._texts.get(place.path, ""))
        lines = self._lines[place.path].get((place.header, place.number))
        return lines.keys.get(key, lines.line) if lines is not None else 0

    def _tell(self, mistake: str) -> None:
        self.mistakes.append(" ".join(mistake.split("\n")))

    def _rules(self, path: Path, docker: object) -> tuple[Rule, ...]:
        """Remove the tables [[docker.rule]] from [docker] and check them."""
        tables = docker.pop("rule", []) if isinstance(docker, dict) else []
        if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
            self._tell(f"{path}: docker.rule: write [[docker.rule]] above each one's keys")
            return ()
        rules = []
        for number, table in enumerate(tables, 1):
            place = Place(path, "[[docker.rule]]", number)
            values = self._checked(place, "[[docker.rule]]", table)
            ports, protocol = values.pop("host-port", (None, None))
            guard = _arguments(values, GUARD)
            if "client-ip" in values:
                named = _arguments(values, values.keys() - GUARD.keys())
                rules.append(
                    Rule(host_ports=ports, protocol=protocol, guard=tuple(guard.items()), **named)
                )
        return tuple(rules)

    # -- forwards --

    def _forwards(self, path: Path, tables: Any, base: Values) -> list[Forward]:
        if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
            self._tell(
                f"{path}: forward: not a list of tables; write [[forward]] above each one's keys"
            )
            return []
        forwards: list[Forward] = []
        for number, table in enumerate(tables, 1):
            place = _place(path, number, table)
            values = self._checked(place, "[[forward]]", table)
            if REQUIRED["[[forward]]"].keys() <= values.keys():
                forwards += self._forward(place, base | values)
        return forwards

    def _forward(self, place: Place, values: Values) -> list[Forward]:
        """Return the forwards of one table: one for each port and protocol."""
        try:
            pairs = pair_up(values["listen"], values["target"])
        except InputError as error:
            self._tell_at(place, f"listen and target: {error}", "target")
            return []
        more = _arguments(values, MODES)
        for name, part in (("limits", _limits), ("guard", _guard), ("transparent", _transparent)):
            more[name] = self._one(part(values))
        forwards = [Forward(*pair, **more) for pair in pairs]
        try:
            refuse_misfits(forwards)
        except InputError as error:
            self._wrong(place, "client-ip", values, str(error))
        self._refuse_twins(place, values, forwards)
        return forwards

    def _refuse_twins(self, place: Place, values: Values, forwards: list[Forward]) -> None:
        """Report forwards on one endpoint, once for each pair of tables."""
        told: set[Place] = set()
        for forward in forwards:
            other = self._places.setdefault(forward.listen, place)
            if other != place and other not in told:
                told.add(other)
                where = f"{other}, line {self.line(other, 'listen')}"
                self._wrong(
                    place, "listen", values, f"{forward.listen} is given already in {where}"
                )

    def refuse_loops(self, forwards: Sequence[Forward], is_local: Callable[[bytes], bool]) -> None:
        """Report forwards that lead back to themselves, one for each table."""
        found = {self._places[forward.listen]: forward for forward in looping(forwards, is_local)}
        for place, forward in found.items():
            target = {"target": str(forward.target)}
            self._wrong(place, "target", target, f"it leads back to {forward.listen} itself")

    def _one(self, value: _T) -> _T:
        """Return one object for equal values: many forwards share few limits and guards."""
        found: _T = self._shared.setdefault(value, value)
        return found


def _place(path: Path, number: int, table: Mapping[str, object]) -> Place:
    listen = table.get("listen")
    return Place(path, "[[forward]]", number, listen[:_SHOWN] if isinstance(listen, str) else "")


def _limits(values: Values) -> Limits:
    return Limits(**_arguments(values, (*PROCESS_LIMITS, *FLOW_LIMITS)))


def _guard(values: Values) -> Guard:
    return Guard(**_arguments(values, GUARD))


def _transparent(values: Values, base: Transparent = _TRANSPARENT) -> Transparent:
    names = (each.name for each in fields(Transparent))
    said = zip(TRANSPARENT, names, strict=True)
    return replace(base, **{name: values[key] for key, name in said if key in values})


def _docker(values: Values, rules: tuple[Rule, ...], guard: Guard) -> Docker:
    named = _arguments(values, (*SWARM, "host", "transparent-address"))
    plain = Docker(**named, rules=rules, guard=guard)
    return replace(plain, transparent=_transparent(values, plain.transparent))


def _arguments(values: Values, keys: Iterable[str]) -> Values:
    """Return the keys that are set, under their Python names."""
    return {key.replace("-", "_"): values[key] for key in keys if key in values}


def _shown(value: object) -> str:
    """Format a value on one line, cut to _SHOWN characters."""
    try:
        text = json.dumps(value, ensure_ascii=False, default=str)
    except (ValueError, RecursionError):  # thousands of digits or of tables in tables
        return "..."
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
