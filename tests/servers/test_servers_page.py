"""docs/servers.md: each section's lines make the real server log what the section says.

test_paired_servers.py has the rest of the sections.
"""

from __future__ import annotations

import re

import pytest

from tests.support.dns_servers import DNS_LINES, NAME, DnsServer, Knot, Unbound
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
from tests.support.paired_servers import PAIRED
from tests.support.process import eventually
from tests.support.server_sections import TEXTS, read_section
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
)
from tests.support.stage import Stage, url_host
from v6fwd.demo.lab import BRIDGE_V4, CLIENT_V6, CONTAINER_V4, HOST_V6

pytestmark = [pytest.mark.netns, pytest.mark.server("curl", "dig")]

SERVERS: dict[str, tuple[type[Server] | type[DnsServer], str]] = {
    "Apache": (Apache, "apache2"),
    "Apache, with X-Forwarded-For": (Apache, "apache2"),
    "nginx": (Nginx, "nginx"),
    "nginx, with X-Forwarded-For": (Nginx, "nginx"),
    "nginx, stream": (NginxStream, "nginx-stream"),
    "HAProxy": (HAProxy, "haproxy"),
    "lighttpd": (Lighttpd, "lighttpd"),
    "lighttpd, with X-Forwarded-For": (Lighttpd, "lighttpd"),
    "Varnish": (Varnish, "varnishd"),
    "Squid": (Squid, "squid"),
    "gunicorn": (Gunicorn, "gunicorn"),
    "Postfix": (Postfix, "postfix"),
    "Exim": (Exim, "exim4"),
    "Dovecot": (Dovecot, "dovecot"),
    "unbound": (Unbound, "unbound"),
    "Knot DNS": (Knot, "knotd"),
    "PowerDNS Recursor": (PdnsRecursor, "pdns_recursor"),
    "PowerDNS Authoritative Server": (PdnsServer, "pdns_server"),
    "dnsdist": (Dnsdist, "dnsdist"),
    "Knot Resolver": (KnotResolver, "kresd"),
}
"""Each section's server, and the name of its lines."""
NO_SERVER = ("Server and mode disagree", "Servers that know no header")


SECTIONS = [
    pytest.param(
        title,
        id=title.replace(" ", "-"),
        marks=pytest.mark.server(SERVERS[title][0].program) if title in SERVERS else (),
    )
    for title in TEXTS
    if title not in NO_SERVER and title not in PAIRED
]


def test_each_section_has_its_server() -> None:
    assert TEXTS.keys() - NO_SERVER == SERVERS.keys() | PAIRED.keys()


def test_each_server_of_the_tests_has_its_section() -> None:
    lines = {name for _, name in SERVERS.values()}
    assert lines == (PROXY_LINES | FIELD_LINES | MORE_LINES | DNS_LINES).keys()


def shown(server: Server | DnsServer, stage: Stage) -> str:
    """What the server shows of its client: its log, or an answer where it logs nobody."""
    if isinstance(server, Knot):
        return f"whoami: {dig(stage, 'whoami', 'AAAA')}{dig(stage, 'whoami', 'A')}\n"
    if isinstance(server, KnotResolver):
        answer = dig(stage, "+noshort", "+comments", NAME, "A")
        return f"view: {re.findall('status: (.*?),', answer)[0]}\n"
    return server.log


def without_sender(log: str) -> str:
    """What unbound and PowerDNS tell of the sender beside the client is no mistake."""
    return log.replace(f"proxied by {BRIDGE_V4}", "").replace(f"Remote {BRIDGE_V4}(", "")


def dig(stage: Stage, *words: str) -> str:
    """What dig prints on the IPv6 client."""
    asked = stage.lab.run("client", "dig", f"@{HOST_V6}", "-p", "8080", "+short", "+time=5", *words)
    return asked.stdout.strip()


def ask(stage: Stage, server: Server | DnsServer, mode: str) -> None:
    """One IPv6 client asks through v6fwd."""
    if isinstance(server, DnsServer):
        server.start(stage.lab)
        stage.start_forward("[::]:8080/udp", f"{CONTAINER_V4}:53", "--client-ip", mode)
        assert dig(stage, NAME, "A") or mode == "none"
        return
    stage.relay_to(server, "--client-ip", mode)
    asked = stage.curl(*server.questions(url_host(CLIENT_V6)))
    assert asked.returncode == 0, asked.stderr
    if not isinstance(server, Varnish):  # its log is another program's
        server.stop()


@pytest.mark.parametrize("title", SECTIONS)
def test_after(stage: Stage, title: str) -> None:
    """With the section's lines and mode."""
    section = read_section(TEXTS[title])
    kind, name = SERVERS[title]
    server = kind(stage.folder, {name: section.lines})
    ask(stage, server, section.mode)
    eventually(lambda: section.after in shown(server, stage), f"the log has {section.after}")
    if not isinstance(server, Exim):  # which logs the peer before the header comes
        assert BRIDGE_V4 not in without_sender(shown(server, stage))


@pytest.mark.parametrize("title", SECTIONS)
def test_before(stage: Stage, title: str) -> None:
    """Without them, in mode none."""
    section = read_section(TEXTS[title])
    server = SERVERS[title][0](stage.folder, {})
    ask(stage, server, "none")
    eventually(lambda: section.before in shown(server, stage), f"the log has {section.before}")
    assert CLIENT_V6 not in shown(server, stage)
