"""Whatever is done to a daemon, no client of it is refused, and only a killed worker cuts flows."""

from __future__ import annotations

from tests.support.daemon import ServeProcess
from tests.support.load import Load
from tests.support.process import free_port


def begin(daemon: ServeProcess, load: Load) -> tuple[str, str]:
    """Forward to the load's own server, and let clients come; gives LISTEN and TARGET."""
    port = free_port()
    pair = f"[::]:{port}", f"127.0.0.1:{load.target_port}"
    daemon.configure(pair)
    daemon.run()
    load.begin(port)
    load.some_more()
    return pair


def test_reload_again_and_again(daemon: ServeProcess, load: Load) -> None:
    """Another forward comes and goes, ours changes its limits: flows do not notice."""
    pair = begin(daemon, load)
    other = f"[::]:{free_port()}", pair[1]
    for number in range(25):
        pairs = (pair, other) if number % 2 else (pair,)
        daemon.configure(*pairs, more=f"[defaults]\nconnect-timeout = {number + 1}")
        daemon.reload()
    load.some_more()
    assert load.unhappy == {}


def test_workers_killed(daemon: ServeProcess, load: Load) -> None:
    """Who was with the killed one is cut off; nobody is refused, and nobody waits for long."""
    begin(daemon, load)
    for _ in range(3):
        daemon.kill_worker(daemon.workers()[0])
        load.some_more()
    assert load.unhappy.keys() <= {"reset", "cut"}
    assert sum(load.unhappy.values()) <= 3 * 20


def test_upgrade(daemon: ServeProcess, successor: ServeProcess, load: Load) -> None:
    begin(daemon, load)
    successor.run()
    assert daemon.wait() == 0
    load.some_more()
    assert load.unhappy == {}
    assert successor.status()["pid"] == successor.pid


def test_upgrade_to_more_and_fewer_workers(
    daemon: ServeProcess, successor: ServeProcess, load: Load
) -> None:
    pair = begin(daemon, load)
    daemon.configure(pair, workers=3)
    successor.run()
    assert daemon.wait() == 0
    load.some_more()
    daemon.configure(pair, workers=1)
    daemon.run()
    assert successor.wait() == 0
    load.some_more()
    assert load.unhappy == {}
    assert len(daemon.workers()) == 1
