"""The last twenty requests and the last hour: bounded, and right within a tenth."""

import random
import statistics

import pytest

from miner.recorder.records import RequestRecord
from miner.status.history import BINS, MINUTES, RECENT_REQUESTS, RECENT_UNPROVEN, History, quantile
from miner.status.overview import Hour

START = 1_000_000 * 60.0  # at the beginning of a minute


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def history(clock: Clock) -> History:
    return History(clock)


def entry(seconds: float = 0.1, outcome: str = "ok", uid: int | None = 3, caller: str = "a hotkey") -> RequestRecord:
    prediction = 0.7 if outcome in ("ok", "expired") else None
    return RequestRecord(START, uid, "dendrite", outcome, "", seconds, prediction=prediction, caller=caller)


def test_the_ring_keeps_the_last_twenty_with_the_newest_first(history: History) -> None:
    for uid in range(50):
        history.request_ended(entry(uid=uid))
    assert [request.uid for request in history.recent()] == list(range(49, 49 - RECENT_REQUESTS, -1))


def test_a_flood_of_strangers_pushes_no_validator_off_the_page(history: History) -> None:
    for uid in range(RECENT_REQUESTS):
        history.request_ended(entry(uid=uid))
    for _ in range(1000):
        history.request_ended(entry(outcome="unauthorised", uid=None, caller=""))
    shown = [request.uid for request in history.recent()]
    assert shown == [None] * RECENT_UNPROVEN + list(range(RECENT_REQUESTS - 1, RECENT_UNPROVEN - 1, -1))
    history.request_ended(entry(uid=77))
    assert history.recent()[0].uid == 77


def test_the_hour_has_sixty_minutes_and_forgets_the_older(history: History, clock: Clock) -> None:
    history.request_ended(entry())
    clock.now += 59 * 60
    history.request_ended(entry(outcome="refused"))
    minutes = history.hour()
    assert len(minutes) == MINUTES
    assert minutes[0].outcomes == {"ok": 1}
    assert minutes[-1].outcomes == {"refused": 1}
    clock.now += 60
    assert history.hour()[0].outcomes == {}
    clock.now += 7200
    assert Hour.of(history).outcomes == {}


def test_a_clock_set_back_loses_nothing_and_breaks_nothing(history: History, clock: Clock) -> None:
    history.request_ended(entry())
    clock.now -= 120
    history.request_ended(entry())
    clock.now += 120
    assert Hour.of(history).outcomes == {"ok": 2}


@pytest.mark.parametrize("share", [0.5, 0.95, 0.99])
def test_quantiles_are_right_within_a_bin(history: History, share: float) -> None:
    source = random.Random(4)
    times = [source.lognormvariate(-1, 1) for _ in range(5000)]
    for seconds in times:
        history.request_ended(entry(seconds))
    exact = statistics.quantiles(times, n=100)[round(share * 100) - 1]
    assert quantile(history.hour(), share) == pytest.approx(exact, rel=0.02)


def test_the_99th_percentile_and_the_maximum_are_told_apart(history: History) -> None:
    for seconds in (*[0.3] * 200, 0.31):
        history.request_ended(entry(seconds))
    hour = Hour.of(history)
    assert hour.p99 is not None
    assert 0.3 <= hour.p99 < hour.longest == 0.31


def test_no_quantile_is_above_the_maximum(history: History) -> None:
    for seconds in (0.3001, 0.3002):
        history.request_ended(entry(seconds))
    assert Hour.of(history).p99 == Hour.of(history).longest == 0.3002


def test_one_answer_is_every_quantile(history: History) -> None:
    history.request_ended(entry(0.123))
    assert Hour.of(history).p50 == Hour.of(history).p99 == 0.123


def test_no_answers_have_no_quantile(history: History) -> None:
    history.request_ended(entry(outcome="refused"))
    hour = Hour.of(history)
    assert (hour.p50, hour.answered_share) == (None, 0)


def test_memory_is_bounded_whatever_comes(history: History, clock: Clock) -> None:
    source = random.Random(1)
    for _ in range(20_000):
        clock.now += 1
        history.request_ended(
            entry(10 ** source.uniform(-9, 6), source.choice(["ok", "forbidden"]), source.randrange(10**6))
        )
    assert len(history._minutes) <= MINUTES
    assert all(len(minute.bins) <= BINS + 1 and len(minute.outcomes) <= 2 for minute in history._minutes)


def test_strangers_do_not_lower_the_share_that_is_answered(history: History) -> None:
    for outcome in ("ok", "ok", "ok", "refused", "forbidden", "bad_image"):
        history.request_ended(entry(outcome=outcome))
    assert Hour.of(history).answered_share == 0.75
