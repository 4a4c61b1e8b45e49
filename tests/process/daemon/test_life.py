"""A daemon's life: what it serves, what it says, and how it ends."""

from __future__ import annotations

import os
import signal
import socket
import threading
from pathlib import Path

import pytest

from tests.support.daemon import ServeProcess
from tests.support.process import eventually, free_port
from tests.support.rig import echoed, noise, read_all, read_exactly, was_reset
from tests.support.site import Site

# -- what it says --


def test_status_and_flows(site: Site) -> None:
    site.run()
    client, target = site.pair()
    target.sendall(noise(70_000, seed=1))
    read_exactly(client, 70_000)
    done = site.pair()
    for sock in done:
        sock.close()
    eventually(lambda: site.daemon.forward(site.listen)["ended"] == 1, "the second flow ended")
    numbers = site.daemon.forward(site.listen)
    assert (numbers["flows"], numbers["ended"]) == (2, 1)
    assert (numbers["bytes_up"], numbers["bytes_down"]) == (10, 70_000)
    assert numbers["ends"] == {"closed": 1}
    assert sum(numbers["durations"]) == 1
    assert numbers["target"] == site.target(site.one)
    status = site.daemon.status()
    assert sum(worker["flows"] for worker in status["workers"]) == 2
    (flow,) = site.daemon.flows()
    assert (flow["client"], flow["client_port"]) == client.getsockname()[:2]
    assert (flow["listen"], flow["target"]) == (site.listen, site.target(site.one))
    assert (flow["bytes_up"], flow["bytes_down"]) == (5, 70_000)
    assert flow["worker"] in site.daemon.workers()


def test_the_commands_print_what_there_is(site: Site) -> None:
    site.run()
    client, _ = site.pair()
    said = site.daemon.command_line("status").stdout.splitlines()
    assert said[0].startswith("v6fwd ")
    assert f"process {site.daemon.pid}" in said[0]
    assert said[1].split() == [
        *("LISTEN", "TARGET", "CLIENT-IP", "LIVE", "FLOWS", "UP", "DOWN", "SINCE", "ERRORS")
    ]
    assert said[2].split()[:5] == [site.listen, site.target(site.one), "none", "1", "1"]
    said = site.daemon.command_line("flows").stdout.splitlines()
    host, port = client.getsockname()[:2]
    assert said[1].split()[:3] == [f"[{host}]:{port}", site.listen, site.target(site.one)]
    said = site.daemon.command_line("flows", "--by", "net").stdout.splitlines()
    assert said[1].split()[:2] == ["::/64", "1"]


def test_dial_failures_are_counted_by_cause(site: Site) -> None:
    site.run()
    site.one.close()
    assert site.is_cut_off()
    eventually(
        lambda: site.daemon.forward(site.listen)["dial_failures"] == {"connection refused": 1},
        "the failure is counted",
    )
    assert "1 connection refused" in site.daemon.command_line("status").stdout


@pytest.mark.parametrize("words", [["status"], ["flows"], ["drain"], ["reload"]])
def test_no_daemon_there(daemon: ServeProcess, words: list[str]) -> None:
    done = daemon.command_line(*words)
    assert done.exit_code == 1
    assert done.stderr.startswith(f"no answer at control socket {daemon.control}: no such file")
    assert len(done.stderr.splitlines()) == 1


def test_the_control_socket_is_for_root_alone(site: Site) -> None:
    site.run()
    assert site.daemon.control.stat().st_mode & 0o777 == 0o600
    assert site.daemon.control.is_socket()


def test_an_answer_to_nonsense(site: Site) -> None:
    site.run()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(site.daemon.control))
        sock.sendall(b'nonsense\n{"do": "dance"}\n[]\n{"do": "drain", "listen": "x"}\n')
        sock.shutdown(socket.SHUT_WR)
        answers = read_all(sock).decode().splitlines()
    assert len(answers) == 4
    assert all("error" in answer for answer in answers)
    site.pair()


# -- reload --


def test_a_changed_target_is_for_new_flows(site: Site) -> None:
    site.run()
    old = site.pair()
    site.daemon.configure((site.listen, site.target(site.other)))
    site.daemon.signal(signal.SIGHUP)
    eventually(lambda: "reloaded: 0 new, 1 changed, 0 gone" in site.daemon.log, "reloaded")
    site.daemon.status()  # asked behind the news, answered when they are done
    new = site.pair(site.other)
    echoed(*old, b"still the old one")
    echoed(*new, b"the new one")
    assert site.daemon.forward(site.listen)["flows"] == 2


def test_a_forward_that_is_gone_drains(site: Site) -> None:
    site.run()
    client, target = site.pair()
    site.daemon.configure((f"[::]:{free_port()}", site.target(site.other)))
    site.daemon.reload()
    assert site.refuses()
    echoed(client, target, b"still here")
    assert site.daemon.forward(site.listen)["state"] == "draining"
    client.close()
    target.close()
    eventually(lambda: len(site.daemon.status()["forwards"]) == 1, "it is forgotten")


def test_a_drained_forward_is_cut_in_the_end(site: Site) -> None:
    site.run(more="drain-timeout = 0.2")
    client, _ = site.pair()
    told = site.daemon.command_line("drain", site.listen).output
    assert told.startswith(f"draining {site.listen}: flows have ")
    assert was_reset(client)
    assert site.refuses()
    site.daemon.reload()  # the file still has it
    site.pair()


