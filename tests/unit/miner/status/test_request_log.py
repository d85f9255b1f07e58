"""One line a minute about proven callers, and one a request at DEBUG."""

import asyncio
import logging
from typing import Any

import pytest

from miner.recorder.records import RequestRecord
from miner.status.request_log import RequestLog, tell_of

WINDOW = 0.05  # seconds
HOTKEY = "5H6mjczAWmktzjc4cUEb9gqAwK5tKBX6b9oPUXY96hvTRepr"


def ended(
    outcome: str = "ok", uid: int | None = 7, seconds: float = 0.1, prediction: float | None = 0.9, caller: str = HOTKEY
) -> RequestRecord:
    said = prediction if outcome in ("ok", "expired") else None
    return RequestRecord(0.0, uid, "dendrite", outcome, "", seconds, prediction=said, caller=caller)


def told(caplog: pytest.LogCaptureFixture, level: int) -> list[dict[str, Any]]:
    found = [
        record for record in caplog.records if record.name == "miner.status.request_log" and record.levelno == level
    ]
    return [record.fields for record in found]  # type: ignore[attr-defined]


def test_a_minute_of_requests_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    async def minute() -> None:
        requests = RequestLog(WINDOW)
        for uid in (7, 8, 7, 9):
            requests.request_ended(ended(uid=uid, seconds=0.1, prediction=0.9 if uid == 7 else 0.1))
        for outcome in ("refused", "refused", "expired", "bad_image"):
            requests.request_ended(ended(outcome))
        await asyncio.sleep(5 * WINDOW)

    with caplog.at_level(logging.INFO, "miner"):
        asyncio.run(minute())
    ((fields),) = told(caplog, logging.INFO)
    assert {name: fields[name] for name in ("asked", "answered", "refused", "late", "bad_image", "validators")} == {
        "asked": 8, "answered": 4, "refused": 2, "late": 1, "bad_image": 1, "validators": 3
    }  # fmt: skip
    assert fields["positive_share"] == 0.5
    assert fields["p50_seconds"] == pytest.approx(0.1, rel=0.1)
    assert fields["p95_seconds"] == pytest.approx(0.1, rel=0.1)


def test_nothing_is_said_while_nobody_asks_and_the_rest_at_the_end(caplog: pytest.LogCaptureFixture) -> None:
    async def quiet() -> None:
        requests = RequestLog(WINDOW)
        await asyncio.sleep(3 * WINDOW)
        requests.tell()
        requests.window = 60.0
        requests.request_ended(ended("refused"))
        requests.tell()
        requests.tell()

    with caplog.at_level(logging.INFO, "miner"):
        asyncio.run(quiet())
    ((fields),) = told(caplog, logging.INFO)
    assert (fields["asked"], fields["refused"], fields["p50_seconds"], fields["positive_share"]) == (1, 1, None, None)


def test_a_request_has_a_line_at_debug_with_what_became_of_it(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "miner"):
        tell_of(ended())
        tell_of(ended("unauthorised", uid=None, caller=""))
    first, second = told(caplog, logging.DEBUG)
    assert (first["uid"], first["outcome"], first["seconds"], first["prediction"]) == (7, "ok", 0.1, 0.9)
    assert HOTKEY.startswith(first["hotkey"])
    assert len(first["hotkey"]) < len(HOTKEY)
    assert second == {"wire": "dendrite", "outcome": "unauthorised", "seconds": 0.1}
    assert "uid 7" in caplog.records[0].getMessage()
    assert "0.9000" in caplog.records[0].getMessage()
