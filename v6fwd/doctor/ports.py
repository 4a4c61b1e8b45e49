"""Checks of each port that clients are to reach: who listens, and what drops packets. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from v6fwd.doctor.facts import Facts, Port, known
from v6fwd.doctor.finding import Finding, Severity
from v6fwd.doctor.firewall import Dropped, Packet, Way
from v6fwd.doctor.host import global_addresses
from v6fwd.doctor.iptables import dropped_by_iptables, read
from v6fwd.doctor.nftables import dropped_by_nft
from v6fwd.netns.owners import Process
from v6fwd.netns.view import Listening

_DOCKERS = ("docker-proxy", "dockerd", "hold", "v6fwd")
"""Programs that leave the other family to a brother, or to Docker's own rules."""
_EPHEMERAL = Port(40000)
"""A port that the kernel may give to a connection of ours."""


def listeners(facts: Facts) -> Iterator[Finding]:
    """Whether anybody takes IPv6 clients of the port."""
    if known(facts.listening) is None:
        return
    for port in facts.ports():
        sockets = facts.listeners(port)
        families = frozenset[int]().union(*(socket.families for socket in sockets))
        yield from _nobody_accepts(facts, port, sockets)
        if not sockets:
            yield _nobody(facts, port)
        elif 6 not in families:
            yield _ipv4_only(facts, port, sockets[0])
        elif 4 not in families and not _is_dockers(facts, sockets[0]):
            yield _ipv6_only(facts, port, sockets[0])
        if 6 in families and facts.named:  # a published port may be meant for one address
            yield from _some_addresses(facts, port, sockets)


def _nobody(facts: Facts, port: Port) -> Finding:
    hidden = [
        socket
        for socket in known(facts.listening) or ()
        if (socket.port, socket.protocol) == (port.number, port.protocol)
    ]
    listen, target = f"[::]:{port}", "TARGET"
    if hidden and not hidden[0].host.startswith("fe80:"):
        # [::] cannot be had beside a listener of the same port.
        listen = f"[{_address(facts)}]:{port}"
        target = _host_port(hidden[0])
    return Finding(
        "nobody-listens",
        Severity.ERROR,
        f"listening sockets of port {port}",
        f"none but {_host_port(hidden[0])}, of {_owner(facts, hidden[0])}" if hidden else "none",
        "clients are refused",
        f"v6fwd forward '{listen}' {target}",
    )


def _host_port(socket: Listening) -> str:
    host = f"[{socket.host}]" if ":" in socket.host else socket.host
    return f"{host}:{socket.port}"


def _address(facts: Facts) -> str:
    addresses = global_addresses(facts)
    return addresses[0].address if addresses else "ADDRESS"


def _nobody_accepts(facts: Facts, port: Port, sockets: list[Listening]) -> Iterator[Finding]:
    """A program that has stopped, or hangs: the kernel answers clients until its queue is full."""
    for socket in sockets:
        owner = facts.owners.get(socket.inode)
        if socket.waiting > socket.backlog and owner is not None:
            yield Finding(
                "nobody-accepts",
                Severity.ERROR,
                f"the listener of port {port}",
                f"{socket.waiting} clients wait to be accepted by {owner}, which does not",
                "clients see a timeout",
                f"restart {owner}; if it was stopped by a signal: kill -CONT {owner.pid}",
            )


def _some_addresses(facts: Facts, port: Port, sockets: list[Listening]) -> Iterator[Finding]:
    """A listener on one of the host's addresses, where there are others that clients may use."""
    hosts = {socket.host for socket in sockets}
    missing = [
        each.address
        for each in global_addresses(facts)
        if each.address not in hosts and not each.is_temporary
    ]
    heard = [socket for socket in sockets if 6 in socket.families]
    if "::" not in hosts and missing:
        yield Finding(
            "some-addresses",
            Severity.WARNING,
            f"listening sockets of port {port}",
            f"{_host_port(heard[0])} alone, of {_owner(facts, heard[0])}",
            f"clients of the host's other addresses are refused: {', '.join(missing)}",
            f"v6fwd forward '[{missing[0]}]:{port}' '{_host_port(heard[0])}'",
        )


