"""Reading the host: an Engine that is there, one that is silent, files that are wrong."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest

from tests.support.fake_engine import HEAD, FakeEngine, hangs, says
from v6fwd.doctor import gather as module
from v6fwd.doctor.denials import read_denials
from v6fwd.doctor.examine import examine
from v6fwd.doctor.facts import Engine, Unknown
from v6fwd.doctor.gather import Where, gather, read_daemon_json, read_rules


@pytest.fixture
def where(tmp_path: Path) -> Where:
    """Nothing of this host's Docker."""
    nothing = tmp_path / "nothing"
    return Where(daemon_json=nothing, engine=f"unix://{tmp_path}/docker.sock", control=str(nothing))


async def test_an_engine(where: Where) -> None:
    engine = FakeEngine(Path(where.engine.removeprefix("unix://")))
    web = {"Id": "c1", "Names": ["/web"], "State": "running", "Labels": {}}
    engine.containers = says(HEAD, json.dumps([web]).encode())
    await engine.start()
    facts = await asyncio.to_thread(gather, (), where)
    await engine.stop()
    assert isinstance(facts.engine, Engine)
    assert [each["Id"] for each in facts.engine.containers] == ["c1"]
    assert engine.asked("/containers/c1/json") == 1
    assert all(path.startswith(("/containers/", "/networks", "/info")) for path in engine.paths)


async def test_an_engine_that_does_not_answer(
    where: Where, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ENGINE_PATIENCE", 0.1)
    engine = FakeEngine(Path(where.engine.removeprefix("unix://")))
    engine.containers = hangs
    await engine.start()
    facts = await asyncio.to_thread(gather, (), where)
    await engine.stop()
    assert isinstance(facts.engine, Unknown)
    assert "does not answer" in facts.engine.why
    (said,) = [each for each in examine(facts).not_looked_at if "Docker" in each.what]
    assert "does not answer" in said.why


def test_a_source_that_is_late(where: Where, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is given up, and the rest is there."""
    reading, writing = os.pipe()
    monkeypatch.setattr(module, "DEADLINE", 0.5)
    monkeypatch.setattr(module, "read_denials", lambda root: os.read(reading, 1))  # noqa: ARG005
    facts = gather((), where)
    os.write(writing, b"x")
    os.close(writing)
    assert isinstance(facts.denials, Unknown)
    assert facts.devices


def test_no_docker(where: Where) -> None:
    facts = gather((), where)
    assert (facts.engine, facts.status, facts.daemon_json) == (None, None, None)


@pytest.mark.parametrize(
    ("text", "error"),
    [("", ""), ('{"bip": "172.17.0.1/16"}', ""), ("{", "not JSON"), ("[1]", "not a JSON object")],
)
def test_the_file_of_dockerd(tmp_path: Path, text: str, error: str) -> None:
    path = tmp_path / "daemon.json"
    path.write_text(text)
    found = read_daemon_json(path)
    assert found is not None
    assert error in found.error
    assert bool(found.error) is bool(error)


def test_denials_of_selinux(tmp_path: Path) -> None:
    """The audit log's lines about our programs, and no others."""
    log = tmp_path / "var/log/audit/audit.log"
    switch = tmp_path / "sys/fs/selinux/enforce"
    for path in (log, switch):
        path.parent.mkdir(parents=True)
    ours = 'type=AVC msg=audit(1.2:3): avc:  denied  { bind } for comm="docker-proxy" port=80'
    log.write_text(f'{ours}\ntype=AVC avc:  denied  {{ read }} for comm="cron"\n')
    switch.write_text("0")
    assert read_denials(tmp_path) == ()
    switch.write_text("1")
    assert read_denials(tmp_path) == (ours,)
    log.unlink()
    assert isinstance(read_denials(tmp_path), Unknown)


def test_the_rules_of_v6fwd_s_file(tmp_path: Path) -> None:
    file = tmp_path / "v6fwd.toml"
    assert read_rules(file) == ((), "")
    file.write_text('[[docker.rule]]\ncontainer = "web"\nclient-ip = "proxy-v2"\n')
    rules, error = read_rules(file)
    assert not error
    assert isinstance(rules, tuple)
    assert [each.client_ip for each in rules] == ["proxy-v2"]
    file.write_text("nonsense = 1\n")
    rules, error = read_rules(file)
    assert isinstance(rules, Unknown)
    assert str(file) in error
