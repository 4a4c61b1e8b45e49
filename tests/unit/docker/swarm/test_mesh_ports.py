"""Ports of the mesh: opened, changed, closed; what is left to Docker; dockerd's own socket."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from tests.support.logged import Logged
from tests.support.process import free_port
from v6fwd.daemon.sources import ForwardSource, passing
from v6fwd.daemon.supervisor import Supervisor
from v6fwd.docker.swarm.dockerd import HeldSockets, Sandbox, SandboxKeeper, find_sandbox
from v6fwd.docker.swarm.mesh_ports import LINGER, MeshPorts
from v6fwd.docker.swarm.plan import UNKNOWN, Planned, hop_port
from v6fwd.errors import RelayError
from v6fwd.model import ClientIP, Endpoint, Forward, Limits, Mesh, Protocol
from v6fwd.netns.handle import identity


class FakeSandbox(Sandbox):
    """Listens here, wherever there is room: hops are among the ports that the kernel hands out."""

    def listen(self, endpoint: Endpoint) -> socket.socket:
        return socket.create_server((endpoint.host, 0))


class Bench:
    """What is tested, with what it works with."""

    def __init__(self) -> None:
        self.logged = Logged()
        self.supervisor = Supervisor(1, Limits(), self.logged.log)
        self.ports = MeshPorts(self.supervisor, self.logged.log)
        self.listen = Endpoint("::", free_port())
        self.sandbox = FakeSandbox("/netns/ingress_sbox", "4-1", os.getpid())
        self.now = 100.0

    def planned(self, mode: ClientIP = ClientIP.PROXY_V1, *tasks: str) -> Planned:
        """A port that is served, with these tasks."""
        mesh = Mesh("/netns/ingress_sbox", "4-1", tasks)
        forward = Forward(self.listen, Endpoint("web", 80), mode, mesh=mesh)
        return Planned(self.listen, "web", forward, source="rule")

    def follow(self, *planned: Planned) -> None:
        self.ports.follow(planned, self.sandbox, HeldSockets(os.getpid()), self.now)


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.supervisor.listen_sockets.close_all()


def test_a_port_is_opened_changed_and_closed(bench: Bench) -> None:
    bench.follow(bench.planned(ClientIP.PROXY_V1, "10.0.0.6"))
    assert bench.supervisor.forwards[bench.listen].mesh.local == ("10.0.0.6",)
    bench.follow(bench.planned(ClientIP.NONE, "10.0.0.7"))
    assert bench.supervisor.forwards[bench.listen].mesh.local == ("10.0.0.7",)
    assert bench.supervisor.forwards[bench.listen].client_ip is ClientIP.NONE
    bench.follow()
    bench.now += LINGER - 1
    bench.follow()
    assert bench.listen in bench.supervisor.forwards, "an update may have stopped its last task"
    bench.now += 1
    bench.follow()
    assert bench.listen not in bench.supervisor.forwards
    assert not len(bench.ports)


def test_a_port_that_comes_back_does_not_close(bench: Bench) -> None:
    bench.follow(bench.planned())
    bench.follow()
    bench.now += LINGER / 2
    bench.follow(bench.planned())
    bench.now += LINGER / 2
    bench.follow()
    assert bench.listen in bench.supervisor.forwards


def test_a_service_that_is_gone_leads_nowhere(bench: Bench) -> None:
    """Another one's task may have the address of its former task."""
    bench.follow(bench.planned(ClientIP.NONE, "10.0.0.6"))
    bench.ports.without_tasks()
    assert bench.supervisor.forwards[bench.listen].mesh.local == ("10.0.0.6",)
    bench.follow()
    bench.ports.without_tasks()
    assert bench.supervisor.forwards[bench.listen].mesh.local == ()


def test_what_is_left_to_docker(bench: Bench) -> None:
    """It is closed if it was served, and said once."""
    bench.follow(bench.planned())
    for _ in range(2):
        bench.follow(Planned(bench.listen, "web", why="its label is wrong"))
    assert bench.listen not in bench.supervisor.forwards
    assert [*bench.ports.left().values()] == ["left to Docker: its label is wrong"]
    assert [event for event, _ in bench.logged.lines()] == ["mesh", "mesh-left"]
    bench.follow(Planned(bench.listen, "web", why=UNKNOWN))
    assert bench.logged.lines() == [], "it comes with every start"


def test_a_port_is_kept_while_a_container_is_not_known(bench: Bench) -> None:
    """An update has just started it."""
    hop = Forward(Endpoint("127.0.0.1", hop_port(bench.listen.port)), Endpoint("web", 80))
    bench.follow(replace(bench.planned(ClientIP.NONE, "10.0.0.6"), hop=hop))
    bench.follow(Planned(bench.listen, "web", why=UNKNOWN))
    assert bench.supervisor.forwards[bench.listen].mesh.local == ("10.0.0.6",)
    assert hop.listen in bench.supervisor.forwards
    assert bench.ports.left() == {}