def test_reload_refuses_a_file_as_a_whole(site: Site) -> None:
    site.run()
    pair = site.pair()
    good = site.daemon.config.read_text()
    new = free_port()
    bad = f'[[forward]]\nlisten = "[::]:{new}"\ntarget = "nowhere"\nclient-ip = "proxi"\n'
    site.daemon.config.write_text(good + "\n" + bad)
    done = site.daemon.command_line("reload")
    assert done.exit_code == 1
    assert "nowhere" in done.stderr
    assert "proxi" in done.stderr
    assert "not reloaded: " in site.daemon.log
    echoed(*pair, b"still here")
    site.pair()
    site.daemon.config.write_text(good)
    assert site.daemon.command_line("reload").output == "reloaded: 0 new, 0 changed, 0 gone\n"


def test_a_port_that_is_taken_refuses_the_whole_reload(site: Site) -> None:
    site.run()
    taken = site.other.getsockname()[1]
    wanted = (site.listen, site.target(site.other)), (f"0.0.0.0:{taken}", site.target(site.one))
    site.daemon.configure(*wanted)
    done = site.daemon.command_line("reload")
    assert done.exit_code == 1
    assert done.stderr.startswith(f"cannot listen on 0.0.0.0:{taken}: address already in use (")
    assert done.stderr.endswith(f", pid {os.getpid()})\n")
    site.pair(site.one)


def test_what_a_reload_cannot_change(site: Site) -> None:
    site.run()
    site.daemon.configure((site.listen, site.target(site.one)), workers=3)
    site.daemon.reload()
    assert "workers has changed: that waits for the next start" in site.daemon.log
    assert len(site.daemon.workers()) == 2


# -- the end --


def test_all_transfers_finish(site: Site) -> None:
    """As `forward` does it: the port is free at once, and not a byte is lost."""
    site.run()
    pairs = [site.pair() for _ in range(100)]
    data = noise(50_000, seed=3)
    site.daemon.signal(signal.SIGTERM)
    eventually(site.refuses, "the port is free")
    for client, target in pairs:
        sender = threading.Thread(target=_send_and_end, args=(target, data))
        sender.start()
        assert read_all(client) == data
        sender.join()
        client.close()
    site.one.close()  # whoever only looked is still in its queue
    assert site.daemon.wait() == 0
    assert not site.daemon.control.exists()


def _send_and_end(sock: socket.socket, data: bytes) -> None:
    sock.sendall(data)
    sock.shutdown(socket.SHUT_WR)


def test_sigint_does_not_wait_for_long(site: Site) -> None:
    site.run()
    client, target = site.pair()
    site.daemon.signal(signal.SIGINT)
    assert was_reset(client)
    assert was_reset(target)
    assert site.daemon.wait() == 0


def test_a_second_signal_ends_it(site: Site) -> None:
    site.run(more="drain-timeout = 600")
    client, target = site.pair()
    site.daemon.signal(signal.SIGTERM)
    eventually(site.refuses, "the port is free")
    echoed(client, target, b"still here")
    site.daemon.signal(signal.SIGTERM)
    assert was_reset(client)
    assert site.daemon.wait() == 0


def test_drain_by_command(site: Site) -> None:
    site.run()
    client, target = site.pair()
    told = site.daemon.command_line("drain").output
    assert told == "draining: flows have 30 s to finish, then v6fwd stops\n"
    eventually(site.refuses, "the port is free")
    echoed(client, target, b"still here")
    client.close()
    target.close()
    assert site.daemon.wait() == 0


def test_a_killed_supervisor_and_its_successor(site: Site, successor: ServeProcess) -> None:
    """The workers let go of the ports at once, and finish what they have."""
    site.run()
    workers = site.daemon.workers()
    client, target = site.pair()
    site.daemon.signal(signal.SIGKILL)
    site.daemon.wait()
    eventually(site.refuses, "the port is free")
    successor.run()
    site.pair()
    echoed(client, target, b"still here")
    client.close()
    target.close()
    eventually(lambda: not any(map(_lives, workers)), "the old workers have ended")


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_worker_that_dies_again_and_again(site: Site) -> None:
    """The first is replaced at once, the second after a second; the other worker serves on."""
    site.run()
    victim, other = site.daemon.workers()
    site.daemon.kill_worker(victim)
    (newest,) = set(site.daemon.workers()) - {victim, other}
    os.kill(newest, signal.SIGKILL)
    eventually(lambda: "the next one starts in 1 s" in site.daemon.log, "throttled")
    for _ in range(10):
        for sock in site.pair():
            sock.close()
    eventually(lambda: len(site.daemon.workers()) == 2, "another one")
    assert site.daemon.status()["restarts"] == 2


def test_flows_of_a_killed_worker_are_counted(site: Site) -> None:
    site.run(workers=1)
    client, target = site.pair()
    target.sendall(b"x" * 1000)
    read_exactly(client, 1000)
    assert site.daemon.forward(site.listen)["flows"] == 1
    site.daemon.kill_worker(site.daemon.workers()[0])
    numbers = site.daemon.forward(site.listen)
    assert (numbers["flows"], numbers["ended"]) == (1, 1)
    assert numbers["ends"] == {"lost with its worker": 1}
    site.pair()


def test_a_worker_that_is_stopped(site: Site) -> None:
    """The other one serves whoever comes."""
    site.run()
    victim = site.daemon.workers()[0]
    os.kill(victim, signal.SIGSTOP)
    try:
        for _ in range(20):
            site.pair()
    finally:
        os.kill(victim, signal.SIGCONT)
    assert site.daemon.forward(site.listen)["flows"] == 20
