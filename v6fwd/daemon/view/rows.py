"""Forwards and held ports as rows. Pure: a status and the one before make a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from v6fwd.daemon.view.figures import Described, Rates, causes, rates

HELD = "held"
"""State of a port that is not served."""


@dataclass(frozen=True, slots=True)
class Row:
    """A forward, or a published port that is not served."""

    listen: str
    target: str
    state: str
    """open, draining or HELD."""
    mode: str
    container: str
    why: str
    """What decided the mode of a published port: label, rule, default."""
    note: str
    """Why the port is held, or that the target seems to expect another mode. "": all is well."""
    not_real: str
    """How many flows of mode `transparent` did not show the client's own address."""
    live: int
    flows: int
    errors: int
    rates: Rates

    @property
    def is_trouble(self) -> bool:
        """Whether clients are not served."""
        return bool(self.note)


class Table:
    """Makes rows of status after status; remembers the last one for the rates."""

    def __init__(self) -> None:
        self._before: dict[str, Described] = {}
        self._at = 0.0

    def rows(self, status: Mapping[str, Any], at: float) -> list[Row]:
        """The rows of a status that was taken `at` seconds of a monotonic clock."""
        seconds, before = at - self._at, self._before
        self._before = {each["listen"]: each for each in status["forwards"]}
        self._at = at
        published = {each["listen"]: each for each in status.get("published", ())}
        held = {each["listen"]: each for each in status.get("held", ())}
        rows = [
            _row(each, published, held, rates(before.get(each["listen"]), each, seconds))
            for each in status["forwards"]
        ]
        served = {row.listen for row in rows}
        rows += (_held(each, published) for each in held.values() if each["listen"] not in served)
        return rows


def _row(
    forward: Described,
    published: Mapping[str, Described],
    held: Mapping[str, Described],
    now: Rates,
) -> Row:
    listen = forward["listen"]
    of_docker = published.get(listen, {})
    instead = sorted(forward.get("not_real", {}).items())
    return Row(
        listen=listen,
        target=forward.get("target", ""),
        state=forward["state"],
        mode=str(forward.get("client_ip", "")),
        container=container(of_docker),
        why=of_docker.get("source", ""),
        note=str(forward.get("mismatch") or held.get(listen, {}).get("why", "")),
        not_real=", ".join(f"{count} {what}" for what, count in instead),
        live=forward["flows"] - forward["ended"],
        flows=forward["flows"],
        errors=causes(forward).total(),
        rates=now,
    )


def _held(held: Described, published: Mapping[str, Described]) -> Row:
    of_docker = published.get(held["listen"], {})
    return Row(
        listen=held["listen"],
        target=held.get("target", ""),
        state=HELD,
        mode="",
        container=container(of_docker),
        why=of_docker.get("source", ""),
        note=held["why"],
        not_real="",
        live=0,
        flows=0,
        errors=0,
        rates=Rates(),
    )


def container(of_docker: Described) -> str:
    """Return whose port it is, and where the tasks of a service are; "": nobody knows."""
    return ": ".join(filter(None, (of_docker.get("container", ""), of_docker.get("tasks", ""))))


def summed(rows: Iterable[Row]) -> Rates:
    """The rates of all."""
    return sum((row.rates for row in rows), Rates())


def busiest(rows: Sequence[Row], most: int) -> list[Row]:
    """The rows to show if there is room for `most`: trouble first, then those that do most."""

    def rank(row: Row) -> tuple[bool, float, int, int]:
        return row.is_trouble, row.rates.up + row.rates.down, row.live, row.flows

    return sorted(rows, key=rank, reverse=True)[:most]
