"""Samples of the rates of all forwards, for ten minutes."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from v6fwd.daemon.view.figures import Rates

EVERY = 5.0
"""Seconds from one sample to the next."""
KEPT = 120
"""Samples: ten minutes."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Mean rates over EVERY seconds or somewhat longer, and the flows that lived at its end."""

    rates: Rates
    live: int


class History:
    """The last KEPT samples. Seconds are those of a monotonic clock."""

    def __init__(self, at: float) -> None:
        self.samples: deque[Sample] = deque(maxlen=KEPT)
        self._began = self._last = at
        self._sum = Rates()

    def note(self, rates: Rates, live: int, at: float) -> bool:
        """Note the rates since the last call. Return whether that completed a sample."""
        self._sum += rates.times(at - self._last)
        self._last = at
        if at - self._began < EVERY:
            return False
        self.samples.append(Sample(self._sum.times(1 / (at - self._began)), live))
        self._began, self._sum = at, Rates()
        return True
