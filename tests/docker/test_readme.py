"""README's way from nothing to the client's address in a log, command by command."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.docker.conftest import every_engine
from tests.support.engine import ENGINES, Engine, engine_lab
from tests.support.images import STOCK_HTTPD, load_httpd
from tests.support.pages import typed
from tests.support.paths import ROOT
from tests.support.process import eventually
from tests.support.shim import install
from v6fwd.demo.lab import CLIENT_V6, HOST_V6, stop

pytestmark = pytest.mark.server("curl", "nft", "nsenter")

UNIT = ROOT / "contrib" / "systemd" / "v6fwd-docker.service"
MOUNTS = "mount --bind {0} /etc/docker && mount --bind {0}/run-v6fwd /run/v6fwd"
POINTS = (Path("/etc/docker"), Path("/run/v6fwd"))


class Host:
    """A host with Docker and no v6fwd yet; its files are seen by its processes alone."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        install(engine.folder)
        (engine.folder / "run-v6fwd").mkdir()
        (engine.folder / "v6fwd.toml").write_text(
            f'[docker]\npseudo-store = "{engine.folder}/pseudo.sqlite"\n'
        )
        self._daemon: subprocess.Popen[Any] | None = None
        engine.start()
        load_httpd(engine, "httpd", STOCK_HTTPD.format(listen="Listen 80"))
        self.run(MOUNTS.format(engine.folder))

    def run(self, command: str) -> str:
        """What a command prints that is typed on this host."""
        done = self.engine.lab.run(
            "host", *self._inside(), "sh", "-c", command, env=self._environment()
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return str(done.stdout)

    def type(self, command: str) -> None:
        """Type a command of the page. There is no systemd, and the package has tests of its own."""
        match command.split():
            case ["make", "deb"] | ["apt-get", "install", "--yes", "./dist/v6fwd_*.deb"]:
                pass
            case ["systemctl", "enable", "--now", "v6fwd-docker"]:
                self._start_daemon()
            case ["systemctl", "restart", "docker"]:
                self.engine.stop()
                self.engine.start()
            case _:
                self.run(command)

    def _start_daemon(self) -> None:
        found = re.search("^ExecStart=(.*)", UNIT.read_text(), re.MULTILINE)
        assert found is not None
        words = (
            found[1].replace("/usr/local/bin/", "").replace("/etc/v6fwd", str(self.engine.folder))
        )
        log = self.engine.folder / "v6fwd.log"
        with log.open("w") as file:
            self._daemon = self.engine.lab.start(
                "host", *self._inside(), "sh", "-c", f"exec {words}",
                env=self._environment(), stdout=file, stderr=file,
            )  # fmt: skip
        eventually(lambda: "ready" in log.read_text(), "v6fwd is ready")

    def _inside(self) -> list[str]:
        return ["nsenter", "--target", str(self.engine.ground), "--mount"]

    def _environment(self) -> dict[str, str]:
        before = self.engine.environment
        return before | {"PATH": f"{self.engine.folder}:{before['PATH']}"}

    def end(self) -> None:
        """Stop what the commands have started."""
        print((self.engine.folder / "v6fwd.log").read_text())  # shown where a test failed
        self.engine.remove("web")
        if self._daemon is not None:
            stop(self._daemon)


@pytest.fixture(params=every_engine)
def host(request: pytest.FixtureRequest) -> Iterator[Host]:
    """One for each engine."""
    made = [point for point in POINTS if not point.exists()]
    for point in made:
        point.mkdir(parents=True)
    try:
        with tempfile.TemporaryDirectory(prefix="v6fwd-engine-") as name, engine_lab() as lab:
            engine = Engine(lab, Path(name), ENGINES[request.param])
            try:
                host = Host(engine)
                yield host
                host.end()
            finally:
                engine.end()
    finally:
        for point in made:
            point.rmdir()


def test_the_client_is_in_the_log_of_an_unchanged_container(host: Host) -> None:
    for command in typed("README.md", "Put it in place"):
        host.type(command)
    eventually(lambda: "transparent" in host.run("v6fwd docker status"), "its mode is known")
    asked = host.engine.lab.run(
        "client", "curl", "--silent", "--retry", "20", "--retry-all-errors",
        f"http://[{HOST_V6}]:8080/",
    )  # fmt: skip
    assert asked.returncode == 0, asked.stderr
    eventually(lambda: CLIENT_V6 in host.run("docker logs web"), "the client is in the log")
    host.run("v6fwd docker uninstall")
    assert "userland-proxy-path" not in host.engine.config.read_text()


def test_every_command_of_the_page_is_one_that_is_typed() -> None:
    there = typed("README.md", "Put it in place")
    assert len(there) == 7
    quick = (ROOT / "docs" / "quick-start.md").read_text()
    assert [command for command in there if command not in quick] == []
