"""Figures in pages: generated, whole, and found out of date."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from bench.cli import main
from bench.readme import MarkerError, markers, provenance, section, summary, with_figures
from bench.result import Result, to_json
from tests.unit.bench.samples import peer, result, scenario

BEGIN, END = markers("performance")
README = f"# v6fwd\n\n{BEGIN}\nold\n{END}\n\n## After\n"


def sample() -> Result:
    ours = peer({"rate": 10.0, "cpu": 5.0}, {"rate": 24.0, "cpu": 6.0})
    theirs = peer({"rate": 5.0, "cpu": 10.0}, {"rate": 10.0, "cpu": 8.0})
    return result(scenario({"v6fwd": ours, "docker-proxy": theirs, "nginx": theirs}))


def test_tables_are_markdown_with_median_and_range() -> None:
    text = section(sample(), "bench/results/a.json")
    assert (
        "| v6fwd / docker-proxy | speed | CPU |\n"
        "|---|---:|---:|\n"
        "| new connections, 20 at once | **2.20** (2.00 to 2.40) | **0.62** (0.50 to 0.75) |\n"
    ) in text
    assert "**2.20** (2.00 to 2.40, nginx)" in text


def test_a_contest_without_rows_has_no_table() -> None:
    assert "PROXY" not in section(sample(), "a.json")


def test_the_section_says_where_the_numbers_come_from() -> None:
    text = section(sample(), "bench/results/a.json")
    for word in (
        "`python -m bench --rounds 2` on 2026-01-28, in network namespaces;",
        "2 cores of Abacus 1, 8.0 GB, Debian 12, kernel 6.1.0; v6fwd 0.1.0, nginx 1.22.1.",
        "[bench/results/a.json](bench/results/a.json)",
        "of 2 rounds",
    ):
        assert word in " ".join(text.split())
    assert "quick" not in text


def test_a_quick_run_says_so() -> None:
    quick = sample()
    quick.quick = True
    assert "A quick run" in section(quick, "a.json")


def test_only_what_is_between_the_markers_changes() -> None:
    text = section(sample(), "a.json")
    assert with_figures(README, sample(), "a.json") == README.replace("old\n", text)


def test_a_summary_has_medians_alone_and_a_picture() -> None:
    begin, end = markers("summary")
    text = summary(sample(), "bench/results/a.json")
    assert with_figures(f"{begin}\n{end}\n", sample(), "bench/results/a.json") == (
        f"{begin}\n{text}{end}\n"
    )
    assert "| CPU, new connections, 20 at once | **0.62** | **0.62** |\n" in text
    assert "(bench/results/a-summary.png)" in text


@pytest.mark.parametrize(
    ("readme", "message"),
    [
        ("# v6fwd\n", "needs .*performance.* or .*summary"),
        (f"{BEGIN}\n", "once each"),
        (f"{README}{README}", "once each"),
        (f"{END}\n{BEGIN}\n", "before"),
    ],
)
def test_markers_must_be_there_once(readme: str, message: str) -> None:
    with pytest.raises(MarkerError, match=message):
        with_figures(readme, sample(), "a.json")


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    """A result's file and a README's."""
    source, readme = tmp_path / "a.json", tmp_path / "README.md"
    source.write_text(to_json(sample()))
    readme.write_text(README)
    return str(source), str(readme)


def test_report_writes_and_check_agrees(files: tuple[str, str]) -> None:
    run = CliRunner().invoke
    before = run(main, ["report", *files, "--check"])
    assert before.exit_code == 1
    assert "is not what" in before.output
    assert Path(files[1]).read_text() == README
    assert run(main, ["report", *files]).exit_code == 0
    assert run(main, ["report", *files, "--check"]).exit_code == 0
    Path(files[1]).write_text(Path(files[1]).read_text().replace("2.20", "9.99"))
    assert run(main, ["report", *files, "--check"]).exit_code == 1


def test_report_names_the_file_that_is_wrong(files: tuple[str, str]) -> None:
    Path(files[0]).write_text("{}")
    done = CliRunner().invoke(main, ["report", *files])
    assert done.exit_code == 2
    assert "a.json: not a result of schema" in " ".join(done.output.split())


def test_figures_tell_of_tcps_congestion_control() -> None:
    """Results of before have none."""
    assert "TCP with" not in provenance(sample(), "a.json")
    told = sample()
    told.machine["congestion control"] = "reno"
    assert "kernel 6.1.0, TCP with reno;" in provenance(told, "a.json")
