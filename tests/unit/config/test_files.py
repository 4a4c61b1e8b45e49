"""Files of a configuration: which kinds are read, and that none is waited for."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from v6fwd.config import ConfigError, files, load
from v6fwd.config.files import read_file
from v6fwd.model import InputError

FORWARD = '[[forward]]\nlisten = "[::]:80"\ntarget = "172.17.0.2:80"\n'


def unix_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))


OTHER_KINDS: dict[str, Callable[[Path], object]] = {
    "fifo": os.mkfifo,
    "socket": unix_socket,
    "endless device": lambda path: path.symlink_to("/dev/zero"),
    "terminal": lambda path: path.symlink_to("/dev/ptmx"),
}


@pytest.mark.parametrize("make", OTHER_KINDS.values(), ids=OTHER_KINDS.keys())
def test_an_included_file_is_a_regular_one(tmp_path: Path, make: Callable[[Path], object]) -> None:
    """None of these is opened; a FIFO would block the daemon until somebody writes."""
    main, other = tmp_path / "v6fwd.toml", tmp_path / "other.toml"
    main.write_text(f'include = ["other.toml"]\n{FORWARD}')
    make(other)
    with pytest.raises(ConfigError) as caught:
        load(main, at_start=True)
    assert str(caught.value) == f"{other}: cannot be read: not a regular file"


@pytest.mark.parametrize("make", OTHER_KINDS.values(), ids=OTHER_KINDS.keys())
def test_a_reload_reads_a_regular_file(tmp_path: Path, make: Callable[[Path], object]) -> None:
    """The pipe of the start has been read, and would give an empty configuration now."""
    make(tmp_path / "v6fwd.toml")
    with pytest.raises(ConfigError, match=r"cannot be read: not a regular file$"):
        load(tmp_path / "v6fwd.toml")


def test_a_kind_that_changes_behind_our_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is looked at once more when it is open, and opening did not wait."""
    path = tmp_path / "file"
    os.mkfifo(path)
    regular = os.stat(__file__)
    monkeypatch.setattr(os, "stat", lambda *_: regular)
    with pytest.raises(InputError, match="not a regular file"):
        read_file(path)


def test_a_folder_is_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot be read: is a directory$"):
        load(tmp_path)


def test_symbolic_links_are_followed(tmp_path: Path) -> None:
    """Operators link /etc/v6fwd to where they keep their configuration."""
    real = tmp_path / "real"
    real.mkdir()
    (real / "v6fwd.toml").write_text('include = ["more.toml"]\n')
    (real / "elsewhere.toml").write_text(FORWARD)
    (real / "more.toml").symlink_to("elsewhere.toml")
    (tmp_path / "link").symlink_to(real)
    assert len(load(tmp_path / "link" / "v6fwd.toml").forwards) == 1


def test_the_null_device_is_an_empty_file() -> None:
    assert load(Path("/dev/null")).forwards == ()


def test_a_file_that_is_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An endless one is read as far as the limit."""
    monkeypatch.setattr(files, "MAX_FILE", 1 << 20)
    path = tmp_path / "v6fwd.toml"
    path.write_bytes(b"#" * (1 << 20))
    assert len(read_file(path)) == 1 << 20
    path.write_bytes(b"#" * ((1 << 20) + 1))
    with pytest.raises(ConfigError, match=r"cannot be read: larger than 1 MiB$"):
        load(path)
    with pytest.raises(ConfigError, match=r"cannot be read: larger than 1 MiB$"):
        load(Path("/dev/zero"), at_start=True)


def test_the_start_may_read_a_pipe() -> None:
    """`generate | v6fwd serve -c /dev/stdin`."""
    command = [sys.executable, "-m", "v6fwd", "serve", "--check", "-c", "/dev/stdin"]
    good = subprocess.run(command, input=FORWARD, text=True, capture_output=True, check=False)
    assert (good.returncode, good.stderr) == (0, "")
    bad = subprocess.run(command, input="workers = 0", text=True, capture_output=True, check=False)
    assert bad.returncode == 2
    assert bad.stderr.startswith("/dev/stdin: workers = 0: ")
