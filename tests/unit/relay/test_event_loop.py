"""asyncio and uvloop are loaded without ssl, and whoever wants ssl still gets it."""

from __future__ import annotations

import subprocess
import sys

import pytest

WITHOUT = """
import sys
import v6fwd.cli.forward
from v6fwd.relay.event_loop import new_event_loop
loop = new_event_loop()
loop.run_until_complete(__import__("asyncio").sleep(0))
assert type(loop).__module__.startswith("uvloop"), loop
assert not {"ssl", "_ssl", "_hashlib"} & sys.modules.keys()
"""
AFTER = """
import ssl
assert ssl.create_default_context().verify_mode is ssl.CERT_REQUIRED
"""
BEFORE = """
import ssl
from v6fwd.relay.event_loop import asyncio, new_event_loop
new_event_loop().close()
assert asyncio.sslproto.ssl is ssl
assert __import__("sys").modules["ssl"] is ssl
"""
TWICE = """
from v6fwd.relay.event_loop import new_event_loop
new_event_loop().close()
import ssl
new_event_loop().close()
assert __import__("sys").modules["ssl"] is ssl
"""


@pytest.mark.parametrize("code", [WITHOUT, WITHOUT + AFTER, BEFORE, TWICE])
def test_without_ssl(code: str) -> None:
    subprocess.run([sys.executable, "-I", "-W", "error", "-c", code], check=True, timeout=60)
