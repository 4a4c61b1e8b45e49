"""`make release` refuses what does not agree: version, changelog, tag, worktree."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from v6fwd import __version__

FILES = ("scripts/release", "CHANGELOG.md", "v6fwd/__init__.py")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What the script looks at, in a repository of its own, committed."""
    for name in FILES:
        copy = tmp_path / name
        copy.parent.mkdir(exist_ok=True)
        copy.write_bytes((ROOT / name).read_bytes())
        copy.chmod((ROOT / name).stat().st_mode)
    git(tmp_path, "init", "--quiet")
    commit(tmp_path)
    return tmp_path


def git(folder: Path, *words: str) -> None:
    """Run git there, whoever we are."""
    who = ("-c", "user.name=a", "-c", "user.email=a@localhost")
    subprocess.run(["git", *who, *words], cwd=folder, check=True, capture_output=True)


def commit(folder: Path) -> None:
    """Commit all that is there."""
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "all", "--allow-empty")


def refusal(folder: Path) -> str:
    """Why nothing is released."""
    words = [str(folder / "scripts" / "release"), str(Path(sys.executable).parent)]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout
    assert not (folder / "dist").exists()
    return done.stderr.strip()


def test_another_version_than_the_changelog_has(checkout: Path) -> None:
    changelog = checkout / "CHANGELOG.md"
    changelog.write_text(changelog.read_text().replace(f"[{__version__}]", "[Unreleased]", 1))
    commit(checkout)
    assert refusal(checkout) == (
        f"no release: CHANGELOG.md begins with [Unreleased], v6fwd/__init__.py says {__version__}"
    )


def test_a_version_without_a_date(checkout: Path) -> None:
    changelog = checkout / "CHANGELOG.md"
    text = changelog.read_text()
    line = next(line for line in text.splitlines() if line.startswith(f"## [{__version__}]"))
    changelog.write_text(text.replace(line, f"## [{__version__}]"))
    commit(checkout)
    assert "CHANGELOG.md has no date" in refusal(checkout)


def test_a_change_that_is_not_committed(checkout: Path) -> None:
    (checkout / "more").touch()
    assert refusal(checkout) == "no release: the worktree has changes that are not committed"


def test_another_tag(checkout: Path) -> None:
    git(checkout, "tag", "v9.9.9")
    assert refusal(checkout) == f"no release: the tag is v9.9.9, and should be v{__version__}"
