"""The HTTP target, the questions to it, and the byte check in HTTP, on loopback."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bench.ground import Loopback
from bench.peers.base import Peer
from bench.peers.direct import Direct
from bench.peers.haproxy_http import HAProxyHttp
from bench.peers.nginx_http import NginxHttp
from bench.run import _check_bytes, own_trial
from bench.scenarios.base import set_up
from bench.scenarios.http import _check_named, _counted
from bench.targets import BODY, PAGE, Site
from bench.trial import Trial, TrialError, helper_command

PEERS = [
    pytest.param(HAProxyHttp(), marks=pytest.mark.server("haproxy", "nginx")),
    pytest.param(NginxHttp(), marks=pytest.mark.server("nginx")),
]


@pytest.fixture
def trial() -> Iterator[Trial]:
    with own_trial(Loopback()) as trial:
        yield trial


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_the_target_names_the_client_and_not_whom_it_claims_to_be(trial: Trial, peer: Peer) -> None:
    _check_named(trial, set_up(trial, peer, Site()))


@pytest.mark.server("nginx")
def test_a_relay_that_passes_the_claim_on_is_caught(trial: Trial) -> None:
    with pytest.raises(TrialError, match=r"answered '192\.0\.2\.66"):
        _check_named(trial, set_up(trial, Direct(), Site()))


@pytest.mark.server("nginx")
def test_the_target_counts_its_requests(trial: Trial) -> None:
    site = Site()
    relay = set_up(trial, Direct(), site)
    before = _counted(trial, site)
    words = (*helper_command("gets"), relay.host, str(relay.port), PAGE, "5")
    assert trial.run("client", *words) == BODY * 5
    assert _counted(trial, site) - before == 5 + 1  # and the question for the count


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_bytes_are_checked_in_the_body_of_a_request(peer: Peer) -> None:
    assert _check_bytes(Loopback(), peer).startswith("sha256 ")
