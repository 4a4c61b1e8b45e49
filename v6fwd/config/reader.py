"""Files, tables, and every mistake in them. marshmallow walks a table's keys."""

from __future__ import annotations

import functools
import glob
import json
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, TypeVar

from marshmallow import RAISE, Schema, ValidationError
from marshmallow.fields import Field

from v6fwd.config.keys import (
    FLOW_LIMITS,
    GUARD,
    MODES,
    PROCESS_LIMITS,
    REQUIRED,
    TABLES,
    TRANSPARENT,
    Parse,
    unknown_key,
)
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

_SHOWN = 60
"""Characters of a wrong value in an error."""
_BARE_RE = re.compile(r"[A-Za-z0-9_-]+")  # TOML 1.0, "Keys"

Values = dict[str, Any]
"""What a table said: key to parsed value."""
_T = TypeVar("_T")
_TRANSPARENT = Transparent()


def read(path: Path) -> Config:
    """See v6fwd.config.load."""
    reader = _Reader()
    config = reader.read(path)
    if reader.mistakes:
        raise ConfigError(reader.mistakes)
    return config


class _Value(Field[Any]):
    """One key of a table, whose values `parse` knows."""

    def __init__(self, parse: Parse, example: str | None) -> None:
        super().__init__(required=example is not None)
        self.error_messages["required"] = f"is missing; write {example}"
        self._parse = parse

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> Any:
        try:
            return self._parse(value)
        except InputError as error:
            raise ValidationError(str(error)) from None


@functools.cache
def _schema(table: str) -> Schema:
    required = REQUIRED.get(table, {})
    keys = {key: _Value(parse, required.get(key)) for key, parse in TABLES[table].items()}
    return Schema.from_dict(dict(keys))(unknown=RAISE)


