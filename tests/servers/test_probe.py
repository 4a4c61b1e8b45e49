"""`v6fwd probe` against real servers: it finds what each accepts, and its mode then works."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.support.dns_servers import ADDRESS, NAME, DnsServer, Knot, Unbound
from tests.support.more_servers import (
    MORE_LINES,
    Dnsdist,
    Gunicorn,
    KnotResolver,
    NginxStream,
    PdnsRecursor,
    PdnsServer,
    Postfix,
    Squid,
    Varnish,
)
from tests.support.process import eventually
from tests.support.servers import (
    FIELD_LINES,
    PROXY_LINES,
    Apache,
    Dovecot,
    Exim,
    HAProxy,
    Lighttpd,
    Nginx,
    Server,
    is_listening,
)
from tests.support.stage import Stage, client_script
from v6fwd.demo.lab import CLIENT_V6, CONTAINER_V4, HOST_V6
from v6fwd.model import Protocol
from v6fwd.probe.forms import CLIENT, Named, padded
from v6fwd.probe.judge import End, Heard, Result, judge
from v6fwd.probe.openings import dns_query

pytestmark = [pytest.mark.netns, pytest.mark.server("curl", "dig")]

PSEUDO = re.compile(r"\b2[45][0-9](?:\.[0-9]{1,3}){3}\b")
"""An address of 240.0.0.0/4: what servers that listen on IPv4 alone see of an IPv6 client."""
LINES = PROXY_LINES | MORE_LINES


class Facts(NamedTuple):
    """What a server does: the forms that it accepts, and the largest v2 header."""

    accepted: set[str]
    largest: int | None


ALL = {"v1", "v2", "v2-ipv4", "v2-tlvs", "v2-wrong-crc", "v2-local", "v2-wrong-transport",
       "v1-unknown", "v2-split"}  # fmt: skip
DGRAM = {"v2", "v2-ipv4", "v2-tlvs", "v2-wrong-crc", "v2-local", "v2-wrong-transport",
         "every-datagram"}  # fmt: skip
TCP: dict[type[Server], Facts] = {
    Apache: Facts(ALL - {"v2-wrong-transport", "v1-unknown"}, 232),
    Nginx: Facts(ALL - {"v2-split"}, 1024),
    NginxStream: Facts(ALL - {"v2-split"}, 107),
    HAProxy: Facts(ALL - {"v2-wrong-crc", "v2-wrong-transport", "v2-split"}, 16384),
    Lighttpd: Facts(ALL - {"v2-split"}, 256),
    Varnish: Facts(ALL - {"v2-wrong-crc", "v1-unknown"}, 428),
    Squid: Facts(ALL, 65551),
    Exim: Facts(ALL - {"v2-wrong-transport", "v2-split"}, 232),
    Dovecot: Facts(ALL - {"v2-wrong-transport", "v2-split"}, 1500),
    Postfix: Facts(ALL - {"v2-wrong-transport", "v1-unknown", "v2-split"}, 536),
    Gunicorn: Facts({"none", "v1"}, None),
}
TCP_DNS: dict[type[DnsServer], Facts] = {
    Unbound: Facts(ALL - {"v1", "v1-unknown"}, 65551),
    PdnsRecursor: Facts(ALL - {"v1", "v1-unknown"}, 512),
    PdnsServer: Facts(ALL - {"v1", "v1-unknown"}, 512),
    Dnsdist: Facts(ALL - {"v1", "v1-unknown"}, 512),
    KnotResolver: Facts((ALL | {"none"}) - {"v1", "v1-unknown", "v2-split"}, 65535),
    Knot: Facts({"none"}, None),
}
UDP: dict[type[DnsServer], Facts] = {
    Unbound: Facts(DGRAM, 1400),
    PdnsRecursor: Facts(DGRAM, 512),
    PdnsServer: Facts(DGRAM, 512),
    Dnsdist: Facts(DGRAM, 512),
    KnotResolver: Facts(DGRAM | {"none", "first-datagram"}, 1400),
    Knot: Facts((DGRAM | {"none", "first-datagram"}) - {"v2-local", "v2-wrong-transport"}, 1400),
}
OPTIONS: dict[type[Server], tuple[str, ...]] = {Squid: ("--path", "http://container/")}


def servers(table: dict[Any, Facts]) -> list[Any]:
    """Parameters: a server and its facts."""
    return [
        pytest.param(kind, facts, marks=pytest.mark.server(kind.program), id=kind.__name__)
        for kind, facts in table.items()
    ]


def probe(stage: Stage, target: str, *options: str, status: int = 0) -> dict[str, Any]:
    """What `v6fwd probe --json` on the host says of a target in the container."""
    command = (sys.executable, "-m", "v6fwd", "probe", f"{CONTAINER_V4}:{target}", "--json")
    probed = stage.lab.run("host", *command, *options)
    assert probed.returncode == status, probed.stdout + probed.stderr
    found: dict[str, Any] = json.loads(probed.stdout)
    return found


def accepted(report: dict[str, Any]) -> set[str]:
    """The forms that were."""
    return {form["form"] for form in report["forms"] if form["result"] == "accepted"}


def use(stage: Stage, report: dict[str, Any], *more: str) -> None:
    """Run the very command that the report has."""
    program, command, *words = shlex.split(report["command"])
    assert (program, command) == ("v6fwd", "forward")
    stage.start_forward(*words, *more)


@pytest.mark.parametrize(("kind", "facts"), servers(TCP))
def test_a_server_that_reads_the_header(stage: Stage, kind: type[Server], facts: Facts) -> None:
    server = kind(stage.folder, LINES)
    server.start(stage.lab)
    report = probe(stage, str(server.port), "--patience", "1.5", *OPTIONS.get(kind, ()))
    assert accepted(report) - {"x-forwarded-for"} == facts.accepted
    largest = report["largest_header"]
    # What is more than TCP's first ten packets may come in two reads, which HAProxy refuses.
    assert largest == facts.largest or (kind is HAProxy and 7000 < largest < 16384)
    assert report["mode"] == ("proxy-v1" if kind is Gunicorn else "proxy-v2")
    use(stage, report)
    asked = stage.curl(*server.questions(f"[{HOST_V6}]:{server.port}"))
    assert asked.returncode == 0, asked.stderr
    assert server.answer() in asked.stdout + asked.stderr
    if kind is not Varnish:  # its log is another program's
        server.stop()
    entries = server.entries(CLIENT_V6)
    eventually(lambda: all(entry in server.log for entry in entries), f"the log has {entries}")


@pytest.mark.parametrize(("kind", "facts"), servers(TCP_DNS))
def test_dns_over_tcp(stage: Stage, kind: type[DnsServer], facts: Facts) -> None:
    server = kind(stage.folder)
    server.start(stage.lab)
    report = probe(stage, "53", "--speaks", "dns", "--patience", "1")
    if kind is KnotResolver:  # it wants a header in one read: how long one is depends on its speed
        assert accepted(report) == facts.accepted
        assert report["largest_header"] >= 4096
    else:
        assert Facts(accepted(report), report["largest_header"]) == facts
    mode = "transparent" if facts.largest is None else "proxy-v2"
    assert report["mode"] == mode


@pytest.mark.server(KnotResolver.program)
def test_the_largest_header_of_a_server_that_wants_it_in_one_read(stage: Stage) -> None:
    """All of it is there when the server, which was stopped, looks: a slow one is none short."""
    room = "net.ipv4.tcp_rmem=4096 1048576 6291456"  # as much as a window must hold
    assert stage.lab.run("container", "sysctl", "-qw", room).returncode == 0
    server = KnotResolver(stage.folder)
    server.start(stage.lab)
    largest = TCP_DNS[KnotResolver].largest
    assert largest is not None
    for size, verdict in ((largest, Result.ACCEPTED), (largest + 1, Result.REFUSED)):
        query = dns_query(Protocol.TCP).send
        words = (CONTAINER_V4, "53", str(server.pid))
        asked: Any = stage.lab.run(
            "host",
            *client_script("send_while_stopped", *words),
            input=padded(Named(CLIENT, 53), size) + query,
            text=False,
        )
        assert asked.returncode == 0, asked.stderr
        answered = judge("dns", Heard(asked.stdout, end=End.OPEN if asked.stdout else End.CLOSED))
        assert answered.result is verdict, (size, answered)


@pytest.mark.parametrize(("kind", "facts"), servers(UDP))
def test_dns_over_udp(stage: Stage, kind: type[DnsServer], facts: Facts) -> None:
    server = kind(stage.folder)
    server.start(stage.lab)
    report = probe(stage, "53/udp", "--patience", "0.5")
    assert (accepted(report), report["largest_header"]) == facts
    assert (report["mode"], report["udp_proxy"]) == ("proxy-v2", "every")
    use(stage, report)
    words = ("dig", f"@{HOST_V6}", "+short", "+tries=1", "+time=5", NAME, "A", NAME, "A")
    assert stage.lab.run("client", *words).stdout.split() == [ADDRESS] * 2
    assert kind in (Knot, KnotResolver) or CLIENT_V6 in server.log  # the resolver's view has it
    if kind is Knot:
        whoami = stage.lab.run("client", "dig", f"@{HOST_V6}", "+short", "whoami", "AAAA")
        assert whoami.stdout.strip() == CLIENT_V6


@pytest.mark.parametrize(
    "kind",
    [pytest.param(kind, marks=pytest.mark.server(kind.program), id=kind.__name__)
     for kind in (Apache, HAProxy, Varnish, Exim, Postfix, Dovecot)],
)  # fmt: skip
def test_a_server_that_reads_no_header(stage: Stage, kind: type[Server], tmp_path: Path) -> None:
    """It refuses all of them, and transparent works."""
    server = kind(stage.folder, {})
    server.start(stage.lab)
    report = probe(stage, str(server.port))
    assert accepted(report) - {"x-forwarded-for"} == {"none"}
    assert report["mode"] == "transparent"
    use(stage, report, "--pseudo-store", str(tmp_path / "pseudo.sqlite"))
    asked = stage.curl(*server.questions(f"[{HOST_V6}]:{server.port}"))
    assert asked.returncode == 0, asked.stderr
    server.stop()
    told = server.log + asked.stdout
    assert CLIENT_V6 in told or PSEUDO.search(told), told


class NginxThatTells(Nginx):
    """At /who it answers with the client's address."""

    def config(self) -> str:
        """See Server."""
        return super().config().replace("dav_methods PUT;", "location /who { return 200 "
                                        "'$remote_addr'; }")  # fmt: skip


