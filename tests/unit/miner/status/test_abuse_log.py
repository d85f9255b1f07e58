"""One line a minute about odd traffic."""

import asyncio
import logging
import re

import pytest

from miner.recorder.records import OUTCOMES, RequestRecord
from miner.status.request_log import OUTCOME_WORDS, AbuseLog

WINDOW = 0.05  # seconds


async def see(abuse: AbuseLog, *seen: tuple[str, str]) -> None:
    for address, outcome in seen:
        record = RequestRecord(0.0, None, "dendrite", outcome, "", 0.1, address=address)
        abuse.request_ended(record)
    await asyncio.sleep(3 * WINDOW)


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [entry.getMessage() for entry in caplog.records if entry.name == "miner.status.request_log"]


def test_a_flood_is_one_warning_with_counts_and_the_last_address(caplog: pytest.LogCaptureFixture) -> None:
    flood = [("192.0.2.7", "unauthorised")] * 37 + [("2001:db8::1", "not_found")] * 2
    asyncio.run(see(AbuseLog(WINDOW), *flood))
    (line,) = lines(caplog)
    assert re.search(r" 0\.05 s: 37 .*unauthorised, 2 .* from 2001:db8::1$", line)
    assert caplog.records[-1].levelno == logging.WARNING


def test_the_next_flood_is_the_next_warning(caplog: pytest.LogCaptureFixture) -> None:
    async def twice() -> None:
        abuse = AbuseLog(WINDOW)
        await see(abuse, ("192.0.2.7", "forbidden"))
        await see(abuse, ("192.0.2.8", "forbidden"), ("192.0.2.9", "forbidden"))

    asyncio.run(twice())
    first, second = (line.split("s: ", 1)[1] for line in lines(caplog))
    assert re.fullmatch(r"1 forbidden; .* 192\.0\.2\.7", first)
    assert re.fullmatch(r"2 forbidden; .* 192\.0\.2\.9", second)


@pytest.mark.parametrize("outcome", ["ok", "refused", "failed", "cancelled"])
def test_what_validators_see_every_day_is_no_warning(outcome: str, caplog: pytest.LogCaptureFixture) -> None:
    asyncio.run(see(AbuseLog(WINDOW), ("192.0.2.7", outcome)))
    assert lines(caplog) == []


def test_a_forged_address_is_not_repeated(caplog: pytest.LogCaptureFixture) -> None:
    forged = "203.0.113.9\n2026-01-01 00:00:00 INFO    all is well"
    asyncio.run(see(AbuseLog(WINDOW), (forged, "unauthorised")))
    (line,) = lines(caplog)
    assert "203.0.113.9" not in line
    assert "all is well" not in line


def test_every_outcome_it_speaks_of_is_one_of_the_metrics() -> None:
    assert set(OUTCOME_WORDS) < set(OUTCOMES)
