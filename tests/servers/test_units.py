"""v6fwd.service under a real systemd, in a user-mode Linux. The machine serves all tests here."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator

import pytest

from tests.support.installed import EXPOSED, UNITS, install_v6fwd
from tests.support.machine import Machine
from tests.support.process import eventually

pytestmark = [
    pytest.mark.netns,
    pytest.mark.server("linux.uml", "systemctl", "busybox", "socat", "ip"),
]

UNIT = "v6fwd.service"
CLIENT = "2001:db8::2"
CONFIG = """
drain-timeout = 1
[defaults]
client-ip = "proxy-v2"
[[forward]]
listen = "[::]:8080"
target = "127.0.0.1:9000"
"""
MORE = """
[[forward]]
listen = "[::]:8081/udp"
target = "127.0.0.1:9001/udp"
client-ip = "none"
"""
HEADER = b"\r\n\r\n\0\r\nQUIT\n\x21\x21\0\x24" + ipaddress.ip_address(CLIENT).packed
"""What the target is told: the start of a PROXY header of version 2."""
WORKS = f"""\
#!/bin/bash
# Waits until the target behind a port is told the client's address. The target sends all back.
while ((SECONDS < 60)); do
    echo hello | timeout 5 socat -t 1 - "TCP6:[2001:db8::1]:$1,bind=[{CLIENT}]" 2>/dev/null |
        od -An -v -tx1 | tr -d ' \\n' | grep -q '^{HEADER.hex()}' && exit
    sleep 0.05
done
exit 1
"""
NETWORK = f"""
ip address add 2001:db8::1/128 dev lo
ip address add {CLIENT}/128 dev lo
systemd-run --quiet socat TCP4-LISTEN:9000,fork,reuseaddr EXEC:cat
systemd-run --quiet socat UDP4-RECVFROM:9001,fork EXEC:cat
"""
ANOTHER = """
eventually 'test $(systemctl show --value --property MainPID v6fwd) -gt {pid}'
eventually 'systemctl is-active --quiet v6fwd'
"""


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """With both units, one client's address and one target; limits are changed by a drop-in."""
    folder = tmp_path_factory.mktemp("machine")
    setup = install_v6fwd("v6fwd.service", "v6fwd-docker.service")
    drop_in = "\n".join(("[Service]", *limits_of_the_comment(), "WatchdogSec=4s"))
    drop_ins = "/etc/systemd/system/v6fwd.service.d"
    with Machine(folder, setup=setup, modules=["ipv6"]) as machine:
        machine.add("bin/works", WORKS.encode())
        machine.check(f"{NETWORK}\nmkdir {drop_ins}\necho '{drop_in}' >{drop_ins}/limits.conf")
        yield machine


@pytest.fixture
def service(machine: Machine) -> Machine:
    """The same, with the service running."""
    machine.check(f"{configured(CONFIG)}\nsystemctl start v6fwd")
    return machine


def limits_of_the_comment() -> list[str]:
    """The lines of a drop-in that the unit's comment gives as an example."""
    unit = (UNITS / "v6fwd.service").read_text()
    [lines] = re.findall(r"^#   \[Service\]\n((?:#   \S+=\S+\n)+)", unit, re.MULTILINE)
    return [line.removeprefix("#   ") for line in lines.splitlines()]


def configured(text: str) -> str:
    """A line of a script that writes the configuration."""
    return f"cat >/etc/v6fwd/v6fwd.toml <<'END'\n{text}END"


def test_it_starts_and_the_target_learns_the_client(service: Machine) -> None:
    state, text = service.properties(UNIT, "ActiveState", "StatusText")
    assert state == "active"
    assert text.startswith("ready")
    service.check("works 8080")


def test_its_processes_have_no_privileges(service: Machine) -> None:
    """The supervisor may open ports below 1024. Limits are those of a drop-in."""
    [main] = service.properties(UNIT, "MainPID")
    found = service.processes(UNIT)
    assert len(found) > 1
    for pid, status in found.items():
        assert status["Uid"] != "0"
        assert int(status["CapEff"], 16) == (1 << 10 if pid == int(main) else 0)
        assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
        assert f"LimitNOFILE={status['files']}" in limits_of_the_comment()


def test_it_reloads(service: Machine) -> None:
    """The kernel here has no huge pages, and datagrams are served all the same."""
    before = service.properties(UNIT, "MainPID", "ActiveState")
    ask = "echo hello | socat -t 1 - 'UDP6:[2001:db8::1]:8081' 2>/dev/null | grep -q hello"
    service.check(f'{configured(CONFIG + MORE)}\nsystemctl reload v6fwd\neventually "{ask}"')
    wrong = configured('lissten = "x"\n' + CONFIG)
    refused = "eventually 'journalctl --unit v6fwd | grep -q lissten'"
    service.check(f"{wrong}\nsystemctl reload v6fwd\n{refused}\nworks 8080")
    assert service.properties(UNIT, "MainPID", "ActiveState") == before


def test_the_watchdog_hears_from_it_and_ends_one_that_hangs(service: Machine) -> None:
    heard = "systemctl show --value --property WatchdogTimestampMonotonic v6fwd"
    service.check(f'before=$({heard})\neventually "test $before != \\$({heard})"')
    [pid, restarts] = service.properties(UNIT, "MainPID", "NRestarts")
    assert restarts == "0"
    service.check(f"kill -STOP {pid}\n{ANOTHER.format(pid=pid)}\nworks 8080")
    assert service.properties(UNIT, "NRestarts") == ["1"]


def test_restart_and_stop(service: Machine) -> None:
    """A client that stays is cut when the drain timeout is over; the log says so."""
    before = service.properties(UNIT, "MainPID")
    service.check("systemctl restart v6fwd\nworks 8080")
    assert service.properties(UNIT, "MainPID") != before
    service.check("systemd-run --quiet socat 'TCP6:[::1]:8080' 'SYSTEM:sleep 1000'")
    service.check("eventually 'v6fwd flows | grep -q 8080'\nsystemctl stop v6fwd")
    stopped = service.properties(UNIT, "ActiveState", "Result", "ExecMainStatus")
    assert stopped == ["inactive", "success", "0"]
    cut = "reset 1 flow that had not finished"
    eventually(lambda: cut in service.log(UNIT), "the journal has what was cut")


def test_a_mistake_in_the_file_is_not_tried_for_ever(service: Machine) -> None:
    service.check("systemctl stop v6fwd")
    wrong = configured('lissten = "[::]:8080"\n')
    assert service.run(f"{wrong}\nsystemctl start v6fwd").returncode != 0
    failed = service.properties(UNIT, "ActiveState", "ExecMainStatus", "NRestarts")
    assert failed == ["failed", "2", "0"]
    assert "lissten" in service.log(UNIT)


@pytest.mark.parametrize(("unit", "most"), EXPOSED.items())
def test_how_exposed_a_unit_is(machine: Machine, unit: str, most: float) -> None:
    """What it says of the unit as it is loaded; docs/docker.md has what keeps each point."""
    told = machine.check(f"systemd-analyze security --no-pager {unit} | tail -n 1")
    assert float(told.split(": ")[1].split()[0]) <= most
