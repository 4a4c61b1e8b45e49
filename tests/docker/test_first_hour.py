"""A new user's way with the Debian package: README's lines as they stand there, then an upgrade,
the removal and the purge, under a real systemd in a user-mode Linux.

Docker is Debian's; up to the log also the newer Engine, by drop-ins of Debian's services. Only
`make deb` is acted out: the package is built outside.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docker.conftest import every_engine
from tests.docker.test_unit import MODULES, NETWORK, SETUP
from tests.support import packaged
from tests.support.engine import ENGINES
from tests.support.images import HTTPD_CHANGES, STOCK_HTTPD, httpd_image
from tests.support.machine import Machine
from tests.support.pages import blocks
from v6fwd import __version__

pytestmark = [
    pytest.mark.server(
        *("linux.uml", "systemctl", "iptables-legacy", "nft", "curl"),
        *("apt-get", "dpkg-deb", "gcc"),
    ),
    pytest.mark.timeout(900),  # it has one processor, which others want as well
]

DEBIANS, NEWER = every_engine
UNIT = "v6fwd-docker.service"
RAW = ("iptable_raw", "ip6table_raw")
"""Modules that the newer Engine needs as well."""
CLIENT, HOST, GATEWAY = "2001:db8:1::2", "2001:db8:1::1", "172.17.0.1"
PATIENCE = 400.0
"""Seconds for what takes 20 on an idle machine."""
NEXT = f"{__version__}+1"
MAKE = "#!/bin/sh\ntest -e dist/v6fwd_0.deb # built outside\n"
CHECKOUT = """
rm -f /var/lib/man-db/auto-update
mkdir -p /checkout/dist /etc/docker
cp /machine/v6fwd.deb /checkout/dist/v6fwd_0.deb
printf '{"debug":   true}' | tee /etc/docker/daemon.json >/run/daemon.json
"""
"""The index of man pages takes longer than the rest of an installation."""
SERVICES = {
    "containerd": "/opt/engine/usr/bin/containerd",
    "docker": "/opt/engine/usr/sbin/dockerd -H fd:// --containerd=/run/containerd/containerd.sock",
}
DROP_IN = """
mkdir -p /etc/systemd/system/{unit}.service.d
cat >/etc/systemd/system/{unit}.service.d/engine.conf <<'END'
[Service]
Environment=PATH=/opt/engine/usr/sbin:/opt/engine/usr/bin:/usr/sbin:/usr/bin:/sbin:/bin
ExecStart=
ExecStart={command}
END
"""
ASK = f"""\
#!/bin/bash
# Asks the published port until an answer comes.
while ((SECONDS < 60)); do
    ip netns exec client curl --silent --fail --max-time 20 'http://[{HOST}]:8080/' && exit
    sleep 0.05
done
exit 1
"""
ASK_ON = f"""\
#!/bin/bash
# Asks the published port while /run/asking is there; says what became of each request.
for turn in $(seq 2000); do
    [ -e /run/asking ] || exit 0
    ip netns exec client curl --silent --fail --max-time 60 --output /dev/null \\
        'http://[{HOST}]:8080/' && echo served || echo refused
done
"""
LAID_OUT = """
test "$(v6fwd --version)" = 'v6fwd, version {version}'
test "$(/usr/bin/v6fwd-docker-proxy -v)" = 'v6fwd-docker-proxy {version}'
v6fwd demo | grep 2001:db8
v6fwd serve --check --config /etc/v6fwd/v6fwd.toml
gzip -dc /usr/share/man/man1/v6fwd-forward.1.gz | grep 'Forward connections'
gzip -dc /usr/share/doc/v6fwd/changelog.gz | grep '^v6fwd ({version}) '
ls /opt/v6fwd/lib/python3*/site-packages/v6fwd/docker/shim/hold/hold-*
for unit in v6fwd v6fwd-docker; do
    text=/lib/systemd/system/$unit.service
    test "$(grep -c /usr/local $text)" = 0
    test -x "$(sed -n 's/^ExecStart=\\([^ ]*\\).*/\\1/p' $text)"
    test -f "$(sed -n 's/^Documentation=file://p' $text)"
