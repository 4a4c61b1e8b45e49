"""JSON: what is written is what is read, and nothing else is."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from bench.result import SCHEMA, ResultError, from_json, to_json
from tests.unit.bench.samples import peer, result, scenario

GOOD = {"rate": 10.0, "cpu": 5.0}


def whole() -> str:
    return to_json(result(scenario({"v6fwd": peer(GOOD, None), "nginx": peer(GOOD, GOOD)})))


def test_a_result_survives_its_file() -> None:
    assert to_json(from_json(whole())) == whole()


def test_the_file_names_its_schema_and_keeps_every_round() -> None:
    data = json.loads(whole())
    assert data["schema"] == SCHEMA
    assert data["scenarios"][0]["peers"]["v6fwd"]["rounds"] == [GOOD, None]


def test_values_of_a_figure_keep_the_place_of_failed_rounds() -> None:
    read = from_json(whole())
    assert read.scenarios[0].peers["v6fwd"].values("rate") == [10.0, None]
    assert read.scenarios[0].peers["v6fwd"].values("memory") == [None, None]


def test_failures_name_scenario_peer_and_reason() -> None:
    run = result(scenario({"v6fwd": peer(GOOD, None)}))
    run.checks["nginx"] = "failed: 3 bytes came back of 16"
    assert run.failures == [
        "nginx: failed: 3 bytes came back of 16",
        "connections-20, v6fwd: ab: no",
    ]


def _change(key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(data: dict[str, Any]) -> None:
        data[key] = value

    return change


def _in_peer(key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(data: dict[str, Any]) -> None:
        data["scenarios"][0]["peers"]["v6fwd"][key] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_change("schema", SCHEMA + 1), f"not a result of schema {SCHEMA}"),
        (_change("surprise", 1), "unexpected keyword argument 'surprise'"),
        (_change("scenarios", {"a": 1}), "not a result of schema"),
        (_change("rounds", 1), "connections-20, v6fwd: 2 rounds of 1"),
        (_in_peer("errors", []), "connections-20, v6fwd: 1 failed rounds, 0 errors"),
        (_in_peer("rounds", [{"speed": 1.0}, None]), r"unknown figures \['speed'\]"),
    ],
)
def test_what_is_not_ours_is_refused(
    change: Callable[[dict[str, Any]], None], message: str
) -> None:
    data = json.loads(whole())
    change(data)
    with pytest.raises(ResultError, match=message):
        from_json(json.dumps(data))


@pytest.mark.parametrize("text", ["", "{", "[]", "7"])
def test_other_files_are_refused(text: str) -> None:
    with pytest.raises(ResultError, match="not"):
        from_json(text)
