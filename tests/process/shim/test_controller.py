"""Which mode the daemon serves a shim's port in, when the Engine is silent, wrong or misled."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator
from ipaddress import ip_network
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.support.controlled import TARGET, Controlled, container
from tests.support.fake_engine import HEAD, says
from tests.support.process import free_port
from tests.support.shim import Shim
from v6fwd.cli import main
from v6fwd.config import Docker
from v6fwd.config.rules import Rule
from v6fwd.docker import adopted_ports, controller
from v6fwd.docker.shim.holder import find_holder
from v6fwd.model import ClientIP, Endpoint, Guard, Protocol

UNKNOWN = "Docker is silent, so which container it belongs to is not known"


@pytest.fixture
async def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Controlled]:
    monkeypatch.setenv("V6FWD_RUN_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "state"))
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    # this host's rules are none of our business
    scripts = {"nft": "exit 1", "iptables": '[ "$1" = -V ] && echo "v1.8.9 (nf_tables)"'}
    for name, script in scripts.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    daemon = Controlled(tmp_path)
    await daemon.engine.start()
    yield daemon
    daemon.end()
    await daemon.engine.stop()
    daemon.logged.close()


@pytest.fixture
def port() -> int:
    return free_port()


def listen(port: int) -> str:
    return f"[::]:{port}"


async def test_a_silent_engine_opens_nothing(
    daemon: Controlled, shim: Shim, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever could come now would be believed whatever header he brings."""
    monkeypatch.setattr(adopted_ports, "HOLD", 0.01)
    daemon.silence()
    await daemon.begin()
    daemon.publish(shim, port)
    await daemon.until(lambda: daemon.held)
    assert shim.all_status() == b"0\n", "dockerd has its answer"
    assert daemon.held == {listen(port): UNKNOWN}
    assert daemon.served == {}
    [(event, text)] = daemon.logged.lines()
    assert (event, text) == ("held", f"{listen(port)} is not served, its clients wait: {UNKNOWN}")


async def test_it_is_opened_when_the_engine_speaks(
    daemon: Controlled, shim: Shim, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adopted_ports, "HOLD", 0.0)
    await daemon.begin()
    await daemon.until(lambda: not daemon.controller._watcher.is_lost)
    daemon.publish(shim, port)
    await daemon.until(lambda: daemon.held)
    assert daemon.held == {listen(port): "its container has not started yet"}
    assert daemon.logged.lines() == [], "as usual"
    daemon.tell(container("a", port, "proxy-v2"))
    await daemon.until(lambda: daemon.served)
    assert daemon.served == {listen(port): "proxy-v2"}
    assert daemon.held == {}


async def test_what_is_told_of_a_port(daemon: Controlled, shim: Shim, port: int) -> None:
    """Its container, what decided, and labels that have no effect."""
    await daemon.begin()
    await daemon.adopted(shim, port)
    listed = container("a", port, "proxy-v2")
    listed["Labels"]["v6fwd.allow.81"] = "::/0"
    daemon.tell(listed)
    await daemon.until(lambda: daemon.served)
    report = daemon.controller.report()
    assert report["published"] == [
        {
            "listen": listen(port),
            "target": "127.0.0.1:9",
            "container": "name-a",
            "source": "label v6fwd.client-ip",
            "ipv4": "",
        }
    ]
    (line,) = report["labels"]
    assert line.startswith("container name-a: label v6fwd.allow.81=::/0: ")


async def test_a_refused_port_names_the_label(daemon: Controlled, shim: Shim, port: int) -> None:
    await daemon.begin()
    await daemon.adopted(shim, port)
    daemon.tell(container("a", port, "proxy-v3"))
    await daemon.until(lambda: daemon.held)
    report = daemon.controller.report()
    assert report["published"][0]["source"] == "error: label v6fwd.client-ip"
    assert "'proxy-v3' is not a mode" in report["labels"][0]


async def test_a_port_of_no_known_container(
    daemon: Controlled, shim: Shim, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adopted_ports, "HOLD", 0.0)
    daemon.silence()
    await daemon.begin()
    daemon.publish(shim, port)
    await daemon.until(lambda: daemon.held)
    (told,) = daemon.controller.report()["published"]
    assert (told["container"], told["source"]) == ("", "")


async def test_a_rule_for_all_containers_needs_no_engine(
    daemon: Controlled, shim: Shim, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adopted_ports, "HOLD", 0.0)
    daemon.silence()
    await daemon.begin(Rule(ClientIP.PROXY_V1, range(port, port + 1)))
    daemon.publish(shim, port)
    await daemon.until(lambda: daemon.served)
    assert daemon.served == {listen(port): "proxy-v1"}


async def test_a_mode_survives_a_restart(daemon: Controlled, shim: Shim, port: int) -> None:
    await daemon.begin()
    await daemon.adopted(shim, port)
    daemon.tell(container("a", port, "proxy-v2"))
    await daemon.until(lambda: daemon.served)
    daemon.end()
    daemon.silence()
    await daemon.begin()
    assert daemon.served == {listen(port): "proxy-v2"}, "before any answer"


