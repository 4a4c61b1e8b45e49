"""setup.py builds each native module where it can, and goes on where it cannot."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.support.paths import ROOT

HEADER = Path(sysconfig.get_path("include"), "Python.h")
pytestmark = pytest.mark.skipif(
    shutil.which("cc") is None or not HEADER.exists(), reason="no compiler or Python headers"
)


def built(folder: Path, compiler: str) -> set[str]:
    """The modules that setup.py builds with a compiler."""
    words = ["build_ext", "--build-lib", str(folder / "lib"), "--build-temp", str(folder / "temp")]
    subprocess.run(
        [sys.executable, "setup.py", "--quiet", *words],
        cwd=ROOT,
        env=os.environ | {"CC": compiler},
        check=True,
        capture_output=True,
    )
    return {path.name.split(".")[0] for path in (folder / "lib").rglob("*.so")}


def test_without_liburing_all_but_the_ring_is_built(tmp_path: Path) -> None:
    compiler = tmp_path / "cc"
    compiler.write_text('#!/bin/sh\ncase "$*" in *-l:liburing*) exit 1 ;; esac\nexec cc "$@"\n')
    compiler.chmod(0o755)
    assert built(tmp_path, str(compiler)) == {"_scan", "_pass", "_epoll"}


def test_without_a_compiler_nothing_is_built(tmp_path: Path) -> None:
    assert built(tmp_path, str(tmp_path / "none")) == set()
    assert built(tmp_path, "false") == set()


def test_every_native_module_has_a_stub_in_the_wheel() -> None:
    """mypy reads it."""
    told = (ROOT / "pyproject.toml").read_text()
    modules = re.findall(r'"(v6fwd\.[\w.]+\._\w+)"', (ROOT / "setup.py").read_text())
    assert len(modules) == 4
    for name in modules:
        stub = Path(name.replace(".", "/")).with_suffix(".pyi")
        assert (ROOT / stub).exists()
        assert f'"{stub.parent.relative_to("v6fwd")}/*.pyi"' in told


def test_the_image_is_built_with_the_native_modules() -> None:
    """Docker's build sees setup.py, has what it needs, and fails if a module is missing."""
    assert "!setup.py" in (ROOT / ".dockerignore").read_text().splitlines()
    told = (ROOT / "Dockerfile").read_text()
    assert "gcc libc6-dev liburing-dev" in told
    for name in re.findall(r'"(v6fwd\.[\w.]+\._\w+)"', (ROOT / "setup.py").read_text()):
        assert name in told


def test_every_native_source_is_built_and_watched() -> None:
    """setup.py names it; make installs again when it has changed."""
    setup, makefile = (ROOT / "setup.py").read_text(), (ROOT / "Makefile").read_text()
    assert "NATIVE := setup.py $(shell find v6fwd -name '_*.[ch]')" in makefile
    for source in (ROOT / "v6fwd").rglob("_*.c"):
        assert f'"{source.relative_to(ROOT)}"' in setup
