"""v6fwd with the capabilities of a user namespace, as in a rootless Docker's, and no others."""

from __future__ import annotations

import sys

import pytest

from v6fwd.demo.lab import Lab

pytestmark = [pytest.mark.netns, pytest.mark.server("unshare", "setpriv")]

NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
ROOT_OF_ONE = ("unshare", "--user", "--map-root-user", "--kill-child")

ENTER = """
import subprocess
from v6fwd.netns.handle import Handle, own_identity

words = ("setpriv", "--pdeathsig=KILL", "unshare", "--net", "sh", "-c", "echo; exec sleep infinity")
with subprocess.Popen(words, stdout=subprocess.PIPE) as sleeper:
    sleeper.stdout.readline()
    try:
        handle, before = Handle(f"/proc/{sleeper.pid}/ns/net"), own_identity()
        try:
            handle.enter()
        except PermissionError:
            print("refused", own_identity() == before)
        else:
            handle.leave()
            print("was there")
    finally:
        sleeper.kill()
"""
"""Makes a network namespace, enters it and comes back."""


def run(lab: Lab, *prefix: str) -> str:
    """What `ENTER` says behind a prefix, on the lab's host."""
    done = lab.run("host", *prefix, sys.executable, "-c", ENTER)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_namespace_from_which_nobody_comes_back_is_not_entered(lab: Lab) -> None:
    """The host's network belongs to root's user namespace: setns(2) refuses the way back."""
    assert run(lab, *NOBODY, *ROOT_OF_ONE) == "refused True"


def test_between_namespaces_of_its_own_it_comes_and_goes(lab: Lab) -> None:
    assert run(lab, *NOBODY, *ROOT_OF_ONE, "--net") == "was there"
