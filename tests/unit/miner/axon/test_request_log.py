"""One line a minute about proven callers, and one a request at DEBUG."""

import asyncio
import logging
from typing import Any

import pytest

from miner.axon.request_log import Traffic, tell_of
from miner.status.history import Entry

WINDOW = 0.05  # seconds
HOTKEY = "5H6mjczAWmktzjc4cUEb9gqAwK5tKBX6b9oPUXY96hvTRepr"


def ended(outcome: str = "ok", uid: int | None = 7, seconds: float = 0.1, prediction: float | None = 0.9) -> Entry:
    return Entry(0.0, uid, "dendrite", outcome, "", seconds, prediction if outcome in ("ok", "expired") else None)


def told(caplog: pytest.LogCaptureFixture, level: int) -> list[dict[str, Any]]:
    found = [record for record in caplog.records if record.name == "miner.axon.request_log" and record.levelno == level]
    return [record.fields for record in found]  # type: ignore[attr-defined]


def test_a_minute_of_requests_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    async def minute() -> None:
        traffic = Traffic(WINDOW)
        for uid in (7, 8, 7, 9):
            traffic.saw(ended(uid=uid, seconds=0.1, prediction=0.9 if uid == 7 else 0.1))
        for outcome in ("refused", "refused", "expired", "bad_image"):
            traffic.saw(ended(outcome))
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
        traffic = Traffic(WINDOW)
        await asyncio.sleep(3 * WINDOW)
        traffic.tell()
        traffic.window = 60.0
        traffic.saw(ended("refused"))
        traffic.tell()
        traffic.tell()

    with caplog.at_level(logging.INFO, "miner"):
        asyncio.run(quiet())
    ((fields),) = told(caplog, logging.INFO)
    assert (fields["asked"], fields["refused"], fields["p50_seconds"], fields["positive_share"]) == (1, 1, None, None)


def test_a_request_has_a_line_at_debug_with_what_became_of_it(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "miner"):
        tell_of(ended(), HOTKEY)
        tell_of(ended("unauthorised", uid=None), None)
    first, second = told(caplog, logging.DEBUG)
    assert (first["uid"], first["outcome"], first["seconds"], first["prediction"]) == (7, "ok", 0.1, 0.9)
    assert HOTKEY.startswith(first["hotkey"])
    assert len(first["hotkey"]) < len(HOTKEY)
    assert second == {"wire": "dendrite", "outcome": "unauthorised", "seconds": 0.1}
    assert "uid 7" in caplog.records[0].getMessage()
    assert "0.9000" in caplog.records[0].getMessage()
