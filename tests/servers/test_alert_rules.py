"""The alert rules for Prometheus: checked by promtool, each with the case that fires it."""

from __future__ import annotations

import re
import subprocess

import pytest

from tests.support.paths import ROOT

RULES = ROOT / "contrib" / "prometheus" / "v6fwd.rules.yml"
CASES = RULES.with_name("v6fwd.rules.test.yml")


@pytest.mark.server("promtool")
@pytest.mark.parametrize("words", [("check", "rules", RULES.name), ("test", "rules", CASES.name)])
def test_promtool_is_content(words: tuple[str, ...]) -> None:
    done = subprocess.run(
        ["promtool", *words], cwd=RULES.parent, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_case_that_fires_it_and_one_that_does_not() -> None:
    alerts = set(re.findall(r"- alert: (\w+)", RULES.read_text()))
    cases = CASES.read_text()
    assert set(re.findall(r'alertname="(\w+)"', cases)) == alerts
    assert set(re.findall(r"alertname: (\w+), exp_alerts: \[\]", cases)) == alerts


def test_metrics_and_labels_of_the_rules_exist() -> None:
    exprs = re.findall(r"expr: [^:]*?\n +(?:for|labels)", RULES.read_text())
    named = set(re.findall(r"v6fwd_\w+", "".join(exprs)))
    documented = set(re.findall(r"`(v6fwd_\w+)`", (ROOT / "docs" / "reference.md").read_text()))
    assert named
    assert named <= documented