@pytest.mark.server("nginx")
def test_a_server_that_reads_x_forwarded_for(stage: Stage) -> None:
    """A page that shows its client tells, and the mode then works."""
    NginxThatTells(stage.folder, FIELD_LINES).start(stage.lab)
    assert probe(stage, "80")["mode"] == "transparent"
    report = probe(stage, "80", "--path", "/who")
    assert report["mode"] == "x-forwarded-for"
    assert {form["client_seen"] for form in report["forms"]} == {None, True}
    use(stage, report)
    assert stage.curl(f"http://[{HOST_V6}]/who").stdout == CLIENT_V6


@pytest.mark.server("nginx")
def test_a_server_that_does_not_use_what_it_reads(stage: Stage) -> None:
    """`proxy_protocol` without `set_real_ip_from`: the header goes in, the gateway comes out."""
    NginxThatTells(stage.folder, {"nginx": ("listen 80 proxy_protocol;",)}).start(stage.lab)
    report = probe(stage, "80", "--path", "/who", status=1)
    assert report["mode"] == "proxy-v2"
    assert any("trust the header's address" in note for note in report["notes"])


class TlsNginx(Nginx):
    """nginx that speaks TLS."""

    port = 443

    def config(self) -> str:
        """See Server."""
        key, certificate = self.folder / "key.pem", self.folder / "certificate.pem"
        words = ("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                 "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=container",
                 "-keyout", str(key), "-out", str(certificate))  # fmt: skip
        subprocess.run(words, check=True, capture_output=True)
        lines = f"ssl_certificate {certificate}; ssl_certificate_key {key};"
        return super().config().replace("dav_methods PUT;", lines)


