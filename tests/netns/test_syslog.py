"""A real syslog daemon, in a mount namespace with a /dev of its own."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.process import eventually, free_port

REAL = """
cd "$1" && mkdir dev && touch dev/null dev/urandom
mount --bind /dev/null dev/null && mount --bind /dev/urandom dev/urandom
mount --bind dev /dev
busybox syslogd -n -O "$1/messages" &
daemon=$!
while [ ! -S /dev/log ]; do sleep 0.01; done
trap 'kill $relay $daemon; exit 0' TERM
shift
"$@" 2>/dev/null &
relay=$!
wait
"""


@pytest.mark.netns
@pytest.mark.server("busybox", "unshare", "mount")
def test_a_real_daemon_hears_a_relay_that_stands_alone(tmp_path: Path) -> None:
    """Both in a mount namespace, with a /dev of their own."""
    flags = "-proto tcp -host-ip ::1 -container-ip 127.0.0.1 -container-port 9 -host-port"
    main = "import sys; from v6fwd.docker.shim.standalone import main; sys.exit(main(sys.argv[1:]))"
    relay = (sys.executable, "-c", main, *flags.split(), str(port := free_port("::1")))
    process = subprocess.Popen(["unshare", "--mount", "sh", "-c", REAL, "-", tmp_path, *relay])
    messages = tmp_path / "messages"

    def heard(text: str) -> bool:
        return messages.exists() and text in messages.read_text()

    try:
        eventually(lambda: heard("ready: 1 forwards"), "the relay is ready")
        assert heard("daemon.info v6fwd-docker-proxy[")
        assert heard(f"]: [::1]:{port} -> 127.0.0.1:9: no daemon serves it; mode none")
        with socket.create_connection(("::1", port)) as client, pytest.raises(ConnectionError):
            client.recv(1)
        eventually(lambda: heard("daemon.warn v6fwd-docker-proxy["), "the target is down")
    finally:
        process.terminate()
        process.wait()
