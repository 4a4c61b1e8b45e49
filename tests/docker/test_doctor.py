"""`v6fwd doctor` beside real engines: a right host, and hosts that are not."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.docker.conftest import apache_conf, ask, shimmed_engine
from tests.support.images import load_echo
from tests.support.paths import ROOT
from tests.support.process import eventually
from tests.support.served import Served
from v6fwd.demo.lab import BRIDGE_V4, CLIENT_V6, HOST_V6

pytestmark = pytest.mark.server("nft")

HTTPD_CONF = ROOT / "examples/httpd/httpd.conf"
TRANSPARENT = ("--label", "v6fwd.client-ip=transparent")


@pytest.fixture
def served(whole: Served) -> Iterator[Served]:
    """With a default route; a test leaves no container behind."""
    lab = whole.engine.lab
    lab.run("host", "ip", "-6", "route", "replace", "default", "via", CLIENT_V6, "dev", "eth0")
    yield whole
    left = whole.engine.docker("ps", "--all", "--quiet").split()
    if left:
        whole.engine.remove(*left)
    eventually(lambda: not whole.modes(), "its ports are closed")


def run(served: Served, *words: str) -> None:
    """A container whose port 80 is published as 8080."""
    served.engine.run("--name", "one", "--publish", "8080:80/tcp", *words, "echo", "80")


def diagnose(served: Served) -> dict[str, Any]:
    """What the doctor says on the engine's host."""
    engine = served.engine
    command = (sys.executable, "-m", "v6fwd", "doctor", "--json", "--daemon-json",
               str(engine.config), "--docker-host", f"unix://{engine.socket}",
               "--socket", str(served.process.control))  # fmt: skip
    done = engine.lab.run("host", *command)
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["not_looked_at"] == [], found
    return found


def findings(served: Served) -> dict[str, dict[str, str]]:
    """By name."""
    return {finding["id"]: finding for finding in diagnose(served)["findings"]}


def is_listening(served: Served) -> bool:
    """Whether the server in the container is up; nothing else is said of it until then."""
    return "nobody-in-container" not in findings(served)


def test_a_right_host(served: Served) -> None:
    run(served, *TRANSPARENT)
    eventually(lambda: served.modes().get("[::]:8080") == "transparent", "it is served")
    eventually(lambda: is_listening(served), "the server listens")
    assert findings(served).keys() - {"pseudo-clients"} == set()
    assert BRIDGE_V4 not in ask(served.engine, "tcp", HOST_V6, 8080)[0]


def test_a_lost_client_and_the_label_that_brings_it_back(served: Served) -> None:
    run(served, "--env", "MYNETWORKS=172.16.0.0/12")
    eventually(lambda: is_listening(served), "the server listens")
    assert BRIDGE_V4 in ask(served.engine, "tcp", HOST_V6, 8080)[0]
    found = findings(served)
    assert found.keys() == {"client-lost", "trusts-bridge"}
    assert BRIDGE_V4 in found["client-lost"]["found"]
    label = found["client-lost"]["mend"].removeprefix("recreate it with: ").split()
    assert label == list(TRANSPARENT)
    served.engine.remove("one")
    run(served, *label, "--env", "MYNETWORKS=172.16.0.0/12")
    eventually(lambda: served.modes().get("[::]:8080") == "transparent", "it is served")
    eventually(lambda: is_listening(served), "the server listens")
    assert findings(served).keys() - {"pseudo-clients"} == set()
    assert BRIDGE_V4 not in ask(served.engine, "tcp", HOST_V6, 8080)[0]


def test_labels_that_say_nothing(served: Served) -> None:
    run(served, *TRANSPARENT, "--label", "v6fwd.client-ip.8080=proxy-v2",
        "--label", "v6fwd.client_ip=none")  # fmt: skip
    found = findings(served)
    assert {"wrong-label", "label-without-port"} <= found.keys()
    assert "80/tcp" in found["label-without-port"]["found"]


def test_a_port_that_nobody_serves_in_the_container(served: Served) -> None:
    served.engine.run("--name", "one", "--publish", "8080:81/tcp", *TRANSPARENT, "echo", "80")
    assert "port 81/tcp" in findings(served)["nobody-in-container"]["looked_at"]


def test_a_server_that_trusts_a_whole_network(served: Served) -> None:
    """Its file is read where it is, in the container."""
    conf = HTTPD_CONF.read_text().replace(
        "RemoteIPProxyProtocol On",
        "RemoteIPHeader X-Forwarded-For\nRemoteIPInternalProxy 172.17.0.0/16",
    )
    words = (*apache_conf(served, conf), "--label", "v6fwd.client-ip=x-forwarded-for")
    served.engine.run("--name", "one", "--publish", "8080:80/tcp", *words, "httpd")
    finding = findings(served)["trusts-network"]
    assert "/usr/local/apache2/conf/httpd.conf, line " in finding["looked_at"]
    assert finding["mend"].endswith(f"RemoteIPInternalProxy {BRIDGE_V4}")


def test_a_bridge_that_has_lost_its_address(served: Served) -> None:
    """The network's gateway is what the Engine says, and the mend brings the client back."""
    lab = served.engine.lab
    run(served)
    eventually(lambda: is_listening(served), "the server listens")
    lab.ip("host", "address", "delete", f"{BRIDGE_V4}/16", "dev", "docker0")
    finding = findings(served)["bridge-address"]
    assert "Docker's network bridge" in finding["looked_at"]
    lab.run("host", *finding["mend"].split()).check_returncode()
    assert "bridge-address" not in findings(served)
    assert ask(served.engine, "tcp", HOST_V6, 8080)[0].endswith("hello")


@pytest.mark.server("/usr/sbin/dockerd")
def test_a_container_that_ran_before_v6fwd_was_installed() -> None:
    """dockerd has to read its file; a container that lives on gets its shim then."""
    with shimmed_engine("20.10") as engine:
        values = json.loads(engine.config.read_text())
        del values["userland-proxy-path"]
        engine.config.write_text(json.dumps(values))
        served = Served(engine)
        try:
            served.start()
            engine.start(**served.environment())
            load_echo(engine)
            run(served, *TRANSPARENT)
            assert BRIDGE_V4 in ask(engine, "tcp", HOST_V6, 8080)[0]
            install = ("docker", "install", "--daemon-json", str(engine.config))
            engine.lab.run("host", sys.executable, "-m", "v6fwd", *install).check_returncode()
            found = {}

            def is_told() -> bool:  # only a file that is a second younger is certain to be unread
                engine.config.touch()
                found.update(findings(served))
                return "daemon-json-not-live" in found

            eventually(is_told, "it is told")
            assert found["daemon-json-not-live"]["mend"] == "systemctl restart docker"
            assert "started-without-v6fwd" not in found
            engine.stop()
            engine.start(**served.environment())
            eventually(lambda: served.modes().get("[::]:8080") == "transparent", "it is served")
            assert not findings(served).keys() & {"daemon-json-not-live", "started-without-v6fwd"}
            assert BRIDGE_V4 not in ask(engine, "tcp", HOST_V6, 8080)[0]
        finally:
            served.end()


def test_a_daemon_that_was_killed(served: Served) -> None:
    run(served, *TRANSPARENT)
    eventually(lambda: served.modes().get("[::]:8080") == "transparent", "it is served")
    served.stop(signal.SIGKILL)
    finding = findings(served)["daemon-not-running"]
    assert "2 ports wait for it" in finding["found"]
    served.start()
    eventually(lambda: served.modes().get("[::]:8080") == "transparent", "it is served")
    assert "daemon-not-running" not in findings(served)
