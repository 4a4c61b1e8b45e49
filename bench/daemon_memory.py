"""`python -m bench.daemon_memory [--ports N] [--workers N]`: what `v6fwd serve` takes.

The proportional set size of supervisor and workers when each port has been used once, on loopback.
Pages are shared with other programs of the same Python: see that none is running.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from bench import installed
from bench.endurance import free_ports, proportional_set_size
from bench.processes import tree

PATIENCE = 30.0
"""Seconds for the daemon to be ready."""
REST = 1.0
"""Seconds until workers have reported what they have served."""


@contextlib.contextmanager
def target() -> Iterator[int]:
    """A server that answers one byte and closes; gives its port."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as server:
        threading.Thread(target=_answer, args=(server,), daemon=True).start()
        yield server.getsockname()[1]


def _answer(server: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while True:
            client, _ = server.accept()
            with client:
                client.recv(1)
                client.send(b"x")


@contextlib.contextmanager
def daemon(folder: Path, ports: list[int], to: int, workers: int) -> Iterator[int]:
    """Run one; gives its process id once it is ready. Raises RuntimeError."""
    lines = [f"workers = {workers}", "[control]", f'socket = "{folder}/control.sock"']
    for port in ports:
        lines += ["[[forward]]", f'listen = "[::1]:{port}"', f'target = "127.0.0.1:{to}"']
    config, log = folder / "v6fwd.toml", folder / "stderr"
    config.write_text("\n".join(lines))
    with log.open("wb") as stderr:
        command = [installed.program(), "serve", "-c", str(config)]
        process = subprocess.Popen(command, stderr=stderr)
    try:
        ends = time.monotonic() + PATIENCE
        while "ready: " not in log.read_text():
            if process.poll() is not None or time.monotonic() > ends:
                raise RuntimeError(f"serve is not ready: {log.read_text()}")
            time.sleep(0.01)
        yield process.pid
    finally:
        process.terminate()
        process.wait()


def use(port: int) -> None:
    """Ask for a byte through a port."""
    with socket.create_connection(("::1", port)) as sock:
        sock.send(b"a")
        if sock.recv(1) != b"x":
            raise RuntimeError(f"no answer at port {port}")


def private_of(pid: int) -> float:
    """Megabytes that a process alone has written to."""
    found = re.search(r"Private_Dirty:\s+(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text())
    return int(found[1]) / 1024 if found else 0.0


def main() -> None:
    """Measure, and print a line for all and one for each process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ports", type=int, default=100)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    ports = free_ports(arguments.ports)
    with (
        tempfile.TemporaryDirectory() as folder,
        target() as to,
        daemon(Path(folder), ports, to, arguments.workers) as pid,
    ):
        for port in ports:
            use(port)
        time.sleep(REST)
        pids = [process.pid for process in tree([pid])]
        print(f"{proportional_set_size(pids):.1f} MB in {len(pids)} processes")
        for each in pids:
            size = proportional_set_size([each])
            print(f"  {each}: {size:.1f} MB, {private_of(each):.1f} MB written by it alone")


if __name__ == "__main__":
    main()