def test_dockerds_own_socket_is_taken(bench: Bench) -> None:
    """Here ours: a client that waits in its queue is not lost."""
    with socket.create_server(
        ("::", bench.listen.port), family=socket.AF_INET6, dualstack_ipv6=True
    ) as idle:
        bench.follow(bench.planned())
        [taken] = bench.supervisor.listen_sockets[bench.listen]
        assert os.fstat(taken.fileno()).st_ino == os.fstat(idle.fileno()).st_ino
        assert HeldSockets(os.getpid()).protocols()[bench.listen.port] == [Protocol.TCP]


def test_a_port_of_somebody_else(bench: Bench) -> None:
    """A configured forward has it."""
    bench.supervisor.open(Forward(bench.listen, Endpoint("127.0.0.1", 9)))
    bench.follow(bench.planned())
    assert "is forwarded already" in next(iter(bench.ports.left().values()))
    assert bench.supervisor.forwards[bench.listen].target.host == "127.0.0.1"


def test_ipv4_clients_of_headers_are_redirected(bench: Bench) -> None:
    bench.follow(bench.planned(ClientIP.NONE))
    assert bench.ports.redirected("172.18.0.2") == []
    bench.follow(bench.planned(ClientIP.X_FORWARDED_FOR))
    [seen] = bench.ports.redirected("172.18.0.2")
    port = bench.listen.port
    assert (seen.listen, seen.target) == (Endpoint("0.0.0.0", port), Endpoint("172.18.0.2", port))


def test_the_hop_moves_to_the_new_namespace(bench: Bench) -> None:
    hop = Forward(Endpoint("127.0.0.1", free_port()), Endpoint("web", 80))
    planned = replace(bench.planned(), hop=hop)
    bench.follow(planned)
    [before] = bench.supervisor.listen_sockets[hop.listen]
    bench.follow(planned)
    assert bench.supervisor.listen_sockets[hop.listen] == [before]
    bench.sandbox = replace(bench.sandbox, identity="4-2")
    bench.follow(planned)
    assert bench.supervisor.listen_sockets[hop.listen] != [before]
    assert before.fileno() == -1
    bench.follow(bench.planned())
    assert hop.listen not in bench.supervisor.forwards


def test_a_hop_that_cannot_be_had_costs_only_itself(bench: Bench) -> None:
    class Broken(FakeSandbox):
        def listen(self, endpoint: Endpoint) -> socket.socket:
            raise RelayError(f"cannot listen on {endpoint}")

    bench.sandbox = Broken("/netns/ingress_sbox", "4-1", os.getpid())
    hop = Forward(Endpoint("127.0.0.1", free_port()), Endpoint("web", 80))
    bench.follow(replace(bench.planned(), hop=hop))
    assert bench.listen in bench.supervisor.forwards
    assert "mesh-hop" in dict(bench.logged.lines())


def dockerd(folder: Path, pid: int, mounts: str) -> None:
    """A process in a /proc of the test's own, in our network."""
    mine = folder / str(pid)
    (mine / "ns").mkdir(parents=True)
    (folder / "self/ns").mkdir(parents=True, exist_ok=True)
    (folder / "self/ns/net").touch()
    (mine / "ns/net").hardlink_to(folder / "self/ns/net")
    (mine / "comm").write_text("dockerd\n")
    (mine / "status").write_text("Uid: 0\nCapEff: 0\n")
    (mine / "stat").write_text(f"{pid} (dockerd) S " + "0 " * 40)
    (mine / "mountinfo").write_text(mounts)


def root_of(folder: Path, pid: int) -> Path:
    """What /proc shows as a process's root."""
    return folder / str(pid) / "root"


MOUNT = "91 49 0:4 net:[4026532537] {} rw - nsfs nsfs rw\n"


def test_the_namespace_is_found_by_dockerds_mounts(tmp_path: Path) -> None:
    there = root_of(tmp_path, 7) / "a b/netns/ingress_sbox"
    root = "49 48 254:0 / / rw - ext4 x rw\n"
    dockerd(tmp_path, 7, root + MOUNT.format(r"/a\040b/netns/ingress_sbox"))
    there.parent.mkdir(parents=True)
    there.touch()
    found = find_sandbox(tmp_path)
    assert (found.path, found.pid) == (str(there), 7)


def test_the_dockerd_of_the_last_time_is_asked_first(tmp_path: Path) -> None:
    """To look at all processes every second would cost more than all the rest."""
    for pid in (7, 8):
        there = root_of(tmp_path, pid) / "d/netns/ingress_sbox"
        there.parent.mkdir(parents=True)
        there.touch()
    dockerd(tmp_path, 7, MOUNT.format("/d/netns/ingress_sbox"))
    first = find_sandbox(tmp_path)
    dockerd(tmp_path, 8, MOUNT.format("/d/netns/ingress_sbox"))
    assert find_sandbox(tmp_path, first) == first
    (tmp_path / "7/comm").write_text("another\n")
    assert find_sandbox(tmp_path, first).pid == 8


def test_no_namespace(tmp_path: Path) -> None:
    with pytest.raises(RelayError, match="no dockerd"):
        find_sandbox(tmp_path)
    dockerd(tmp_path, 7, MOUNT.format("/run/docker/netns/1-30u6f3hbhz"))
    with pytest.raises(RelayError, match="no dockerd"):
        find_sandbox(tmp_path)