@pytest.mark.server("nginx", "openssl")
@pytest.mark.parametrize(
    ("line", "facts"),
    [
        ("listen 443 ssl proxy_protocol;", Facts(ALL - {"v2-split"}, 108)),
        ("listen 443 ssl;", Facts({"none"}, None)),
    ],
    ids=["with", "without"],
)
def test_tls(stage: Stage, line: str, facts: Facts) -> None:
    """The ClientHello behind the header is answered by a ServerHello, or not at all."""
    TlsNginx(stage.folder, {"nginx": (line,)}).start(stage.lab)
    report = probe(stage, "443")
    assert report["speaks"] == "tls"
    assert (accepted(report), report["largest_header"]) == facts


@pytest.mark.server("sshd", "ssh-keygen")
def test_openssh(stage: Stage) -> None:
    """It greets, and takes no header for a version line."""
    key = stage.folder / "key"
    make = ("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key))
    subprocess.run(make, check=True)
    sshd = f"/usr/sbin/sshd -D -e -f /dev/null -h {key}"
    script = f"mount -t tmpfs none /run; mkdir /run/sshd; exec {sshd}"
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    stage.lab.start("container", "unshare", "--mount", "sh", "-ec", script, **quiet)
    eventually(lambda: is_listening(stage.lab, "container", 22), "sshd listens")
    report = probe(stage, "22")
    assert (report["speaks"], accepted(report)) == ("ssh", {"none"})
    assert report["mode"] == "transparent"


@pytest.mark.server("nginx")
def test_a_table_for_people(stage: Stage) -> None:
    NginxThatTells(stage.folder, PROXY_LINES).start(stage.lab)
    command = (sys.executable, "-m", "v6fwd", "probe", f"{CONTAINER_V4}:80", "--path", "/who")
    probed = stage.lab.run("host", *command)
    assert probed.returncode == 0, probed.stderr
    rows = [line.split() for line in probed.stdout.splitlines()]
    assert any(row[:1] == ["v2"] and row[-1] == "yes" for row in rows), probed.stdout
    assert "largest v2 header: 1024 bytes" in probed.stdout
    assert "v6fwd forward '[::]:80' '172.17.0.2:80' --client-ip proxy-v2" in probed.stdout


def test_nobody_listens(stage: Stage) -> None:
    for target, why in (("80", "connection refused"), ("53/udp", "port unreachable")):
        command = (sys.executable, "-m", "v6fwd", "probe", f"{CONTAINER_V4}:{target}")
        probed = stage.lab.run("host", *command)
        assert probed.returncode == 1
        assert why in probed.stderr
        assert len(probed.stderr.splitlines()) == 1