done
"""
UPGRADE = """
echo '# mine' >>/etc/v6fwd/v6fwd.toml
touch /run/asking
ask-on >/run/asked &
eventually 'grep -q served /run/asked'
apt-get install --yes /machine/next.deb
before=$(wc -l </run/asked)
eventually "test \\$(wc -l </run/asked) -gt $((before + 2))"
rm /run/asking
wait
grep '# mine' /etc/v6fwd/v6fwd.toml
sort /run/asked | uniq -c
"""
REMOVAL = """
apt-get remove --yes v6fwd
cmp /etc/docker/daemon.json /run/daemon.json
test ! -e /opt/v6fwd
test ! -e /run/v6fwd
test -z "$(systemctl list-units --all --plain --no-legend 'v6fwd*')"
test -z "$(systemctl list-unit-files --no-legend 'v6fwd*')"
grep '# mine' /etc/v6fwd/v6fwd.toml
ask
systemctl restart docker
docker start web
"""
BY_DOCKER = """
pgrep -x docker-proxy
if pgrep -af 'v6fwd-docker-proxy|/opt/v6fwd'; then exit 1; fi
apt-get purge --yes v6fwd
test ! -e /etc/v6fwd
test ! -e /var/lib/v6fwd
"""


class Host:
    """A host with Docker, its image of Apache and a daemon.json, and no v6fwd."""

    def __init__(self, machine: Machine, engine: str) -> None:
        self.machine = machine
        if (root := ENGINES[engine]) != Path("/"):
            self._use(root)
        changes = " ".join(f"--change '{change}'" for change in HTTPD_CHANGES)
        load = f"docker import {changes} /machine/httpd.tar httpd"
        version = "docker version --format '{{.Server.Version}}' | grep '^" + engine
        machine.check(f"systemctl start docker\n{load}\n{version}'", PATIENCE)

    def _use(self, root: Path) -> None:
        drop_ins = "".join(
            DROP_IN.format(unit=unit, command=command) for unit, command in SERVICES.items()
        )
        self.machine.check(f"ln -s '{root}' /opt/engine\n{drop_ins}systemctl daemon-reload")

    def run(self, script: str) -> str:
        """Type it in the checkout."""
        return self.machine.check(f"cd /checkout\n{script}", PATIENCE)

    def answers_and_logs(self, address: str) -> None:
        """A client asks, and the container's log says that this address did."""
        self.run(f"ask\neventually 'docker logs --tail 1 web | grep \"^{address} .* 200 \"'")

    def end(self) -> None:
        """Leave the machine as it was, also after a failure."""
        self.machine.run("dpkg --purge v6fwd\ncp /run/daemon.json /etc/docker/")
        self.run(
            "docker rm --force web\n"
            "systemctl stop docker docker.socket containerd\n"
            "rm -rf /opt/engine /etc/systemd/system/{docker,containerd}.service.d\n"
            "rm -rf /var/lib/docker/* /var/lib/containerd/*\n"
            "systemctl daemon-reload"
        )


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """With a client, an image of Apache, and the package in two versions."""
    package = packaged.build(tmp_path_factory.mktemp("deb"))
    folder = tmp_path_factory.mktemp("machine")
    with Machine(folder, setup=SETUP, modules=(*MODULES, *RAW), memory="2G") as machine:
        machine.add("v6fwd.deb", package.read_bytes())
        machine.add("next.deb", packaged.successor(package, NEXT).read_bytes())
        machine.add("httpd.tar", httpd_image(STOCK_HTTPD.format(listen="Listen 80")).finished())
        for name, text in (("make", MAKE), ("ask", ASK), ("ask-on", ASK_ON)):
            machine.add(f"bin/{name}", text.encode())
        machine.check(NETWORK + CHECKOUT)
        yield machine


@pytest.fixture
def host(request: pytest.FixtureRequest, machine: Machine) -> Iterator[Host]:
    """With one of the engines, in the same machine."""
    host = Host(machine, request.param)
    yield host
    host.end()


def to_the_log(host: Host) -> None:
    """From the package to the client in the log of an unchanged container."""
    told = host.run("\n".join(blocks("README.md", "Put it in place")[0]))
    assert "systemctl enable --now v6fwd-docker" in told, "the package says the next step"
    host.answers_and_logs(CLIENT)


@pytest.mark.parametrize("host", [DEBIANS], indirect=True)
def test_from_the_package_to_the_log_and_back(host: Host) -> None:
    to_the_log(host)
    host.run(LAID_OUT.format(version=__version__))
    upgrade(host)
    host.answers_and_logs(CLIENT)
    assert "systemctl restart docker" in host.run(REMOVAL)
    host.answers_and_logs(GATEWAY)
    host.run(BY_DOCKER)


def upgrade(host: Host) -> None:
    """Nobody is refused meanwhile, and another daemon serves."""
    [before] = host.machine.properties(UNIT, "MainPID")
    told = host.run(UPGRADE)
    assert "refused" not in told
    assert "Next, for" not in told
    assert host.machine.properties(UNIT, "MainPID") != [before]
    assert f"({NEXT})" in told


@pytest.mark.parametrize("host", [NEWER], indirect=True)
def test_from_the_package_to_the_log(host: Host) -> None:
    to_the_log(host)