class _Reader:
    """Goes through all files, whatever is wrong in them."""

    def __init__(self) -> None:
        self.mistakes: list[str] = []
        self._places: dict[Endpoint, str] = {}
        self._shared: dict[Any, Any] = {}

    def read(self, path: Path) -> Config:
        """The main file and what it includes; not to be used where there are mistakes."""
        document = self._document(path)
        defaults = self._table(path, "defaults", document)
        rules = self._rules(path, document.get("docker"))
        parts = {name: self._table(path, name, document) for name in ("control", "docker")}
        metrics = self._table(path, "metrics", document)
        tables = document.pop("forward", [])
        top = self._checked(str(path), "the main file", document)
        base = {key: value for key, value in top.items() if key in PROCESS_LIMITS} | defaults
        forwards = self._forwards(path, tables, base)
        for file in [*self._included(path, top.get("include", []))]:
            forwards += self._part(file, base)
        return Config(
            forwards=tuple(forwards),
            control=Control(**parts["control"]),
            metrics=Metrics(**metrics),
            docker=_docker(parts["docker"], rules),
            limits=_limits(base),
            **_arguments(top, ("workers", "user", "log-format", "log-flows")),
        )

    # -- files --

    def _part(self, path: Path, base: Values) -> list[Forward]:
        """An included file: its forwards, and defaults that go for it alone."""
        document = self._document(path)
        defaults = self._table(path, "defaults", document)
        tables = document.pop("forward", [])
        self._checked(str(path), "an included file", document)
        return self._forwards(path, tables, base | defaults)

    def _document(self, path: Path) -> Values:
        try:
            return tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            self._tell(f"{path}: cannot be read: {(error.strerror or str(error)).lower()}")
        except UnicodeDecodeError as error:
            self._tell(f"{path}: not UTF-8: byte {error.start + 1}; TOML must be")
        except (ValueError, RecursionError) as error:  # ValueError: thousands of digits, too
            self._tell(f"{path}: not TOML: {error}")
        return {}

    def _included(self, path: Path, patterns: list[str]) -> Iterator[Path]:
        """The files that the patterns stand for, each once, in the order of their names."""
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
        """Take the table `[name]` out of the document."""
        table = document.pop(name, {})
        if not isinstance(table, dict):
            self._tell(
                f"{path}: {name} = {_shown(table)}: not a table; write [{name}] above its keys"
            )
            return {}
        return self._checked(f"{path}: [{name}]", f"[{name}]", table)

    def _checked(self, place: str, table: str, values: Values) -> Values:
        """The values that are right; the others are told."""
        try:
            return dict(_schema(table).load(values))
        except ValidationError as error:
            told = error.messages_dict
            for key in dict.fromkeys((*values, *told)):  # in the file's order
                if key in told:
                    known = key in TABLES[table]
                    self._wrong(
                        place, key, values, told[key][0] if known else unknown_key(table, key)
                    )
            return error.valid_data if isinstance(error.valid_data, dict) else {}

    def _wrong(self, place: str, key: str, values: Values, why: str) -> None:
        name = key if _BARE_RE.fullmatch(key) else _shown(key)
        if key not in values:  # what is missing has no value
            self._tell(f"{place}: {name} {why}")
        else:
            self._tell(f"{place}: {name} = {_shown(values[key])}: {why}")

    def _tell(self, mistake: str) -> None:
        self.mistakes.append(" ".join(mistake.split("\n")))

    def _rules(self, path: Path, docker: object) -> tuple[Rule, ...]:
        """Take the tables [[docker.rule]] out of [docker]."""
        tables = docker.pop("rule", []) if isinstance(docker, dict) else []
        if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
            self._tell(f"{path}: docker.rule: write [[docker.rule]] above each one's keys")
            return ()
        rules = []
        for number, table in enumerate(tables, 1):
            values = self._checked(f"{path}: [[docker.rule]] {number}", "[[docker.rule]]", table)
            ports, protocol = values.pop("host-port", (None, None))
            if "client-ip" in values:
                named = _arguments(values, values)
                rules.append(Rule(host_ports=ports, protocol=protocol, **named))
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

    def _forward(self, place: str, values: Values) -> list[Forward]:
        """The forwards of one table: one, or one for each port and protocol."""
        try:
            pairs = pair_up(values["listen"], values["target"])
        except InputError as error:
            self._tell(f"{place}: listen and target: {error}")
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

    def _refuse_twins(self, place: str, values: Values, forwards: list[Forward]) -> None:
        """Two forwards on one endpoint; one word for each two tables."""
        told: set[str] = set()
        for forward in forwards:
            other = self._places.setdefault(forward.listen, place)
            if other != place and other not in told:
                told.add(other)
                self._wrong(
                    place, "listen", values, f"{forward.listen} is given already in {other}"
                )

    def _one(self, value: _T) -> _T:
        """The same object for what is equal: many forwards share few limits and guards."""
        found: _T = self._shared.setdefault(value, value)
        return found


def _place(path: Path, number: int, table: Mapping[str, object]) -> str:
    listen = table.get("listen")
    name = f" ({listen[:_SHOWN]})" if isinstance(listen, str) else ""
    return f"{path}: [[forward]] {number}{name}"


def _limits(values: Values) -> Limits:
    return Limits(**_arguments(values, (*PROCESS_LIMITS, *FLOW_LIMITS)))


def _guard(values: Values) -> Guard:
    return Guard(**_arguments(values, GUARD))


def _transparent(values: Values, base: Transparent = _TRANSPARENT) -> Transparent:
    names = (each.name for each in fields(Transparent))
    said = zip(TRANSPARENT, names, strict=True)
    return replace(base, **{name: values[key] for key, name in said if key in values})


def _docker(values: Values, rules: tuple[Rule, ...]) -> Docker:
    plain = Docker(**_arguments(values, ("host", "transparent-address")), rules=rules)
    return replace(plain, transparent=_transparent(values, plain.transparent))


def _arguments(values: Values, keys: Iterable[str]) -> Values:
    """Keys as the arguments that they are in Python, those that are there."""
    return {key.replace("-", "_"): values[key] for key in keys if key in values}


def _shown(value: object) -> str:
    """A value as TOML might have it, on one line and not too long."""
    try:
        text = json.dumps(value, ensure_ascii=False, default=str)
    except (ValueError, RecursionError):  # thousands of digits or of tables in tables
        return "..."
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
