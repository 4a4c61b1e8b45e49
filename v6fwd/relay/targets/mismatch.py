"""Finds targets that expect a PROXY header and get none, or get one and do not expect it.

`Looks` decides which flows of a forward are looked at, and counts what was seen. `Mismatch` is the
rule, over the flows of all workers. The pure judgement of one flow is client_ip/first_answer.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from v6fwd.client_ip.first_answer import Answer
from v6fwd.log import Log
from v6fwd.model import ClientIP, Endpoint, Forward
from v6fwd.relay.counters import Counters, count

NEEDED = 20
"""Connections in a row, none of them served, that make a mismatch."""
NEEDED_MOST = 200
"""The same of a target that has served as many as this before: it is more likely that one client
is the cause."""
SHARE = 0.75
"""Part of these that must have been ended, answered with an error, or not at all; of the others
nothing is known."""
LOOK_INTERVAL = 5.0
"""Seconds without a look at the flows of a target that serves."""
ALWAYS = float("-inf")

Heard = Callable[[str, Mapping[str, int]], None]
"""Gets a listener, and how many of its flows had each `Answer`."""

_HEADER = (ClientIP.PROXY_V1, ClientIP.PROXY_V2)


class Looks:
    """Which flows of a forward in this process are looked at: all, until the target serves one."""

    __slots__ = ("_counters", "_heard", "_listen", "look_from")

    def __init__(self, listen: Endpoint, counters: Counters, heard: Heard | None) -> None:
        """`heard` is for a process whose counters nobody reads."""
        self._listen = listen
        self._counters = counters
        self._heard = heard
        self.look_from = ALWAYS
        """A flow that began before this time, in seconds, is not looked at."""

    def saw(self, answer: Answer, now: float) -> None:
        """Count a flow that was looked at."""
        count(self._counters.first_answers, answer.value)
        if answer is Answer.SERVED:
            self.look_from = now + LOOK_INTERVAL
        elif answer is not Answer.UNCLEAR:
            self.look_from = ALWAYS
        if self._heard is not None:
            self._heard(str(self._listen), {answer.value: 1})


class Mismatch:
    """What was seen of one forward since its target last served somebody."""

    __slots__ = ("_served", "ended", "errors", "found", "silent", "unclear")

    def __init__(self) -> None:
        self._served = 0
        self.ended = self.errors = self.silent = self.unclear = 0
        self.found = False

    def note(self, answers: Mapping[str, int]) -> bool:
        """Take what was seen of further flows; True: this makes it a mismatch.

        Their order is not known: one that was served clears the others.
        """
        if served := answers.get(Answer.SERVED, 0):
            self._served += served
            self.ended = self.errors = self.silent = self.unclear = 0
            self.found = False
            return False
        self.ended += answers.get(Answer.ENDED, 0)
        self.errors += answers.get(Answer.ERROR, 0)
        self.silent += answers.get(Answer.SILENT, 0)
        self.unclear += answers.get(Answer.UNCLEAR, 0)
        was_found, self.found = self.found, self.found or self._is_enough()
        return self.found and not was_found

    @property
    def bad(self) -> int:
        """Flows that were ended, answered with an error, or not at all."""
        return self.ended + self.errors + self.silent

    @property
    def most(self) -> Answer:
        """What most of these were."""
        if self.silent > max(self.ended, self.errors):
            return Answer.SILENT
        return Answer.ENDED if self.ended >= self.errors else Answer.ERROR

    def _is_enough(self) -> bool:
        needed = min(max(NEEDED, self._served), NEEDED_MOST)
        return self.bad + self.unclear >= needed and self.bad >= SHARE * needed

    def text(self, forward: Forward) -> str:
        """What was found, and how to go on."""
        target = forward.target
        of = f"{self.bad} of {self.bad + self.unclear} connections"
        probe = f" v6fwd probe {target}" if not target.path else ""
        return f"{target} {_sentence(forward.client_ip, of, self.most)}{probe}"


def _sentence(mode: ClientIP, of: str, most: Answer) -> str:
    if mode in _HEADER:
        if most is Answer.SILENT:
            return f"did not answer {of} behind the PROXY header: does it expect one?"
        where = "right after the PROXY header: does it expect one?"
        is_end = most is Answer.ENDED
        return f"ended {of} {where}" if is_end else f"answered {of} with an error {where}"
    if most is Answer.SILENT:
        return f"did not answer {of}: does it expect a PROXY header?"
    if most is Answer.ENDED:
        return f"ended {of} without an answer: does it expect a PROXY header?"
    if mode.is_http:
        return f"answered {of} with HTTP 400: does it take plain HTTP?"
    return f"answered {of} with an error at once: does it expect a PROXY header?"


def forward_at(listen: str, forwards: Iterable[Forward]) -> Forward | None:
    """Find the one with this listener."""
    return next((forward for forward in forwards if str(forward.listen) == listen), None)


class Mismatches:
    """Those of all forwards: each is logged when it is found, and can be asked for."""

    def __init__(self, log: Log, forward_at: Callable[[str], Forward | None]) -> None:
        """`forward_at` finds the forward of a listener; None if it is closed."""
        self._log = log
        self._forward_at = forward_at
        self._known: dict[str, Mismatch] = {}

    def note(self, listen: str, answers: Mapping[str, int]) -> None:
        """Take what was seen of flows of a listener."""
        known = self._known.get(listen)
        if known is None:
            known = self._known[listen] = Mismatch()
        if known.note(answers) and (forward := self._forward_at(listen)) is not None:
            self._tell(forward, known)

    def forget(self, listen: str) -> None:
        """Begin anew: its forward is closed, or leads elsewhere, or in another mode."""
        self._known.pop(listen, None)

    def text(self, forward: Forward) -> str:
        """What is wrong with a forward; "" if nothing is known to be."""
        known = self._known.get(str(forward.listen))
        return known.text(forward) if known is not None and known.found else ""

    def _tell(self, forward: Forward, known: Mismatch) -> None:
        self._log.limited(
            f"mismatch {forward.listen}",
            "mismatch",
            known.text(forward),
            burst=1,
            listen=forward.listen,
            target=forward.target,
            client_ip=forward.client_ip,
            connections=known.bad,
        )
