"""Ends and causes: what operators and their dashboards know them by stays as it is."""

from __future__ import annotations

import errno
import json
import marshal
import os

import pytest

from v6fwd.errors import reason
from v6fwd.relay.counters import Counters
from v6fwd.relay.ends import Cause, End, cause_of, end_of

PROMISED = {
    "closed": ("closed", False),
    "closed before a header": ("closed", False),
    "closed before a request": ("closed", False),
    "no request in time": ("no-request", False),
    "expired": ("expired", False),
    "idle timeout": ("idle", False),
    "tunnel timeout": ("idle", False),
    "half-closed timeout": ("half-closed", False),
    "banned": ("banned", False),
    "ended by v6fwd flows --kill": ("killed", False),
    "an end acknowledges nothing": ("dead-peer", False),
    "target did not answer in time": ("no-answer", True),
    "stopped": ("cut", False),
    "reset by client": ("reset-by-client", False),
    "reset by target": ("reset-by-target", False),
    "refused": ("refused", True),
    "target failed": ("target-failed", True),
    "target closed without an answer": ("no-answer", True),
    "target closed in the middle of a response": ("cut-answer", True),
    "target": ("bad-answer", True),
    "evicted": ("evicted", True),
    "internal error": ("internal-error", True),
    "cut at stop": ("cut", True),
    "lost with its worker": ("lost", True),
}
"""Text in the log and in `status --json`: label of the metric, and whether it is an error."""


def test_texts_labels_and_errors_are_the_promised_ones() -> None:
    assert {end.text: (end.label, end.is_error) for end in End} == PROMISED


@pytest.mark.parametrize("end", End, ids=lambda end: end.label)
def test_an_end_is_found_by_its_text(end: End) -> None:
    assert end_of(end.text) is end
    assert end == end.text


def test_a_text_of_another_version_is_no_end() -> None:
    assert end_of("eaten by a dog") is None
    assert cause_of("") is None


def test_details_are_for_the_log() -> None:
    assert End.REFUSED.told("not let in") == "refused: not let in"
    assert End.REFUSED.told() == "refused"


@pytest.mark.parametrize("end", End, ids=lambda end: end.label)
def test_counters_travel_between_processes(end: End) -> None:
    """A worker packs them with marshal, which takes a str and no subclass of it."""
    counters = Counters(flows=1)
    counters.flow_ended(end, 1, 2, 3.0)
    snapshot = counters.snapshot()
    assert marshal.loads(marshal.dumps(snapshot)) == snapshot
    assert json.loads(json.dumps(snapshot))["ends"] == {end.text: 1}


LABELS = {
    errno.ECONNREFUSED: "refused",
    errno.ETIMEDOUT: "timeout",
    errno.ECONNRESET: "reset",
    errno.EHOSTUNREACH: "host-unreachable",
    errno.EHOSTDOWN: "host-unreachable",
    errno.ENETUNREACH: "network-unreachable",
    errno.EADDRNOTAVAIL: "no-address",
    errno.EACCES: "forbidden",
    errno.EPERM: "forbidden",
    errno.ENOENT: "no-socket",
    errno.EMFILE: "no-descriptor",
    errno.ENFILE: "no-descriptor",
    errno.ENOBUFS: "no-memory",
    errno.ENOMEM: "no-memory",
}


@pytest.mark.parametrize("number", errno.errorcode, ids=errno.errorcode.get)
def test_a_cause_is_found_by_what_the_log_says(number: int) -> None:
    cause = cause_of(reason(OSError(number, os.strerror(number))))
    assert (cause.label if cause else None) == LABELS.get(number)


def test_causes_are_texts_as_well() -> None:
    assert Cause.REFUSED.text == "connection refused"
    assert type(Cause.REFUSED.text) is str
