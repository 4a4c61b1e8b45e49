"""Checks of each container: who its clients are taken for, and whom it trusts. Pure."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from v6fwd.config.rules import Published
from v6fwd.docker.engine.containers import Container
from v6fwd.docker.policy.modes import choose
from v6fwd.doctor.configs import TrustLine, network_with, trust_lines
from v6fwd.doctor.facts import Engine, Facts, known
from v6fwd.doctor.finding import Finding, Severity
from v6fwd.doctor.rootless import PAGE as ROOTLESS_PAGE
from v6fwd.doctor.serving import running
from v6fwd.model import ClientIP, Protocol
from v6fwd.netns.view import Listening

_WORDS = {"PERMIT_DOCKER": ("network", "host", "connected-networks")}
"""Variables of well-known images that mean "trust Docker's networks" (docker-mailserver)."""


@dataclass(frozen=True, slots=True)
class Known:
    """A server that is known by its image's name: its line for the PROXY header."""

    name: str
    line: str


_SERVERS = {
    "httpd": Known("Apache", "RemoteIPProxyProtocol On"),
    "apache": Known("Apache", "RemoteIPProxyProtocol On"),
    "nginx": Known("nginx", "listen 80 proxy_protocol; set_real_ip_from GATEWAY;"
                            " real_ip_header proxy_protocol;"),
    "haproxy": Known("HAProxy", "bind :80 accept-proxy"),
    "varnish": Known("Varnish", "-a :80,PROXY"),
    "traefik": Known("Traefik", "--entrypoints.web.proxyProtocol.trustedIPs=GATEWAY"),
    "postfix": Known("Postfix", "-o smtpd_upstream_proxy_protocol=haproxy"),
    "dovecot": Known("Dovecot", "haproxy = yes; haproxy_trusted_networks = GATEWAY"),
    "mailserver": Known("docker-mailserver", "-o smtpd_upstream_proxy_protocol=haproxy"),
    "opensmtpd": Known("OpenSMTPD", "listen on 0.0.0.0 port 25 proxy-v2"),
    "mariadb": Known("MariaDB", "proxy-protocol-networks = GATEWAY"),
    "inspircd": Known("InspIRCd", '<module name="haproxy"> <bind port="6667" hook="haproxy">'),
    "ejabberd": Known("ejabberd", "use_proxy_protocol: true"),
    "coturn": Known("coturn", "tcp-proxy-port=3478"),
    "hitch": Known("hitch", "proxy-proxy = on"),
    "pdns": Known("PowerDNS", "proxy-protocol-from=GATEWAY"),
    "unbound": Known("unbound", "proxy-protocol-port: 53"),
    "dnsdist": Known("dnsdist", 'setProxyProtocolACL({"GATEWAY/32"})'),
}  # fmt: skip


def recognised(image: str) -> Known | None:
    """The server in an image, by the last part of its name without a tag."""
    name = os.path.basename(image.partition("@")[0]).partition(":")[0].lower()
    return next((each for key, each in _SERVERS.items() if key in name), None)


def lost_clients(facts: Facts) -> Iterator[Finding]:
    """Published ports whose IPv6 clients the container takes for the bridge."""
    if facts.is_rootless:
        return  # no label helps there: told of as such
    for container in running(facts):
        if _has_ipv6(container):
            continue
        ports = [
            f"{port}/{protocol}"
            for host_port, port, protocol in sorted(container.published)
            if _mode(facts, container, host_port, port, protocol) is ClientIP.NONE
        ]
        if ports:
            gateway = gateway_of(facts, container) or "GATEWAY"
            server = recognised(container.image)
            other = (
                f"; or proxy-v2, and for {server.name}: {server.line.replace('GATEWAY', gateway)}"
                if server
                else ""
            )
            yield Finding(
                "client-lost",
                Severity.WARNING,
                f"container {container.name} ({container.image}), ports {', '.join(ports)}",
                f"no mode: IPv6 clients come from {gateway}",
                "logs, bans, limits and access lists take all IPv6 clients for one",
                f"recreate it with: --label v6fwd.client-ip=transparent{other}",
            )


def listeners_inside(facts: Facts) -> Iterator[Finding]:
    """Whether a published port has a server in the container, and for which families."""
    for container in running(facts):
        if container.id not in facts.inside:
            continue
        for host_port, port, protocol in sorted(container.published):
            sockets = [
                each
                for each in facts.inside[container.id]
                if (each.port, each.protocol) == (port, protocol)
            ]
            mode = _mode(facts, container, host_port, port, protocol)
            yield from _inside(container, f"{port}/{protocol}", port, mode, sockets)


def _inside(
    container: Container, name: str, port: int, mode: ClientIP | None, sockets: list[Listening]
) -> Iterator[Finding]:
    looked_at = f"listening sockets in container {container.name}, port {name}"
    reachable = [each for each in sockets if not _is_loopback(each.host)]
    if not reachable:
        found = f"{sockets[0].host} alone" if sockets else "none"
        yield Finding(
            "nobody-in-container",
            Severity.ERROR,
            looked_at,
            found,
            "whoever connects to the published port is cut off",
            f"let the server in it listen on 0.0.0.0:{port}, or publish the port that it has",
        )
    elif mode is ClientIP.TRANSPARENT and not any(6 in each.families for each in reachable):
        yield Finding(
            "pseudo-clients",
            Severity.WARNING,
            looked_at,
            f"{reachable[0].host}, IPv4 alone, in mode transparent",
            "it sees IPv6 clients as addresses of 240.0.0.0/4 (`v6fwd whois` tells whose): access"
            " lists by IPv6 address have no effect there, and one for IPv4 has to name 240.0.0.0/4",
            f"let the server in it listen on [::]:{port}",
        )


