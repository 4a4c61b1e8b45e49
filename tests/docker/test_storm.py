"""Nobody forges an address, whatever happens to daemon, Engine and firewall. See `storm.py`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.docker.conftest import every_engine, shimmed_engine
from tests.docker.storm import Storm
from tests.support.images import load_bare
from tests.support.served import Served

pytestmark = pytest.mark.server("nft", "python3")


@pytest.fixture(params=every_engine)
def storm(request: pytest.FixtureRequest) -> Iterator[Storm]:
    """A container, on each Engine, which clients keep asking."""
    with shimmed_engine(request.param) as engine:
        served = Served(engine)
        try:
            served.start()
            engine.start(**served.environment())
            load_bare(engine, "bare")
            storm = Storm(served)
            storm.run()
            with storm.forging():
                yield storm
            engine.remove("one")
        finally:
            served.end()


def test_nobody_forges_an_address(storm: Storm) -> None:
    storm.some_more()
    for name, happens in storm.events.items():
        happens()
        storm.some_more()
        assert not storm.wrong, f"{name}: {storm.wrong} of {storm.counts}"
        print(name, storm.tries(), storm.served.process.log[-500:])
    assert "internal error" not in storm.served.log
