"""What a run writes down, to JSON and back. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

SCHEMA = 1
"""The number of this form; a reader refuses another."""


class ResultError(Exception):
    """A file that is no result of ours; the text is one line."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One number that a round of a scenario gives.

    `column` is where the summary shows its ratio ("" for nowhere), `row` a name of its own there
    for a figure that would share a cell with another.
    """

    key: str
    title: str
    unit: str
    higher_is_better: bool = False
    column: str = ""
    row: str = ""


@dataclass(slots=True)
class PeerResult:
    """The rounds of one peer in one scenario; a failed round is None and has an error."""

    rounds: list[dict[str, float] | None] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    configs: dict[str, str] = field(default_factory=dict)

    def values(self, key: str) -> list[float | None]:
        """A figure's value in each round."""
        return [None if one is None else one.get(key) for one in self.rounds]


@dataclass(slots=True)
class ScenarioResult:
    """A scenario's rounds; `family`, `axis` and `at` place it on a curve of growing load."""

    name: str
    title: str
    work: str
    family: str
    axis: str
    at: int
    figures: list[Figure]
    peers: dict[str, PeerResult] = field(default_factory=dict)

    def figure(self, key: str) -> Figure | None:
        """The figure of that key, where the scenario has it."""
        return next((figure for figure in self.figures if figure.key == key), None)


@dataclass(slots=True)
class Result:
    """One run."""

    date: str
    command: str
    place: str
    quick: bool
    rounds: int
    machine: dict[str, str]
    versions: dict[str, str]
    left_out: dict[str, str]
    checks: dict[str, str] = field(default_factory=dict)
    scenarios: list[ScenarioResult] = field(default_factory=list)

    @property
    def failures(self) -> list[str]:
        """What went wrong, a line each."""
        bad = [f"{peer}: {word}" for peer, word in self.checks.items() if not is_good(word)]
        for scenario in self.scenarios:
            for name, peer in scenario.peers.items():
                bad += [f"{scenario.name}, {name}: {error}" for error in peer.errors]
        return bad


def is_good(check: str) -> bool:
    """Whether the word of a byte check says that all came through."""
    return check.startswith("sha256 ")


def to_json(result: Result) -> str:
    """The text of a result's file."""
    return json.dumps({"schema": SCHEMA, **asdict(result)}, indent=1, ensure_ascii=False) + "\n"


def from_json(text: str) -> Result:
    """Read a result's file. Raises ResultError."""
    try:
        data = json.loads(text)
    except ValueError as error:
        raise ResultError(f"not JSON: {error}") from None
    if not isinstance(data, dict) or data.pop("schema", None) != SCHEMA:
        raise ResultError(f"not a result of schema {SCHEMA}")
    try:
        data["scenarios"] = [_scenario(one) for one in data["scenarios"]]
        result = Result(**data)
        check(result)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ResultError(f"not a result of schema {SCHEMA}: {error}") from None
    return result


def check(result: Result) -> None:
    """Hold a result against its own rules. Raises ResultError."""
    for scenario in result.scenarios:
        keys = {figure.key for figure in scenario.figures}
        for name, peer in scenario.peers.items():
            where = f"{scenario.name}, {name}"
            if len(peer.rounds) > result.rounds:
                raise ResultError(f"{where}: {len(peer.rounds)} rounds of {result.rounds}")
            failed = sum(one is None for one in peer.rounds)
            if failed != len(peer.errors):
                raise ResultError(f"{where}: {failed} failed rounds, {len(peer.errors)} errors")
            for one in peer.rounds:
                if one is not None and not keys.issuperset(one):
                    raise ResultError(f"{where}: unknown figures {sorted(set(one) - keys)}")


def _scenario(data: Mapping[str, Any]) -> ScenarioResult:
    whole = dict(data)
    whole["figures"] = [Figure(**one) for one in whole["figures"]]
    whole["peers"] = {name: PeerResult(**one) for name, one in whole["peers"].items()}
    return ScenarioResult(**whole)
