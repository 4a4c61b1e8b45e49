"""The servers behind the relay, one class each: how it starts on the container's side."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from typing import ClassVar

from bench.peers.base import HEADER_HTTP, HEADER_ON
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

PAGE, WHO, BODY_FILE, UPLOAD, COUNT = "/", "/who", "/body", "/upload", "/count"
"""The paths of Site."""
BODY_SIZE = 1 << 20
"""Bytes of BODY_FILE, and of what may be sent to UPLOAD."""

# `return` answers before a request's body is there; proxy_pass (to itself) waits for all of it.
_SITE = """\
daemon off;
worker_processes 1;
pid {folder}/site.pid;
error_log stderr crit;
worker_rlimit_nofile {connections};
events {{ worker_connections {connections}; }}
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 1000000000;
    client_body_temp_path {folder}/site-body;
    proxy_temp_path {folder}/site-proxy;
    fastcgi_temp_path {folder}/site-fastcgi;
    uwsgi_temp_path {folder}/site-uwsgi;
    scgi_temp_path {folder}/site-scgi;
    upstream read {{
        server unix:{folder}/read.sock;
        keepalive 100;
        keepalive_requests 1000000000;
    }}
    server {{
        listen {host}:{port};
        location = / {{ return 200 "hello world\\n"; }}
        location = /who {{ return 200 "$http_x_forwarded_for\\n"; }}
        location = /body {{ root {folder}; }}
        location = /count {{ stub_status; }}
        location = /upload {{
            client_max_body_size 1m;
            client_body_buffer_size 1m;
            proxy_http_version 1.1;
            proxy_pass_request_body off;
            proxy_set_header Content-Length "";
            proxy_set_header Connection "";
            proxy_pass http://read;
        }}
    }}
    server {{
        listen unix:{folder}/read.sock;
        location / {{ return 200 "read\\n"; }}
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


class Site(Target):
    """nginx with one worker: PAGE, WHO (the X-Forwarded-For it got), BODY_FILE, UPLOAD and COUNT.

    UPLOAD has read the whole of its request's body when it answers.
    """

    program = "nginx"

    def _start(self, trial: Trial, header: str) -> None:  # noqa: ARG002 - it reads what comes
        words = {"folder": trial.folder, "host": trial.ground.target_host, "port": self.port}
        (trial.folder / BODY_FILE.strip("/")).write_bytes(os.urandom(BODY_SIZE))
        path = trial.write("site.conf", _SITE.format(connections=1000, **words))
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
        words += ["--http"] * (header == HEADER_HTTP)
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
