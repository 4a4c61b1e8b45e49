"""What several of these tests use."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.logged import Logged


@pytest.fixture
def logged() -> Iterator[Logged]:
    logged = Logged()
    yield logged
    logged.close()
