"""What fuzzing has found is tried again, and some new bytes with it; see tests/fuzz."""

from __future__ import annotations

import os
import random
import time

import pytest

from tests.fuzz.corpus import WORDS, kept, mutated, seeds
from tests.fuzz.targets import TARGETS

SECONDS = float(os.environ.get("FUZZ_SECONDS", "2.5"))
"""For new bytes, each target: half a minute in all."""

each = pytest.mark.parametrize("target", TARGETS)


@each
def test_samples(target: str) -> None:
    assert len(kept(target)) >= 20
    for sample in seeds(target):
        TARGETS[target](sample)


@each
def test_new_bytes(target: str) -> None:
    """A failure shows the bytes: as a line in tests/fuzz/corpus they stay a test."""
    chance, samples = random.Random(), seeds(target)
    until = time.monotonic() + SECONDS
    tried = 0
    while not tried or time.monotonic() < until:
        data = mutated(samples, WORDS[target], chance)
        try:
            TARGETS[target](data)
        except Exception as error:
            raise AssertionError(f"{target} fails with {data!r}") from error
        tried += 1
