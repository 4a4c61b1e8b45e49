"""Checks of dockerd's file: what dockerd refuses, and what leaves clients out. Pure."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterator

from v6fwd.docker.daemon_json import KEY
from v6fwd.docker.install import SHIM
from v6fwd.doctor.facts import DaemonJson, Facts
from v6fwd.doctor.finding import Finding, Severity
from v6fwd.model import IPNetwork

RESTART = "systemctl restart docker"
_PROXIES = ("docker-proxy", "rootlesskit-docker-proxy", SHIM)
_KINDS: dict[str, type] = {
    **dict.fromkeys(("userland-proxy", "ipv6", "ip6tables", "iptables", "ip-forward"), bool),
    **dict.fromkeys(("ip-masq", "icc", "live-restore", "experimental"), bool),
    **dict.fromkeys((KEY, "bip", "bip6", "fixed-cidr", "fixed-cidr-v6", "ip", "bridge"), str),
    **dict.fromkeys(("default-gateway", "default-gateway-v6", "data-root", "pidfile"), str),
    **dict.fromkeys(("hosts", "dns", "default-address-pools"), list),
    "mtu": int,
}
"""Options about networks, and what their values are."""
_EXCLUSIVE = (
    ("bridge", None, "bip", None, "a bridge of your own has its own address"),
    ("icc", False, "iptables", False, "icc needs iptables"),
)
"""Options that dockerd refuses together; None stands for any value."""


def daemon_json(facts: Facts) -> Iterator[Finding]:
    """A file that dockerd cannot use, or has not read yet."""
    file = facts.daemon_json
    if file is None:
        return
    if file.error:
        yield Finding(
            "daemon-json-broken",
            Severity.ERROR,
            file.path,
            file.error,
            "dockerd will not start with it",
            f"python3 -m json.tool {file.path}",
        )
    for process in facts.dockerd:
        if file.written > process.started + 1:  # btime has a resolution of a second
            yield Finding(
                "daemon-json-not-live",
                Severity.WARNING,
                f"{file.path} and {process}",
                "the file was changed after dockerd had started",
                "dockerd reads it when it starts: what it says is not in force",
                RESTART,
            )


def contradictions(facts: Facts) -> Iterator[Finding]:
    """Options that exclude each other, or leave IPv6 clients without a proxy."""
    file = facts.daemon_json
    if file is None:
        return
    if "fixed-cidr-v6" in file.values and "default-gateway-v6" in file.values:
        yield Finding(
            "gateway-outside",
            Severity.ERROR,
            file.path,
            '"fixed-cidr-v6" beside "default-gateway-v6"',
            "the Engine refuses to start: the bridge itself is the gateway of that network",
            f'remove "default-gateway-v6" from {file.path}; {RESTART}',
        )
    if file.values.get("userland-proxy") is False:
        yield Finding(
            "userland-proxy-off",
            Severity.WARNING,
            file.path,
            '"userland-proxy": false',
            "nobody answers IPv6 clients of a container that has IPv4 alone, but for ports with a"
            " label of v6fwd's under `v6fwd serve --docker`",
            f'"userland-proxy": true in {file.path}; {RESTART}',
        )


def published_address(facts: Facts) -> Iterator[Finding]:
    """ "ip" in the file: where ports are published that say no address."""
    address = facts.daemon_json.values.get("ip") if facts.daemon_json else None
    if isinstance(address, str) and ":" not in address and facts.daemon_json:
        path = facts.daemon_json.path
        yield Finding(
            "published-on-ipv4",
            Severity.ERROR,
            path,
            f'"ip": "{address}"',
            "ports are published there, so on IPv4 alone, unless they name an address",
            f'remove "ip" from {path}; {RESTART}, and recreate the containers',
        )


def missing_proxy(facts: Facts) -> Iterator[Finding]:
    """A proxy that dockerd cannot start."""
    if facts.proxy_missing and facts.daemon_json:
        yield Finding(
            "proxy-missing",
            Severity.ERROR,
            f'"userland-proxy-path" in {facts.daemon_json.path}',
            f"{facts.proxy_missing} is no program",
            "containers with published ports do not start",
            "v6fwd docker install, or `v6fwd docker uninstall` for docker-proxy",
        )


def outside_bip(facts: Facts) -> Iterator[Finding]:
    """ "fixed-cidr" and "default-gateway" must be in the network of "bip"."""
    values = facts.daemon_json.values if facts.daemon_json else {}
    try:
        network = ipaddress.ip_interface(values["bip"]).network
        inner = [
            (key, ipaddress.ip_network(values[key], strict=False))
            for key in ("fixed-cidr", "default-gateway")
            if key in values
        ]
    except (KeyError, ValueError):
        return
    for key, each in inner:
        if not _within(each, network) and facts.daemon_json:
            path = facts.daemon_json.path
            yield Finding(
                "outside-bip",
                Severity.ERROR,
                path,
                f'"{key}": "{values[key]}" is not in {network}, the network of "bip"',
                "the Engine refuses to start, or its containers have no gateway",
                f'remove "{key}" from {path}; {RESTART}',
            )


def values(facts: Facts) -> Iterator[Finding]:
    """Options that are misspelt, or whose values are of the wrong kind: dockerd does not start."""
    file = facts.daemon_json
    for key, value in file.values.items() if file else ():
        right = key.replace("_", "-")
        kind = _KINDS.get(right)
        if kind is None or (right == key and type(value) is kind):
            continue
        wrong = f'"{key}"' if right != key else f'"{key}" is no {kind.__name__}: {value!r}'
        yield Finding(
            "daemon-json-value",
            Severity.ERROR,
            file.path if file else "",
            wrong,
            "dockerd will not start with it",
            f'"{right}", a {kind.__name__}, in {file.path if file else ""}; {RESTART}',
        )


def exclusive(facts: Facts) -> Iterator[Finding]:
    """Options that dockerd refuses together, and IPv6 without addresses."""
    file = facts.daemon_json
    if file is None:
        return
    for one, first, other, second, why in _EXCLUSIVE:
        has = [key in file.values and want in (None, file.values[key])
               for key, want in ((one, first), (other, second))]  # fmt: skip
        if all(has):
            yield Finding(
                "options-exclude",
                Severity.ERROR,
                file.path,
                f'"{one}" beside "{other}"',
                f"the Engine refuses to start: {why}",
                f'remove "{other}" from {file.path}; {RESTART}',
            )
    version = str(facts.engine_info.get("ServerVersion") or "27").partition(".")[0]
    if version.isdecimal() and int(version) < 27:
        yield from _before_27(file, version)


def _before_27(file: DaemonJson, version: str) -> Iterator[Finding]:
    for key, other, value in (
        ("ip6tables", "experimental", "true"),
        ("ipv6", "fixed-cidr-v6", '"fd00:db8::/64"'),
    ):
        if file.values.get(key) is True and not file.values.get(other):
            yield Finding(
                "option-missing",
                Severity.ERROR,
                file.path,
                f'"{key}" without "{other}", and Engine {version}',
                "the Engine refuses to start: it can do without from 27 on",
                f'"{other}": {value} in {file.path}; {RESTART}',
            )


def bridge_ip(facts: Facts) -> Iterator[Finding]:
    """ "bip" is an address with the length of its prefix."""
    bip = facts.daemon_json.values.get("bip") if facts.daemon_json else None
    if isinstance(bip, str) and not is_host(bip) and facts.daemon_json:
        yield Finding(
            "bip-invalid",
            Severity.ERROR,
            facts.daemon_json.path,
            f'"bip": "{bip}"',
            "it must be an address of the bridge with the length of its prefix: the Engine refuses"
            " to start, or the bridge has no address of its own",
            f'"bip": "172.17.0.1/16" in {facts.daemon_json.path}; {RESTART}',
        )


def is_host(text: str) -> bool:
    """Whether it is an address with a prefix length, and not that of the network itself."""
    try:
        interface = ipaddress.ip_interface(text)
    except ValueError:
        return False
    network = interface.network
    return "/" in text and (interface.ip != network.network_address or network.prefixlen >= 31)


def other_proxy(facts: Facts) -> Iterator[Finding]:
    """A program in docker-proxy's place that is neither that nor ours."""
    path = str(facts.daemon_json.values.get(KEY) or "") if facts.daemon_json else ""
    if not path or facts.proxy_missing or os.path.basename(path) in _PROXIES:
        return
    file = facts.daemon_json.path if facts.daemon_json else ""
    yield Finding(
        "proxy-unknown",
        Severity.WARNING,
        f'"{KEY}" in {file}',
        f"{path} is neither docker-proxy nor v6fwd's shim",
        "it serves the published ports, if it can: how is not known",
        f"v6fwd docker install --daemon-json {file}",
    )


def _within(inner: IPNetwork, outer: IPNetwork) -> bool:
    if inner.version != outer.version:
        return False
    return inner.prefixlen >= outer.prefixlen and inner.overlaps(outer)
