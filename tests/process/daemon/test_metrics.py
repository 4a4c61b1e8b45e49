"""/metrics and /healthz of a real daemon."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.daemon import ServeProcess
from tests.support.process import PATIENCE, eventually, free_port
from tests.support.rig import echoed


def get(port: int, path: str) -> tuple[int, str]:
    """Status and body."""
    connection = http.client.HTTPConnection("::1", port, timeout=PATIENCE)
    connection.request("GET", path)
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def value(port: int, name: str, **labels: str) -> float:
    """A sample, summed over the labels that are not given."""
    status, text = get(port, "/metrics")
    assert status == 200
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


@pytest.fixture
def shown(daemon: ServeProcess) -> int:
    """The port of the pages."""
    port = free_port("::1")
    daemon.configure(workers=2)
    text = daemon.config.read_text()
    daemon.config.write_text(f'{text}\n[metrics]\nlisten = "[::1]:{port}"\n')
    return port


def add_forward(daemon: ServeProcess, target: str) -> int:
    """One more forward in the configuration."""
    port = free_port("::1")
    with daemon.config.open("a") as config:
        config.write(f'[[forward]]\nlisten = "[::1]:{port}"\ntarget = "{target}"\n')
    return port


def test_a_flow_in_figures(daemon: ServeProcess, shown: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = add_forward(daemon, f"127.0.0.1:{server.getsockname()[1]}")
        daemon.run()
        listen = f"[::1]:{port}"
        with socket.create_connection(("::1", port), PATIENCE) as client:
            behind, _ = server.accept()
            with behind:
                echoed(client, behind, b"12345")
                assert value(shown, "v6fwd_flows_active", listen=listen) == 1
        eventually(lambda: not value(shown, "v6fwd_flows_active", listen=listen), "the flow's end")
    assert value(shown, "v6fwd_flows_total", listen=listen) == 1
    assert value(shown, "v6fwd_bytes_total", listen=listen, direction="up") == 5
    assert value(shown, "v6fwd_flow_ends_total", listen=listen, end="closed") == 1
    assert value(shown, "v6fwd_flow_duration_seconds_count", listen=listen) == 1
    with contextlib.suppress(ConnectionResetError):  # nobody is there any more
        socket.create_connection(("::1", port), PATIENCE).close()
    eventually(
        lambda: value(shown, "v6fwd_dial_failures_total", listen=listen, cause="refused"),
        "the failure is counted",
    )


def test_workers_in_figures(daemon: ServeProcess, shown: int) -> None:
    daemon.run()
    assert value(shown, "v6fwd_workers") == 2
    assert value(shown, "v6fwd_worker_restarts_total") == 0
    daemon.kill_worker(daemon.workers()[0])
    assert value(shown, "v6fwd_worker_restarts_total") == 1
    assert get(shown, "/healthz") == (200, "ok\n")


def test_a_stopped_worker_does_not_stop_the_pages(daemon: ServeProcess, shown: int) -> None:
    daemon.run()
    stopped = daemon.workers()[0]
    os.kill(stopped, signal.SIGSTOP)
    try:
        assert get(shown, "/healthz") == (200, "ok\n")
    finally:
        os.kill(stopped, signal.SIGCONT)
    assert value(shown, "v6fwd_workers") == 2


def test_a_successor_has_the_pages_too(
    daemon: ServeProcess, successor: ServeProcess, shown: int
) -> None:
    daemon.run()
    successor.run()
    assert daemon.wait() == 0
    assert get(shown, "/healthz") == (200, "ok\n")
    began = value(shown, "v6fwd_start_time_seconds")
    assert began == pytest.approx(successor.status()["since"])
