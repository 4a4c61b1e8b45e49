"""The guard in iptables, with programs that only write down how they are called."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.logged import Logged
from v6fwd.docker.legacy_guard import LegacyGuard
from v6fwd.docker.nft import Element, elements_of
from v6fwd.model import Endpoint, Forward, Protocol

UDP = Protocol.UDP
WEB = Forward(Endpoint("0.0.0.0", 8080), Endpoint("172.17.0.2", 80))
DNS = Forward(Endpoint("192.0.2.1", 53, protocol=UDP), Endpoint("172.17.0.3", 5353, protocol=UDP))
ELEMENTS: list[Element] = [*elements_of(WEB), *elements_of(DNS)]
_RULE = (
    "-A V6FWD-GUARD -d {0} -p {1} -m {1} --dport {2} -m conntrack --ctstate DNAT"
    " -m conntrack --ctstate NEW --ctorigdstport {3} -j DROP"
)
RULES = [
    _RULE.format("172.17.0.2", "tcp", 80, 8080),
    _RULE.format("172.17.0.3", "udp", 5353, 53),
]
JUMP = '-m comment --comment "v6fwd: not past the redirect" -j V6FWD-GUARD'
LISTED = f"-N V6FWD-GUARD\\n-A POSTROUTING {JUMP}".replace('"', '\\"')


class Host:
    """A folder that is the whole of PATH, and what was called in it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._calls = folder / "calls"

    def has(self, version: str, listed: str = "") -> None:
        """It has this iptables, which lists these rules."""
        script = f"""#!/bin/sh
case "$*" in
-V) echo "{version}" ;;
*-S) printf "%b\\n" "{listed}" ;;
*) echo "${{0##*/}} $*" >>{self._calls} ;;
esac
"""
        self.program("iptables", script)
        self.program("iptables-restore", f"#!/bin/sh\nexec /bin/cat >>{self._calls}\n")

    def program(self, name: str, script: str) -> None:
        """It has this one."""
        (self._folder / name).write_text(script)
        (self._folder / name).chmod(0o755)

    def calls(self) -> list[str]:
        """What was called or written since the last time."""
        found = self._calls.read_text().splitlines() if self._calls.exists() else []
        self._calls.unlink(missing_ok=True)
        return found


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    monkeypatch.setenv("PATH", str(tmp_path))
    return Host(tmp_path)


@pytest.mark.parametrize("version", ["", "iptables v1.8.9 (nf_tables)"])
async def test_nothing_where_nftables_has_dockers_rules(
    host: Host, logged: Logged, version: str
) -> None:
    if version:
        host.has(version)
    guard = LegacyGuard(logged.log)
    for elements in (ELEMENTS, ELEMENTS[:1], []):
        guard.set(elements)
    guard.close(keep=False)
    assert (host.calls(), logged.lines()) == ([], [])


@pytest.mark.parametrize("version", ["iptables v1.8.9 (legacy)", "iptables v1.6.1"])
async def test_the_older_one(host: Host, logged: Logged, version: str) -> None:
    host.has(version)
    guard = LegacyGuard(logged.log)
    guard.set(ELEMENTS)
    jump = f"-I POSTROUTING 1 {JUMP}"
    head = ["*mangle", ":V6FWD-GUARD - [0:0]"]
    assert host.calls() == [*head, *RULES, jump, "COMMIT"]
    host.has(version, LISTED)
    guard.set(reversed(ELEMENTS))
    guard.check()
    assert host.calls() == [], "all is as it should be"
    guard.set(elements_of(WEB))
    assert host.calls() == [*head, RULES[0], "COMMIT"]
    host.has(version)
    guard.check()
    assert host.calls() == [*head, RULES[0], jump, "COMMIT"], "somebody has flushed it"
    host.has(version, LISTED)
    guard.close(keep=True)
    assert host.calls() == []
    guard.close(keep=False)
    removed = [line.partition(" -t mangle ")[2] for line in host.calls()]
    assert [line.split()[0] for line in removed] == ["-D", "-F", "-X"]
    assert logged.lines() == []


async def test_it_may_not(host: Host, logged: Logged) -> None:
    host.has("iptables v1.8.9 (legacy)")
    host.program("iptables-restore", "#!/bin/sh\necho no >&2; exit 3\n")
    guard = LegacyGuard(logged.log)
    guard.set(ELEMENTS)
    [(event, text)] = logged.lines()
    assert (event, text) == ("guard", "cannot guard redirected ports: iptables-restore: no")
    host.has("iptables v1.8.9 (legacy)")
    guard.check()
    assert host.calls()[2:4] == RULES
    guard.close(keep=True)
