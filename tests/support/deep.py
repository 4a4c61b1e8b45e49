"""For property tests: how many examples each tries, few and always the same, or many new ones.

`V6FWD_DEEP=50 pytest tests/process -k stateful` tries fifty times as many, at random.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, Phase, settings

DEEP = int(os.environ.get("V6FWD_DEEP", "0"))


def examples(count: int) -> settings:
    """The settings of a test against real sockets that tries `count` examples in `make test`."""
    return settings(
        max_examples=count * (DEEP or 1),
        derandomize=not DEEP,
        database=None,
        phases=[Phase.generate],
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
        print_blob=True,
    )
