"""/metrics and /healthz of a real daemon."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import signal
import socket
from pathlib import Path

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


def processes(port: int, name: str) -> dict[str, float]:
    """A figure of every process."""
    return {
        sample.labels["process"]: sample.value
        for family in text_string_to_metric_families(get(port, "/metrics")[1])
        for sample in family.samples
        if sample.name == name
    }


def test_processes_in_figures(daemon: ServeProcess, shown: int) -> None:
    daemon.run()
    for name in ("cpu_seconds_total", "resident_memory_bytes", "open_fds", "max_fds"):
        found = processes(shown, f"v6fwd_process_{name}")
        assert found.keys() == {"supervisor", "worker-0", "worker-1"}, name
        assert all(figure > 0 for figure in found.values()) or name == "cpu_seconds_total"
    worker = daemon.workers()[0]
    assert processes(shown, "v6fwd_process_open_fds")["worker-0"] == len(
        os.listdir(f"/proc/{worker}/fd")
    )
    daemon.kill_worker(worker)
    assert processes(shown, "v6fwd_process_open_fds").keys() == {
        *("supervisor", "worker-0", "worker-1")
    }


def test_reloads_in_figures(daemon: ServeProcess, shown: int) -> None:
    daemon.run()
    assert value(shown, "v6fwd_last_reload_successful") == 1
    good = daemon.config.read_text()
    daemon.config.write_text("workers = 0\n")
    os.kill(daemon.pid, signal.SIGHUP)
    eventually(lambda: not value(shown, "v6fwd_last_reload_successful"), "the failure is counted")
    daemon.config.write_text(good)
    os.kill(daemon.pid, signal.SIGHUP)
    eventually(lambda: value(shown, "v6fwd_last_reload_successful"), "the reload is counted")
    assert value(shown, "v6fwd_reloads_total", result="failure") == 1
    assert value(shown, "v6fwd_reloads_total", result="success") == 1


def test_the_first_page(daemon: ServeProcess, shown: int) -> None:
    daemon.run()
    status, text = get(shown, "/")
    assert status == 200
    for page in re.findall(r'href="([^"]+)"', text):
        assert get(shown, f"/{page}")[0] == 200


def test_a_stopped_worker_does_not_stop_the_pages(daemon: ServeProcess, shown: int) -> None:
    daemon.run()
    stopped = daemon.workers()[0]
    os.kill(stopped, signal.SIGSTOP)
    try:
        assert get(shown, "/healthz") == (200, "ok\n")
    finally:
        os.kill(stopped, signal.SIGCONT)
    assert value(shown, "v6fwd_workers") == 2


def test_another_daemon_cannot_have_the_pages(
    daemon: ServeProcess, shown: int, tmp_path: Path
) -> None:
    """Scrapes would come to the one or the other by chance."""
    daemon.run()
    other = ServeProcess(tmp_path, "other")
    config = daemon.config.read_text().replace("control.sock", "other.sock")
    other.config = tmp_path / "other.toml"
    other.config.write_text(config)
    other.start("-c", str(other.config), ready=False)
    assert other.wait() == 1
    in_use = f"cannot listen on [::1]:{shown}: address already in use (v6fwd, pid {daemon.pid})"
    assert other.log == f"{in_use}\n"


def test_a_successor_of_one_is_none_of_the_other(
    daemon: ServeProcess, shown: int, tmp_path: Path
) -> None:
    """It takes over from a daemon without metrics, and wants those of a third one."""
    daemon.run()
    first, second = ServeProcess(tmp_path, "first"), ServeProcess(tmp_path, "second")
    for each in (first, second):
        each.control, each.config = tmp_path / "other.sock", tmp_path / "other.toml"
    first.configure()
    first.run()
    try:
        metrics = f'\n[metrics]\nlisten = "[::1]:{shown}"\n'
        second.config.write_text(second.config.read_text() + metrics)
        second.start("-c", str(second.config), ready=False)
        assert second.wait() == 1
        assert "address already in use" in second.log
        assert len(first.workers()) == 2
    finally:
        first.end()


def test_a_hung_worker_is_told(daemon: ServeProcess, shown: int) -> None:
    """Before it is replaced: it has some seconds to answer."""
    daemon.run()
    stopped = daemon.workers()[0]
    os.kill(stopped, signal.SIGSTOP)
    try:
        told = 503, "1 of 2 workers do not answer\n"
        eventually(lambda: get(shown, "/healthz") == told, "a word about it")
        well = 200, "ok\n"
        eventually(lambda: get(shown, "/healthz") == well, "another one", 2 * PATIENCE)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(stopped, signal.SIGCONT)
    assert stopped not in daemon.workers()


def test_a_successor_has_the_pages_too(
    daemon: ServeProcess, successor: ServeProcess, shown: int
) -> None:
    daemon.run()
    successor.run()
    assert daemon.wait() == 0
    assert get(shown, "/healthz") == (200, "ok\n")
    began = value(shown, "v6fwd_start_time_seconds")
    assert began == pytest.approx(successor.status()["since"])