def _ipv4_only(facts: Facts, port: Port, socket: Listening) -> Finding:
    target = "127.0.0.1" if socket.is_any else socket.host
    return Finding(
        "ipv4-only-listener",
        Severity.ERROR,
        f"listening sockets of port {port}",
        f"{socket.host}:{port.number} alone, of {_owner(facts, socket)}",
        "IPv6 clients are refused",
        f"v6fwd forward '[{_address(facts)}]:{port}' {target}:{port.number}",
    )


def _ipv6_only(facts: Facts, port: Port, socket: Listening) -> Finding:
    is_sysctl = facts.sysctls.get("net/ipv6/bindv6only") == "1"
    return Finding(
        "ipv6-only-listener",
        Severity.WARNING,
        f"listening sockets of port {port}",
        f"[{socket.host}]:{port.number} for IPv6 alone, of {_owner(facts, socket)}",
        "IPv4 clients are refused",
        "sysctl -w net.ipv6.bindv6only=0, and restart the program"
        if is_sysctl
        else f"let it listen on 0.0.0.0:{port.number} as well",
    )


def _owner(facts: Facts, socket: Listening) -> str:
    owner: Process | None = facts.owners.get(socket.inode)
    return str(owner) if owner else "a process that is not shown to us"


def _is_dockers(facts: Facts, socket: Listening) -> bool:
    owner = facts.owners.get(socket.inode)
    return owner is not None and owner.name.startswith(_DOCKERS)


def firewall(facts: Facts) -> Iterator[Finding]:
    """Rules and policies that drop the first packet of every IPv6 client."""
    for port in facts.ports():
        for dropped in dropped_packets(facts, port):
            yield Finding(
                "firewall",
                Severity.ERROR,
                _where(dropped),
                f"port {port.slashed} is dropped: {dropped.rule}",
                "IPv6 clients see a timeout or a refusal",
                dropped.mend(port),
            )


def dropped_packets(facts: Facts, port: Port) -> list[Dropped]:
    """What drops an IPv6 client's first packet to this host."""
    devices = frozenset(device.name for device in facts.uplinks)
    return _dropped(facts, Packet(port, devices, addresses=_own(facts)))


def _own(facts: Facts) -> frozenset[str]:
    """The addresses to which IPv6 clients come."""
    return frozenset(each.address for each in global_addresses(facts))


def _dropped(facts: Facts, packet: Packet) -> list[Dropped]:
    saved = known(facts.ip6tables if packet.is_ipv6 else facts.iptables)
    found = list(dropped_by_nft(known(facts.nft) or (), packet, with_iptables=saved is None))
    dropped = dropped_by_iptables(saved, packet) if saved else None
    return found + ([dropped] if dropped else [])


def replies(facts: Facts) -> Iterator[Finding]:
    """Rules that drop what this host answers to clients."""
    devices = frozenset(device.name for device in facts.uplinks)
    for port in facts.ports():
        packet = Packet(port, devices, state="established", way=Way.REPLY, addresses=_own(facts))
        for dropped in _dropped(facts, packet):
            yield Finding(
                "replies-dropped",
                Severity.ERROR,
                _where(dropped),
                f"answers of port {port.slashed} are dropped: {dropped.rule}",
                "IPv6 clients see a timeout",
                dropped.mend_replies(port),
            )


