"""docker-compose.yml and Dockerfile as a person uses them, with images that are made here."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.engine import ENGINES, Engine, engine_lab
from tests.support.images import load_httpd, load_python
from tests.support.paths import ROOT
from tests.support.process import eventually
from v6fwd.demo.lab import CLIENT_V4, CLIENT_V6, HOST_V4, HOST_V6

PARTS = (
    *("Dockerfile", ".dockerignore", "docker-compose.yml", "examples", "v6fwd"),
    *("pyproject.toml", "setup.py", "requirements", "README.md", "LICENSE"),
)

pytestmark = pytest.mark.server("docker-compose", "curl")


class Project:
    """The repository's folder, as far as compose and the build need it."""

    def __init__(self, folder: Path, engine: Engine) -> None:
        self.folder = folder
        self.engine = engine
        for name in PARTS:
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            copy(ROOT / name, folder / name)

    def wheels(self) -> None:
        """All packages that the build needs, for there is no network in its namespace."""
        pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "download")
        options = ("--dest", "wheels", "--require-hashes", "--requirement", "requirements/run.txt")
        subprocess.run([*pip, *options], cwd=self.folder, check=True, timeout=300)

    def compose(self, *words: str) -> str:
        """Run docker-compose; gives its output."""
        done = subprocess.run(
            ["docker-compose", "--no-ansi", *words],
            cwd=self.folder, env=self.engine.environment | {"COMPOSE_PROJECT_NAME": "v6fwd"},
            capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr + self.engine.log[-3000:]
        return done.stdout


@pytest.fixture(scope="module")
def project() -> Iterator[Project]:
    """An engine that has the images which Dockerfile and docker-compose.yml name."""
    base = Path(tempfile.mkdtemp(prefix="v6fwd-compose-"))
    (base / "engine").mkdir()
    (base / "project").mkdir()
    try:
        with engine_lab() as lab:
            engine = Engine(lab, base / "engine", ENGINES["20.10"])
            try:
                engine.start()
                load_httpd(engine, "httpd:2.4")
                load_python(engine, "python:3.11-slim")
                project = Project(base / "project", engine)
                project.wheels()
                options = "PIP_OPTIONS=--no-index --find-links wheels"
                # This image of Python has no apt-get, and no network.
                project.compose("build", "--build-arg", options, "--build-arg", "NATIVE=0")
                yield project
            finally:
                engine.end()
    finally:
        shutil.rmtree(base)


def test_apache_logs_the_client(project: Project) -> None:
    project.compose("up", "--detach")
    engine = project.engine
    eventually(lambda: "tcp *:8080" in engine.listeners(), "v6fwd listens")
    for host in (HOST_V6, HOST_V4):
        url = f"http://[{host}]:8080/" if ":" in host else f"http://{host}:8080/"
        curl = ("curl", "--silent", "--show-error", "--retry", "20", "--retry-all-errors")
        asked = engine.lab.run("client", *curl, "--retry-delay", "1", url)
        assert "It works!" in asked.stdout, asked.stderr + project.compose("logs")
    logged = project.compose("logs", "web")
    assert re.findall(r'(\S+) - - \[.*?\] "GET / HTTP/1.1" 200', logged) == [CLIENT_V6, CLIENT_V4]
    who = engine.docker("inspect", "--format", "{{.Config.User}}", "v6fwd")
    assert who == "65532:65532"
    project.compose("down")
    assert not any(":8080" in each for each in engine.listeners())


def test_v6fwd_in_a_container_can_show_itself(project: Project) -> None:
    """The image holds what it needs, loopback is enough."""
    told = project.engine.docker("run", "--rm", "--network", "host", "v6fwd", "demo")
    assert "kept: the client itself" in told