def _is_loopback(host: str) -> bool:
    return host == "::1" or host.startswith("127.")


def own_ipv6(facts: Facts) -> Iterator[Finding]:
    """Containers that need no proxy for IPv6: Docker's own rules keep the client."""
    engine = known(facts.engine)
    if engine is None:
        return
    for container in running(facts):
        if _has_ipv6(container) and container.published:
            yield Finding(
                "own-ipv6",
                Severity.NOTE,
                f"networks of container {container.name}",
                f"it has IPv6 of its own: {next(each for each in container.hosts if ':' in each)}",
                "Docker can forward IPv6 clients to it with their addresses, without any proxy:"
                " Engine 27 and later do, earlier ones if they are told",
                '"ip6tables": true, "experimental": true in daemon.json (before Engine 27)',
            )


def trusts_bridge(facts: Facts) -> Iterator[Finding]:
    """Settings that trust the address that all IPv6 clients seem to come from."""
    engine = known(facts.engine)
    if engine is None:
        return
    for container in running(facts):
        gateway = gateway_of(facts, container)
        if not gateway or not container.published or not _any_lost(facts, container):
            continue
        for where, text in _settings(engine, container):
            trusted = _trusts(where, text, gateway)
            if trusted:
                yield Finding(
                    "trusts-bridge",
                    Severity.WARNING,
                    f"{where} of container {container.name}",
                    f"{trusted} has the bridge's address {gateway} in it",
                    "all IPv6 clients come from that address, and are trusted: an open relay, if"
                    " this is a mail server",
                    _way_out(facts),
                )
                break


def _way_out(facts: Facts) -> str:
    if facts.is_rootless:
        return f"do not publish it, and run v6fwd as in {ROOTLESS_PAGE}"
    return "recreate it with: --label v6fwd.client-ip=transparent"


def _any_lost(facts: Facts, container: Container) -> bool:
    if facts.is_rootless:
        return bool(container.published) and not _has_ipv6(container)
    return any(
        _mode(facts, container, *each) is ClientIP.NONE for each in container.published
    ) and not _has_ipv6(container)


def _settings(engine: Engine, container: Container) -> Iterator[tuple[str, str]]:
    """Where a container's configuration can be seen from outside: variables and its command."""
    config = (engine.details.get(container.id) or {}).get("Config") or {}
    for variable in config.get("Env") or ():
        name, _, value = variable.partition("=")
        yield f"variable {name}", value
    for word in (*(config.get("Entrypoint") or ()), *(config.get("Cmd") or ())):
        yield "the command", word


def _trusts(where: str, text: str, gateway: str) -> str:
    """What in the text trusts the gateway; "" if nothing does."""
    name = where.removeprefix("variable ")
    if text in _WORDS.get(name, ()):
        return f"{name}={text}"
    network = network_with(text, gateway)
    if network is None:
        return ""
    return str(network.network_address if network.prefixlen == 32 else network)


def configurations(facts: Facts) -> Iterator[Finding]:
    """Lines of servers' files that trust the bridge's address, or a whole network's headers."""
    for container in running(facts):
        gateway = gateway_of(facts, container)
        if not gateway or not container.published:
            continue
        is_lost = _any_lost(facts, container)
        for file in facts.configs.get(container.id, ()):
            for line in trust_lines(file, gateway):
                yield from _trust(facts, container, line, gateway, is_lost)


def _trust(
    facts: Facts, container: Container, line: TrustLine, gateway: str, is_lost: bool
) -> Iterator[Finding]:
    looked_at = f"{line.where}, of container {container.name}"
    if line.by_header and line.network.prefixlen < 32:
        yield Finding(
            "trusts-network",
            Severity.WARNING,
            looked_at,
            line.line,
            f"every address of {line.network} may name any client in a header: other containers,"
            " and whoever comes by way of them",
            f"trust v6fwd's address alone: {line.line.replace(str(line.network), gateway)}",
        )
    elif is_lost:
        what = "their headers are believed" if line.by_header else "they are trusted: an open relay"
        yield Finding(
            "trusts-bridge",
            Severity.WARNING,
            looked_at,
            f"{line.line} (the bridge has {gateway})",
            f"all IPv6 clients come from that address, and {what}",
            _way_out(facts),
        )


def gateway_of(facts: Facts, container: Container) -> str:
    """The IPv4 address of the bridge that the container is on."""
    engine = known(facts.engine)
    item: Mapping[str, Any] = next(
        (each for each in (engine.containers if engine else ()) if each.get("Id") == container.id),
        {},
    )
    networks = (item.get("NetworkSettings") or {}).get("Networks") or {}
    return next((each["Gateway"] for each in networks.values() if each.get("Gateway")), "")


def _has_ipv6(container: Container) -> bool:
    return any(":" in each for each in container.hosts)


def _mode(
    facts: Facts, container: Container, host_port: int, port: int, protocol: Protocol
) -> ClientIP | None:
    """As the daemon says, else as rules and labels have it. None: the port is refused."""
    status = known(facts.status)
    for forward in (status or {}).get("forwards") or ():
        listen = f":{host_port}" if protocol is Protocol.TCP else f":{host_port}/udp"
        if forward.get("listen", "").endswith(f"]{listen}") and forward.get("client_ip"):
            return ClientIP(forward["client_ip"])
    published: Published = container.as_published(host_port, port, protocol)
    return choose(published, known(facts.docker_rules) or ()).client_ip
