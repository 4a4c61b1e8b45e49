"""What a process tree's CPU time is made of."""

from __future__ import annotations

from pathlib import Path

from bench.processes import scheduled_seconds


def thread(folder: Path, number: int, text: str) -> None:
    """A thread as /proc shows it."""
    (folder / str(number)).mkdir()
    (folder / str(number) / "schedstat").write_text(text)


def test_the_threads_of_a_process_are_summed_up(tmp_path: Path) -> None:
    thread(tmp_path, 1, "1500000000 99 7\n")
    thread(tmp_path, 2, "250000001 99 7\n")
    assert scheduled_seconds(tmp_path) == 1.750000001


def test_a_thread_that_ends_meanwhile_hides_no_other(tmp_path: Path) -> None:
    for number in range(1, 5):
        thread(tmp_path, number, "1000000000 0 1\n")
    (tmp_path / "2" / "schedstat").unlink()
    (tmp_path / "3" / "schedstat").unlink()
    assert scheduled_seconds(tmp_path) == 2.0


def test_a_process_that_has_ended_has_no_threads(tmp_path: Path) -> None:
    assert scheduled_seconds(tmp_path / "gone") == 0.0
