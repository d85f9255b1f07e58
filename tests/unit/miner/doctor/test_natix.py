"""The check-up's judgement of NATIX's own registration: what was kept and our uid in, a line out."""

from dataclasses import replace
from pathlib import Path

import pytest

from miner.doctor import natix
from miner.doctor.findings import Level
from miner.natix.registration import Registration, Registrations
from tests.unit.miner.doctor.test_chain import NOBODY, SUBNET, WHO
from tests.unit.miner.doctor.test_here import expect

KEPT = Registration(progress="succeeded", netuid=72, uid=3, sent=5.0, since=5.0, at=5.0)


@pytest.mark.parametrize(
    ("kept", "level", "part"),
    [
        (KEPT, "ok", "yes, uid 3, since"),
        (KEPT.model_copy(update={"sent": None}), "ok", "before"),
        (KEPT.model_copy(update={"uid": 4}), "problem", "due.*uid 4.*3 now"),
        (KEPT.model_copy(update={"netuid": 323}), "problem", "due"),
        (KEPT.model_copy(update={"progress": "failed", "words": "no card"}), "problem", "refused.*no card"),
        (KEPT.model_copy(update={"progress": "pending"}), "warning", "not decided"),
        (None, "warning", "unknown"),
    ],
)
def test_by_the_last_word(tmp_path: Path, kept: Registration | None, level: Level, part: str) -> None:
    registrations = Registrations(tmp_path)
    if kept is not None:
        registrations.keep("ours", kept)
    finding = natix.judge_natix(SUBNET, WHO, registrations)
    expect(finding, level, part)
    assert ("roadwork-miner register" in finding.todo) == (level != "ok")


def test_what_is_missing_is_said_elsewhere(tmp_path: Path) -> None:
    registrations = Registrations(tmp_path)
    registrations.keep("ours", KEPT)
    expect(natix.judge_natix(None, WHO, registrations), "warning", "uid 3: succeeded")
    expect(natix.judge_natix(SUBNET, NOBODY, registrations), "warning", "hotkey")
    stranger = replace(WHO, hotkey="somebody")
    expect(natix.judge_natix(SUBNET, stranger, registrations), "warning", "not yet")
