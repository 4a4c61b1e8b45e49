"""The servers behind the relay, one class each: how it starts on the container's side."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from bench.peers.base import HEADER_ON
from bench.processes import TCP, UDP
from bench.trial import Trial

BODY = "hello world\n"
"""What the web target answers to everybody who sends no PROXY header."""

_WEB = """\
daemon off;
worker_processes 1;
pid {folder}/web.pid;
error_log stderr crit;
worker_rlimit_nofile {connections};
events {{ worker_connections {connections}; }}
http {{
    access_log off;
    client_body_temp_path {folder}/web-body;
    proxy_temp_path {folder}/web-proxy;
    fastcgi_temp_path {folder}/web-fastcgi;
    uwsgi_temp_path {folder}/web-uwsgi;
    scgi_temp_path {folder}/web-scgi;
    server {{
        listen {host}:{ports}{option};
        location / {{ return 200 "{body}"; }}
    }}
}}
"""


DNS_NAME = "www.example.org"
"""What the name server knows."""

_UNBOUND = """\
server:
    username: ""
    chroot: ""
    directory: "{folder}"
    use-syslog: no
    verbosity: 0
    num-threads: 1
    interface: {host}@{port}
    access-control: 0.0.0.0/0 allow
    local-zone: "example.org." static
    local-data: "{name}. A 192.0.2.77"
remote-control:
    control-enable: no
"""


class Target(ABC):
    """One real server; `count` ports in a row where it is asked for more than one."""

    program: ClassVar[str]
    protocol: str = TCP

    def __init__(self, count: int = 1) -> None:
        self.count = count
        self.ports = range(0)

    @property
    def port(self) -> int:
        """The first port, once it has started."""
        return self.ports[0]

    def start(self, trial: Trial, header: str) -> range:
        """Start it on the container, wait until it listens; gives its ports. Raises TrialError.

        With HEADER_ON it expects a PROXY header in front of each connection.
        """
        self.ports = trial.ground.ports(self.count)
        self._start(trial, header)
        return self.ports

    @abstractmethod
    def _start(self, trial: Trial, header: str) -> None:
        """Start it on `self.ports`, and wait until it listens there."""


class Iperf(Target):
    """iperf3, for bulk data."""

    program = "iperf3"

    def _start(self, trial: Trial, header: str) -> None:  # noqa: ARG002 - knows no header
        process = trial.start("container", "iperf3", "-s", "-p", str(self.port))
        trial.wait_for_ports(process, self.ports, "iperf3")


class Web(Target):
    """nginx with one worker and a constant answer, or the client's address from the header."""

    program = "nginx"

    def _start(self, trial: Trial, header: str) -> None:
        config = _WEB.format(
            folder=trial.folder,
            connections=9000,
            host=trial.ground.target_host,
            ports=f"{self.ports[0]}-{self.ports[-1]}" if self.count > 1 else self.port,
            option=" proxy_protocol" if header == HEADER_ON else "",
            body="$proxy_protocol_addr\\n" if header == HEADER_ON else BODY.replace("\n", "\\n"),
        )
        path = trial.write("web.conf", config)
        folder = str(trial.folder)
        process = trial.start("container", "nginx", "-p", folder, "-e", "stderr", "-c", path)
        trial.wait_for_ports(process, self.ports, "nginx (target)")


class Redis(Target):
    """redis-server, for small requests on connections that stay."""

    program = "redis-server"

    def _start(self, trial: Trial, header: str) -> None:  # noqa: ARG002 - knows no header
        process = trial.start(
            "container", "redis-server", "--save", "", "--protected-mode", "no",
            "--bind", trial.ground.target_host, "--port", str(self.port),
            "--dir", str(trial.folder),
        )  # fmt: skip
        trial.wait_for_ports(process, self.ports, "redis-server")


class Echo(Target):
    """Our own: sends everything back; holds idle flows, and checks bytes."""

    program = "python3"

    def __init__(self, protocol: str = TCP) -> None:
        super().__init__()
        self.protocol = protocol

    def _start(self, trial: Trial, header: str) -> None:
        words = [trial.ground.target_host, str(self.port)]
        words += ["--udp"] * (self.protocol == UDP) + ["--proxy"] * (header == HEADER_ON)
        process = trial.helper("container", "echo", *words)
        trial.wait_for_ports(process, self.ports, "echo", self.protocol)


class Sink(Target):
    """Our own: counts numbered datagrams, and tells it over TCP on a port of the same number.

    With `trains` its socket takes trains whole (UDP_GRO). `every`: see helpers/sink.py.
    """

    program = "python3"
    protocol = UDP

    def __init__(self, every: int, *, trains: bool) -> None:
        super().__init__()
        self._words = [str(every), *["--trains"] * trains]

    def _start(self, trial: Trial, header: str) -> None:  # noqa: ARG002 - knows no header
        words = [trial.ground.target_host, str(self.port), *self._words]
        trial.wait_for_ports(trial.helper("container", "sink", *words), self.ports, "sink")


class Unbound(Target):
    """unbound with one thread and one name, which it answers without asking anybody."""

    program = "unbound"
    protocol = UDP

    def _start(self, trial: Trial, header: str) -> None:  # noqa: ARG002 - knows no header
        config = _UNBOUND.format(
            folder=trial.folder, host=trial.ground.target_host, port=self.port, name=DNS_NAME
        )
        path = trial.write("unbound.conf", config)
        process = trial.start("container", "unbound", "-d", "-p", "-c", path)
        trial.wait_for_ports(process, self.ports, "unbound", UDP)