async def test_a_start_does_not_wait_for_an_engine_for_ever(
    daemon: Controlled, shim: Shim, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is ready while ports of shims that live still wait for their mode."""
    await daemon.begin()
    await daemon.adopted(shim, port)
    daemon.end()
    daemon.silence()
    monkeypatch.setattr(controller, "HOLD", 0.01)
    await daemon.begin()
    assert daemon.served == daemon.held == {}
    assert [event for event, _ in daemon.logged.lines()][-1] == "adopted"


async def test_another_shim_inherits_nothing(
    daemon: Controlled,
    shim: Shim,
    port: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It may be another container's by now."""
    await daemon.begin()
    await daemon.adopted(shim, port)
    daemon.tell(container("a", port))
    await daemon.until(lambda: daemon.served)
    daemon.end()
    shim.stop()
    daemon.silence()
    monkeypatch.setattr(adopted_ports, "HOLD", 0.0)
    await daemon.begin()
    again = Shim(Path(shim.command[-1]), "dash")
    daemon.publish(again, port)
    try:
        await daemon.until(lambda: daemon.held)
        assert daemon.served == {}
    finally:
        again.end()


async def test_a_wrong_label_refuses_the_port(daemon: Controlled, shim: Shim, port: int) -> None:
    await daemon.begin()
    await daemon.adopted(shim, port)
    daemon.tell(container("a", port, "proxy-v3"))
    await daemon.until(lambda: daemon.held)
    assert daemon.served == {}
    assert daemon.held[listen(port)] == "refused, as a label of container name-a is wrong"


@pytest.mark.parametrize("order", [1, -1])
async def test_a_twin_address_in_another_network(
    daemon: Controlled, shim: Shim, port: int, order: int
) -> None:
    """A container that publishes nothing decides about nobody's port."""
    twin = container("b", 0, "none", network="other")
    await daemon.begin()
    await daemon.adopted(shim, port)
    daemon.tell(*[twin, container("a", port, "proxy-v2")][::order])
    await daemon.until(lambda: daemon.served)
    assert daemon.served == {listen(port): "proxy-v2"}


async def test_a_task_of_swarm(daemon: Controlled, shim: Shim, port: int) -> None:
    """Its docker_gwbridge address is not in the list, its published port is."""
    await daemon.begin()
    await daemon.adopted(shim, port)
    daemon.tell(container("a", port, "proxy-v2", address="10.0.1.7", network="overlay"))
    await daemon.until(lambda: daemon.served)
    assert daemon.served == {listen(port): "proxy-v2"}


async def test_two_containers_that_both_fit_are_refused(
    daemon: Controlled, shim: Shim, port: int
) -> None:
    await daemon.begin()
    await daemon.adopted(shim, port)
    daemon.tell(container("a", port, "proxy-v2"), container("b", port, "none"))
    await daemon.until(lambda: daemon.held)
    assert daemon.held[listen(port)] == "refused, as both name-a and name-b publish it"
    assert daemon.served == {}
    daemon.tell(container("a", port, "proxy-v2"))
    await daemon.until(lambda: daemon.served)
    assert daemon.served == {listen(port): "proxy-v2"}
    daemon.tell(container("a", port, "proxy-v2"), container("b", port, "none"))
    await daemon.until(lambda: daemon.held)
    assert daemon.served == {}, "closed again"


async def test_a_port_that_was_opened_without_its_shim(
    daemon: Controlled, shim: Shim, port: int
) -> None:
    """Workers have copies of its socket, so no other can be bound: the shim gets that one."""
    daemon.engine.containers = says(HEAD + json.dumps([container("a", port, "proxy-v2")]).encode())
    await daemon.begin()
    await daemon.until(lambda: daemon.served)
    [worker] = (sock.dup() for sock in daemon.supervisor.listen_sockets[Endpoint("::", port)])
    with worker, socket.create_connection(("::1", port)) as client:
        await daemon.adopted(shim, port)
        assert shim.all_status() == b"0\n"
        assert os.readlink(f"/proc/{shim.pid}/exe") == str(find_holder()), "it is adopted"
        assert daemon.served == {}, "until its mode is known"
        daemon.tell(container("a", port, "proxy-v2"))
        await daemon.until(lambda: daemon.served)
        [sock] = daemon.supervisor.listen_sockets[Endpoint("::", port)]
        with sock.accept()[0] as accepted:
            assert accepted.getpeername()[:2] == client.getsockname()[:2], "nobody is lost"


async def test_drained_until_the_next_reload(daemon: Controlled, shim: Shim, port: int) -> None:
    await daemon.begin()
    await daemon.adopted(shim, port)
    daemon.tell(container("a", port, "proxy-v2"))
    await daemon.until(lambda: daemon.served)
    daemon.supervisor.close(Endpoint("::", port))
    assert daemon.held == {listen(port): "drained until the next reload"}
    asked = daemon.engine.asked("/containers/json")
    daemon.tell(container("a", port, "forwarded"))
    await daemon.until(lambda: daemon.engine.asked("/containers/json") > asked)
    await daemon.until(lambda: any("forwarded" in text for _, text in daemon.logged.lines()))
    assert daemon.served == {}, "an event does not undo it"
    daemon.controller.reconfigure(Docker(daemon.engine.host))
    assert daemon.served == {listen(port): "forwarded"}
    assert daemon.held == {}


async def test_a_container_that_was_started_without_v6fwd(
    daemon: Controlled, shim: Shim, port: int
) -> None:
    """Its shim is a relay of its own: the port cannot be had until the container restarts."""
    with socket.create_server((TARGET[0], 0)) as server:
        shim.proxy(Protocol.TCP, "::", port, server.getsockname())
        assert shim.all_status() == b"0\n"
        await daemon.begin()
        for _ in range(2):
            asked = daemon.engine.asked("/containers/json")
            daemon.tell(container("a", port, "forwarded"))
            await daemon.until(lambda: daemon.engine.asked("/containers/json") > asked)  # noqa: B023
            await daemon.until(lambda: daemon.held)
    why = "container name-a was started without v6fwd: docker restart name-a"
    assert daemon.held == {listen(port): why}
    [(event, text)] = daemon.logged.lines()
    assert event == "not-served", "and no mode is told that it does not have"
    assert text.endswith(why)


async def test_released_shims_go_on_alone(daemon: Controlled, shim: Shim, port: int) -> None:
    def release() -> Result:
        return CliRunner().invoke(main, ["docker", "release"])

    await daemon.begin()
    await daemon.adopted(shim, port)
    refused = await asyncio.to_thread(release)
    assert refused.exit_code == 1
    assert f"process {os.getpid()} serves these ports; stop" in refused.output
    daemon.end()
    lines = daemon.logged.lines()
    [text] = [text for event, text in lines if event != "guard"]  # that iptables fails here
    assert ("waiting", text) in lines
    assert text.startswith("clients of 1 published port HANG from now on, until the next")
    (Path(os.environ["PATH"].partition(":")[0]) / "nft").write_text("#!/bin/sh\n")
    released = await asyncio.to_thread(release)
    assert (released.exit_code, released.output.partition(";")[0]) == (0, "released 1 shim")
    await daemon.until(lambda: "ready: 1 forwards" in shim.log)
    assert shim.stop() == 0


async def test_shims_are_released_where_nft_fails(
    daemon: Controlled, shim: Shim, port: int
) -> None:
    """As on a kernel without nftables, where there is no rule to delete."""
    await daemon.begin()
    await daemon.adopted(shim, port)
    daemon.end()
    nft = Path(os.environ["PATH"].partition(":")[0]) / "nft"
    nft.write_text("#!/bin/sh\necho Operation not supported >&2\nexit 1\n")
    told = await asyncio.to_thread(CliRunner().invoke, main, ["docker", "release"])
    assert told.exit_code == 1
    assert "released 1 shim, but rules for IPv4 stay" in told.output
    assert "Operation not supported" in told.output
    await daemon.until(lambda: "ready: 1 forwards" in shim.log)
    assert shim.stop() == 0


async def test_who_may_come_by_file_and_label(daemon: Controlled, shim: Shim, port: int) -> None:
    net, other = ip_network("2001:db8::/32"), ip_network("192.0.2.7/32")
    await daemon.begin()
    await daemon.adopted(shim, port)
    guard = Guard(deny=(other,), client_rate=9)
    daemon.controller.reconfigure(Docker(daemon.engine.host, guard=guard))
    described = container("a", port)
    described["Labels"] = {"v6fwd.allow": str(net), "v6fwd.client-rate": "2"}
    daemon.tell(described)
    await daemon.until(lambda: daemon.served)
    [forward] = daemon.supervisor.forwards.values()
    assert forward.guard == Guard(allow=(net,), deny=(other,), client_rate=2)
    described["Labels"] = {"v6fwd.allow": "2001:db8::/320"}
    daemon.tell(described)
    await daemon.until(lambda: daemon.held)
    assert daemon.served == {}, "an allow list that cannot be read lets nobody in"


async def test_the_redirect_outlives_a_daemon_whose_shims_live(
    daemon: Controlled, shim: Shim, port: int
) -> None:
    """Docker's rule would let IPv4 clients reach the container with headers of their own."""
    nft = Path(os.environ["PATH"].partition(":")[0]) / "nft"
    log = nft.with_name("nft.log")
    listing = '{"nftables": []}'
    nft.write_text(f"#!/bin/sh\n[ $2 = list ] || cat >>{log}\necho '{listing}'\n")
    await daemon.begin()
    await daemon.adopted(shim, port, host="0.0.0.0")
    assert str(port) in log.read_text(), "there before dockerd starts the container"
    daemon.tell(container("a", port, "proxy-v2"))
    await daemon.until(lambda: daemon.served)
    before = log.read_text()
    daemon.end()
    daemon.end()  # as the daemon does, once more to be sure
    assert log.read_text() == before
