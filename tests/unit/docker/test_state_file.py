"""A file that nobody but this user can have written or redirected."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from v6fwd.docker.state_file import MAX_SIZE, StateFile


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "state"


@pytest.fixture
def file(folder: Path) -> StateFile:
    file = StateFile(folder, "a.json")
    file.write("one")
    return file


def test_written_and_read(file: StateFile, folder: Path) -> None:
    assert file.read() == "one"
    file.write("two")
    assert file.read() == "two"
    assert os.listdir(folder) == ["a.json"]
    assert StateFile(folder, "b.json").read() == ""
    assert StateFile(folder / "none", "b.json").read() == ""


@pytest.mark.parametrize("umask", [0, 0o777])
def test_modes_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    (tmp_path / "state").mkdir(mode=0o700)
    before = os.umask(umask)
    try:
        StateFile(tmp_path / "state", "a").write("x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "state" / "a").stat().st_mode) == 0o600


def a_link(path: Path) -> None:
    path.rename(path.with_name("other"))
    path.symlink_to("other")


def a_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


def too_long(path: Path) -> None:
    os.truncate(path, MAX_SIZE + 1)


def open_to_all(path: Path) -> None:
    path.chmod(0o644)


def of_nobody(path: Path) -> None:
    os.chown(path, 65534, -1)


def in_a_folder_of_nobody(path: Path) -> None:
    os.chown(path.parent, 65534, -1)


def in_a_folder_for_all(path: Path) -> None:
    path.parent.chmod(0o777)


def in_a_folder_elsewhere(path: Path) -> None:
    a_link(path.parent)


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files away")
@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (a_link, "Too many levels"),
        (a_fifo, "another kind"),
        (too_long, "more than"),
        (open_to_all, "mode 644 lets others in"),
        (of_nobody, "belongs to user 65534"),
        (in_a_folder_of_nobody, "belongs to user 65534"),
        (in_a_folder_for_all, "mode 777 lets others in"),
        (in_a_folder_elsewhere, "Not a directory|Too many levels"),
    ],
)
def test_what_others_may_have_written(
    file: StateFile, folder: Path, spoil: Callable[[Path], None], why: str
) -> None:
    spoil(folder / "a.json")
    with pytest.raises(OSError, match=why):
        file.read()


def test_a_link_in_its_place_is_replaced_not_followed(file: StateFile, folder: Path) -> None:
    victim = folder.with_name("victim")
    victim.write_text("precious")
    for name in ("a.json", f".a.json.{os.getpid()}"):
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(victim)
    with pytest.raises(FileExistsError):
        file.write("two")
    file.write("two")
    assert file.read() == "two"
    assert victim.read_text() == "precious"
