"""Folders that a privileged process may trust."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from v6fwd.folder import NotTrustedError, TrustedFolder

STRANGER = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


@pytest.fixture(autouse=True)
def umask() -> Iterator[None]:
    """The oddest one: modes must not depend on it."""
    before = os.umask(0o277)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def test_it_is_made_with_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "above" / "folder"
    with TrustedFolder(path, mode=0o700) as folder:
        assert folder.names() == []
        assert stat.S_ISDIR(os.fstat(folder.fileno()).st_mode)
    assert (mode(path), mode(path.parent)) == (0o700, 0o755)


def test_what_is_too_open_is_narrowed(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    path.mkdir()
    path.chmod(0o755)
    TrustedFolder(path, mode=0o700).close()
    assert mode(path) == 0o700
    TrustedFolder(path, mode=0o755).close()
    assert mode(path) == 0o700


def link(path: Path) -> None:
    path.symlink_to("/tmp")


def file(path: Path) -> None:
    path.touch()


@pytest.mark.parametrize("make", [link, file])
def test_what_is_no_folder(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "folder")
    with pytest.raises(OSError, match=r"Not a directory|Too many levels of symbolic links"):
        TrustedFolder(tmp_path / "folder")


def test_links_above_it_are_followed(tmp_path: Path) -> None:
    """/var/run is one."""
    (tmp_path / "real").mkdir(0o755)
    (tmp_path / "real").chmod(0o755)
    (tmp_path / "link").symlink_to("real")
    TrustedFolder(tmp_path / "link" / "folder").close()
    assert (tmp_path / "real" / "folder").is_dir()


@pytest.mark.parametrize("which", ["folder", "above"])
def test_others_must_not_write_there(tmp_path: Path, which: str) -> None:
    path = tmp_path / "above" / "folder"
    TrustedFolder(path).close()
    guilty = path if which == "folder" else path.parent
    guilty.chmod(0o775)
    with pytest.raises(NotTrustedError, match=f"^others may write to {path}: folder {which}$"):
        TrustedFolder(path)
    path.parent.chmod(0o1777)
    if which == "above":
        TrustedFolder(path).close()  # sticky: nobody can rename what is another's


@as_root
@pytest.mark.parametrize("which", ["folder", "above"])
def test_others_must_not_own_it(tmp_path: Path, which: str) -> None:
    path = tmp_path / "above" / "folder"
    TrustedFolder(path).close()
    os.chown(path if which == "folder" else path.parent, STRANGER, -1)
    with pytest.raises(NotTrustedError, match=f"folder {which} belongs to user {STRANGER}$"):
        TrustedFolder(path)


def test_files_have_their_mode(tmp_path: Path) -> None:
    with TrustedFolder(tmp_path / "folder") as folder:
        os.close(folder.open("new", os.O_RDWR | os.O_CREAT, 0o640))
        folder.write("written", b"text", 0o604)
        folder.make_fifo("fifo", 0o620)
        assert folder.read("written") == b"text"
        folder.write("written", b"other")
        assert folder.read("written", 3) == b"oth"
        assert sorted(folder.names()) == ["fifo", "new", "written"]
        modes = {name: stat.S_IMODE(folder.status(name).st_mode) for name in folder.names()}
        assert modes == {"fifo": 0o620, "new": 0o640, "written": 0o600}
        folder.unlink("new")
        folder.unlink("new")
    assert stat.S_ISFIFO((tmp_path / "folder" / "fifo").stat().st_mode)


def test_links_in_it_lead_nowhere(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("secret")
    with TrustedFolder(tmp_path / "folder") as folder:
        for name in ("file", ".file." + str(os.getpid())):
            os.symlink(precious, name, dir_fd=folder.fileno())
        for flags in (os.O_RDONLY, os.O_RDWR | os.O_CREAT, os.O_WRONLY | os.O_TRUNC):
            with pytest.raises(OSError, match="Too many levels of symbolic links"):
                folder.open("file", flags)
        folder.write("file", b"ours")
        assert folder.read("file") == b"ours"
        folder.unlink("file")
    assert precious.read_text() == "secret"


@as_root
def test_files_of_others_are_not_read(tmp_path: Path) -> None:
    """Nor those that others may write to; where the folder shuts others out they may be."""
    with TrustedFolder(tmp_path / "folder") as folder:
        folder.write("file", b"text")
        os.chown("file", STRANGER, -1, dir_fd=folder.fileno())
        with pytest.raises(NotTrustedError, match=f"file belongs to user {STRANGER}$"):
            folder.read("file")
        os.close(folder.open("file", os.O_RDONLY, of_anyone=True))
        os.chown("file", 0, -1, dir_fd=folder.fileno())
        os.chmod("file", 0o666, dir_fd=folder.fileno())
        with pytest.raises(NotTrustedError, match=r"^others may write to .*/file$"):
            folder.read("file")


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/etc/passwd"])
def test_names_are_names(tmp_path: Path, name: str) -> None:
    with TrustedFolder(tmp_path / "folder") as folder:
        for call in (folder.read, folder.unlink, folder.status, folder.make_fifo):
            with pytest.raises(NotTrustedError, match="is no name of a file"):
                call(name)


def test_a_folder_in_it_is_no_file(tmp_path: Path) -> None:
    with TrustedFolder(tmp_path / "folder") as folder:
        os.mkdir("inner", dir_fd=folder.fileno())
        with pytest.raises(NotTrustedError, match=r"inner is no regular file$"):
            folder.open("inner", os.O_RDONLY, of_anyone=True)
