"""Every shell script of the project is one that shellcheck has nothing to say about."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.support.paths import ROOT

FIRST_LINES = (b"#!/bin/sh", b"#!/usr/bin/env bash")
SCRIPTS = sorted(
    path
    for folder in ("scripts", "v6fwd", ".ci")
    for path in (ROOT / folder).rglob("*")
    if path.is_file() and path.read_bytes().startswith(FIRST_LINES)
)


@pytest.mark.server("shellcheck")
@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_shellcheck(path: Path) -> None:
    told = subprocess.run(["shellcheck", str(path)], capture_output=True, text=True, check=False)
    assert told.stdout == ""
    assert told.returncode == 0


def test_the_scripts_are_found() -> None:
    assert {path.name for path in SCRIPTS} >= {"run", "install-packages", "v6fwd-docker-proxy"}