def containers(facts: Facts) -> Iterator[Finding]:
    """Rules that come between a relay of this host and the containers: both ways."""
    names = {device.index: device.name for device in facts.bridges}
    members = {
        name: frozenset(each.name for each in facts.devices if each.master == index)
        for index, name in names.items()
    }
    for name in sorted(name for name in members if members[name]):
        answer = Packet(_EPHEMERAL, frozenset((name,)), is_ipv6=False, state="established")
        for dropped in _at_bridge(facts, answer, name, members[name]):
            yield Finding(
                "answers-dropped",
                Severity.ERROR,
                _where(dropped),
                f"what containers answer by {name} is dropped: {dropped.rule}",
                "no relay of this host can connect to a container there: clients see a timeout",
                dropped.mend_answers(name, members[name]),
            )
        for port in _targets(facts):
            packet = Packet(port, frozenset((name,)), is_ipv6=False, way=Way.CONTAINER)
            for dropped in _at_bridge(facts, packet, name, members[name]):
                yield Finding(
                    "way-to-container",
                    Severity.ERROR,
                    _where(dropped),
                    f"what goes to containers by {name} is dropped: {dropped.rule}",
                    "no relay of this host can connect to a container there: clients see a timeout",
                    dropped.mend_way_to(name, members[name]),
                )


def _at_bridge(
    facts: Facts, packet: Packet, bridge: str, members: frozenset[str]
) -> Iterator[Dropped]:
    """What drops it in the tables of IP, and where the frame passes the bridge or its ports."""
    yield from _dropped(facts, packet)
    ruleset = known(facts.nft) or ()
    yield from dropped_by_nft(ruleset, replace(packet, bridge=bridge, devices=members))


def _targets(facts: Facts) -> list[Port]:
    """Ports of containers; one as good as any where none is known."""
    found = {(each.forward.target.port, each.forward.protocol) for each in facts.published}
    return [Port(*each) for each in sorted(found)[:1]] or [Port(80)]


def _where(dropped: Dropped) -> str:
    table = f"{dropped.family} {dropped.table}".strip()
    return f"{_tool(dropped)}: table {table}, chain {dropped.chain}"


def neighbours(facts: Facts) -> Iterator[Finding]:
    """Without neighbour discovery nobody on the link finds this host: it is IPv6's ARP."""
    devices = frozenset(device.name for device in facts.uplinks)
    packet = Packet(_EPHEMERAL, devices, state="untracked", is_neighbour=True)
    for dropped in _dropped(facts, packet):
        yield Finding(
            "icmpv6-dropped",
            Severity.ERROR,
            _where(dropped),
            f"neighbour solicitations are dropped: {dropped.rule}",
            "routers and neighbours do not find this host's address: clients see a timeout",
            dropped.mend_neighbours(),
        )


def _tool(dropped: Dropped) -> str:
    return "nftables" if dropped.tool == "nft" else dropped.tool


def docker_user(facts: Facts) -> Iterator[Finding]:
    """DOCKER-USER judges what is forwarded; IPv6 clients of a proxied port come by INPUT."""
    saved = known(facts.iptables)
    if not saved or not facts.ports() or not facts.published:
        return
    chains, _ = read(saved, Packet(facts.ports()[0], is_ipv6=False))
    rules = [rule for rule in chains.get("DOCKER-USER", ()) if rule.verdict != "return"]
    has_own = bool(_guards_input(facts))
    if rules and not has_own:
        ports = ",".join(str(port.number) for port in facts.ports()[:15])
        yield Finding(
            "docker-user",
            Severity.WARNING,
            "iptables: chain DOCKER-USER",
            f"{len(rules)} rules, the first: {rules[0].text}",
            "they do not hold for IPv6 clients, who come through the proxy and so by INPUT",
            f"ip6tables -I INPUT -p tcp -m multiport --dports {ports} -s NETWORK -j DROP",
        )


def _guards_input(facts: Facts) -> list[str]:
    """Rules of ip6tables' INPUT that name a port in question."""
    saved = known(facts.ip6tables) or ""
    numbers = {str(port.number) for port in facts.ports()}
    lines = (line for line in saved.splitlines() if line.startswith("-A INPUT "))
    return [line for line in lines if numbers & set(line.replace(",", " ").split())]
