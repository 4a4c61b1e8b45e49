"""Clients are shared out evenly, come they slowly or in a burst, to stay or to go."""

from __future__ import annotations

from tests.support.site import Site


def shares(site: Site) -> list[int]:
    return [worker["flows"] for worker in site.daemon.status()["workers"]]


def test_who_comes_one_by_one(site: Site) -> None:
    site.run()
    pairs = [site.pair() for _ in range(60)]
    assert len(pairs) == sum(shares(site))
    assert min(shares(site)) >= 15


def test_a_burst_of_those_who_stay(site: Site) -> None:
    site.run()
    clients = [site.connect() for _ in range(60)]
    for client in clients:
        client.sendall(b"x")
    for _ in clients:
        with site.one.accept()[0] as target:
            assert target.recv(1) == b"x"
    assert sum(shares(site)) == 60
    assert min(shares(site)) >= 15