def test_two_swarms_in_one_network(tmp_path: Path) -> None:
    for pid in (7, 8):
        dockerd(tmp_path, pid, MOUNT.format("/d/netns/ingress_sbox"))
        there = root_of(tmp_path, pid) / "d/netns/ingress_sbox"
        there.parent.mkdir(parents=True)
        there.touch()
    with pytest.raises(RelayError, match="several dockerd"):
        find_sandbox(tmp_path)


def test_what_docker_status_shows(bench: Bench) -> None:
    planned = bench.planned(ClientIP.NONE, "10.0.0.6")
    assert planned.forward is not None
    bench.follow(planned)
    row = {"listen": str(bench.listen), "target": "web:80", "container": "service web"}
    tasks = {"tasks": "1 task here, 0 elsewhere"}
    told = {"source": "rule", "ipv4": "docker", "state": "served"}
    assert bench.ports.report() == [row | tasks | told]
    mesh = replace(planned.forward.mesh, local=(), hops=("10.0.0.3", "10.0.0.4"))
    bench.follow(replace(planned, forward=replace(planned.forward, mesh=mesh), source="hop"))
    tasks = {"tasks": "by 2 nodes with tasks"}
    told = {"source": "hop", "ipv4": "docker", "state": "handed-over"}
    assert bench.ports.report() == [row | tasks | told]
    bench.follow(Planned(bench.listen, "web", why="its label is wrong"))
    told = {"source": "", "ipv4": "docker", "state": "left"}
    assert bench.ports.report() == [row | {"target": "web:0", "tasks": ""} | told]


def test_a_ban_counts_the_ports_that_ipv4_clients_reach_past_us(bench: Bench) -> None:
    """IPVS takes them in mode `none`."""

    class Source:
        def report(self) -> dict[str, list[Any]]:
            return {"published": list(bench.ports.report())}

    bench.follow(bench.planned(ClientIP.PROXY_V1, "10.0.0.6"))
    assert passing([cast("ForwardSource", Source())]) == 0
    bench.follow(bench.planned(ClientIP.NONE, "10.0.0.6"))
    assert passing([cast("ForwardSource", Source())]) == 1


def test_what_was_drained_is_served_after_a_reload(bench: Bench) -> None:
    bench.follow(bench.planned())
    bench.supervisor.close(bench.listen)
    bench.follow(bench.planned())
    assert bench.listen not in bench.supervisor.forwards
    bench.ports.reopen_drained()
    bench.follow(bench.planned())
    assert bench.listen in bench.supervisor.forwards


def test_all_are_closed(bench: Bench) -> None:
    hop = Forward(Endpoint("127.0.0.1", free_port()), Endpoint("web", 80))
    bench.follow(replace(bench.planned(), hop=hop))
    bench.ports.close()
    assert not bench.supervisor.forwards
    assert bench.ports.endpoints() == []
    assert bench.ports.redirected("172.18.0.2") == []


def test_a_young_engine_takes_no_tasks_away(bench: Bench) -> None:
    """It knows the service already, and none of its tasks; they are dialled from its namespace."""
    bench.follow(bench.planned(ClientIP.NONE, "10.0.0.6"))
    empty = bench.planned()
    assert empty.forward is not None
    mesh = replace(empty.forward.mesh, netns="/netns/new", identity="4-2")
    empty = replace(empty, forward=replace(empty.forward, mesh=mesh))
    held = HeldSockets(os.getpid())
    bench.ports.move("/netns/new", "4-2")
    bench.ports.follow([empty], bench.sandbox, held, bench.now, is_young=True)
    now = bench.supervisor.forwards[bench.listen]
    assert (now.mesh.local, now.mesh.netns, now.mesh.identity) == (
        ("10.0.0.6",),
        "/netns/new",
        "4-2",
    )
    assert now.client_ip is ClientIP.NONE
    bench.ports.follow([empty], bench.sandbox, held, bench.now)
    assert bench.supervisor.forwards[bench.listen].mesh.local == ()


def test_ports_that_are_not_planned_move_to_the_new_namespace(bench: Bench) -> None:
    bench.follow(bench.planned(ClientIP.NONE, "10.0.0.6"))
    bench.follow()
    bench.ports.move("/netns/new", "4-2")
    mesh = bench.supervisor.forwards[bench.listen].mesh
    assert (mesh.local, mesh.netns, mesh.identity) == (("10.0.0.6",), "/netns/new", "4-2")


def test_a_namespace_outlives_its_path(tmp_path: Path) -> None:
    """dockerd was killed, and its mounts went with it."""
    path = tmp_path / "ingress_sbox"
    path.touch()
    box = Sandbox(str(path), identity(os.stat(path)), os.getpid())
    keeper = SandboxKeeper()
    kept = keeper.keep(box)
    path.unlink()
    assert keeper.keep(box) == kept
    assert identity(os.stat(kept)) == box.identity
    path.touch()
    again = keeper.keep(Sandbox(str(path), "another", os.getpid()))
    assert identity(os.stat(again)) == identity(os.stat(path))
    keeper.close()
    assert not os.path.exists(again)
