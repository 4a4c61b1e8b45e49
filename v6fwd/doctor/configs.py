"""Lines of servers' configurations that trust addresses: which files to read, and what they say.

`read_configs` looks into a container by its process's root; all else here is pure.
"""

from __future__ import annotations

import glob
import ipaddress
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from v6fwd.model import IPNetwork

PATHS = (
    "etc/postfix/main.cf",
    "etc/exim4/exim4.conf",
    "etc/exim4/update-exim4.conf.conf",
    "etc/dovecot/dovecot.conf",
    "etc/dovecot/conf.d/*.conf",
    "etc/nginx/nginx.conf",
    "etc/nginx/conf.d/*.conf",
    "etc/nginx/sites-enabled/*",
    "etc/apache2/apache2.conf",
    "etc/apache2/conf-enabled/*.conf",
    "etc/apache2/sites-enabled/*.conf",
    "usr/local/apache2/conf/httpd.conf",
    "usr/local/apache2/conf/extra/*.conf",
    "etc/haproxy/haproxy.cfg",
    "usr/local/etc/haproxy/haproxy.cfg",
    "etc/lighttpd/lighttpd.conf",
    "etc/mysql/my.cnf",
    "etc/mysql/mariadb.conf.d/*.cnf",
    "etc/powerdns/*.conf",
    "var/lib/postgresql/data/pg_hba.conf",
)
"""Where images of well-known servers have them."""
MAX_FILE = 256 * 1024
"""Bytes of a file; what follows is not read."""
MAX_FILES = 60
"""Files of one container."""

_BY_HEADER = re.compile(
    r"set_real_ip_from|RemoteIP(?:Trusted|Internal)Proxy|haproxy_trusted_networks"
    r"|extforward\.forwarder|hosts_proxy|proxy[-_]protocol[-_](?:networks|from)\b",
    re.IGNORECASE,
)
"""Whose headers are believed."""
_BY_ADDRESS = re.compile(
    r"mynetworks|relay_from_hosts|relay_nets|permit_ip|\ballow\s|Require ip|^\s*host\s.*trust",
    re.IGNORECASE,
)
"""Who may do more than others."""
_NET_RE = re.compile(r"(?<![\w.:])((?:[0-9]{1,3}\.){3}[0-9]{1,3}(?:/[0-9]{1,2})?)(?![\w.])")


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """A file of a container, as the container calls it."""

    path: str
    text: str


@dataclass(frozen=True, slots=True)
class TrustLine:
    """A line that trusts `network`; `by_header`: headers that come from there are believed."""

    where: str
    line: str
    network: IPNetwork
    by_header: bool


def read_configs(root: Path) -> tuple[ConfigFile, ...]:
    """The known files below the root of a container's process. Raises nothing."""
    found = []
    for pattern in PATHS:
        for path in sorted(glob.glob(str(root / pattern)))[:MAX_FILES]:
            text = _read(path)
            if text:
                found.append(ConfigFile(f"/{os.path.relpath(path, root)}", text))
    return tuple(found[:MAX_FILES])


def _read(path: str) -> str:
    """A regular file's text: the container decides what is there, so no link, no FIFO."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        is_file = stat.S_ISREG(os.fstat(fd).st_mode)
        return os.read(fd, MAX_FILE).decode(errors="replace") if is_file else ""
    except OSError:
        return ""
    finally:
        os.close(fd)


def trust_lines(file: ConfigFile, address: str) -> Iterator[TrustLine]:
    """The lines that trust a network which has this address."""
    for number, line in enumerate(file.text.splitlines(), start=1):
        bare = line.strip()
        if bare.startswith(("#", ";", "//")):
            continue
        by_header = _BY_HEADER.search(bare) is not None
        if not by_header and _BY_ADDRESS.search(bare) is None:
            continue
        network = network_with(bare, address)
        if network is not None:
            yield TrustLine(f"{file.path}, line {number}", bare, network, by_header)


def network_with(text: str, address: str) -> IPNetwork | None:
    """The first network in the text that has the address; one that has everybody is none."""
    for match in _NET_RE.finditer(text):
        try:
            network = ipaddress.ip_network(match[1], strict=False)
        except ValueError:
            continue
        if network.prefixlen and ipaddress.ip_address(address) in network:
            return network
    return None
