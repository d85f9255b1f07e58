"""One line a minute about odd traffic."""

import asyncio
import logging

import pytest

from miner.axon.strangers import WORDS, Strangers

WINDOW = 0.05  # seconds


async def see(strangers: Strangers, *seen: tuple[str, str]) -> None:
    for address, outcome in seen:
        strangers.saw(address, outcome)
    await asyncio.sleep(3 * WINDOW)


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [entry.getMessage() for entry in caplog.records if entry.name == "miner.axon.strangers"]


def test_a_flood_is_one_warning_with_counts_and_the_last_address(caplog: pytest.LogCaptureFixture) -> None:
    flood = [("192.0.2.7", "unauthorised")] * 37 + [("2001:db8::1", "not_found")] * 2
    asyncio.run(see(Strangers(WINDOW), *flood))
    assert lines(caplog) == [
        "requests in the last 0.05 s: 37 refused as unauthorised, 2 for paths there are not; the last from 2001:db8::1"
    ]
    assert caplog.records[-1].levelno == logging.WARNING


def test_the_next_flood_is_the_next_warning(caplog: pytest.LogCaptureFixture) -> None:
    async def twice() -> None:
        strangers = Strangers(WINDOW)
        await see(strangers, ("192.0.2.7", "forbidden"))
        await see(strangers, ("192.0.2.8", "forbidden"), ("192.0.2.9", "forbidden"))

    asyncio.run(twice())
    assert [line.split("s: ", 1)[1] for line in lines(caplog)] == [
        "1 forbidden; the last from 192.0.2.7",
        "2 forbidden; the last from 192.0.2.9",
    ]


@pytest.mark.parametrize("outcome", ["ok", "refused", "failed", "cancelled"])
def test_what_validators_see_every_day_is_no_warning(outcome: str, caplog: pytest.LogCaptureFixture) -> None:
    asyncio.run(see(Strangers(WINDOW), ("192.0.2.7", outcome)))
    assert lines(caplog) == []


def test_a_forged_address_is_not_repeated(caplog: pytest.LogCaptureFixture) -> None:
    forged = "203.0.113.9\n2026-01-01 00:00:00 INFO    all is well"
    asyncio.run(see(Strangers(WINDOW), (forged, "unauthorised")))
    (line,) = lines(caplog)
    assert line.endswith("the last from an address that is none")


def test_every_outcome_it_speaks_of_is_one_of_the_metrics() -> None:
    from miner.metrics import OUTCOMES

    assert set(WORDS) < set(OUTCOMES)
