"""The last twenty requests, the hour, the day and the week: bounded, and right within a tenth."""

import random
import statistics
import sys
import tracemalloc
from collections import Counter
from types import FrameType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from miner.chain.base import Neuron
from miner.recorder.records import OUTCOMES, RequestRecord
from miner.status.history import (
    ACCOUNT_SPANS,
    BINS,
    MOST_ACCOUNTS,
    OTHERS,
    RECENT_REQUESTS,
    RECENT_UNPROVEN,
    SPANS,
    UNPERMITTED,
    History,
    quantile,
)
from miner.status.spans import Hour, LongSpan, callers

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


def entry(
    seconds: float = 0.1, outcome: str = "ok", uid: int | None = 3, caller: str = "a hotkey", *, permit: bool = True
) -> RequestRecord:
    prediction = 0.7 if outcome in ("ok", "expired") else None
    return RequestRecord(
        START, uid, "dendrite", outcome, "", seconds, prediction=prediction, caller=caller, hotkey="ours",
        is_permitted=permit,
    )  # fmt: skip


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
    minutes = history.periods("hour")
    assert len(minutes) == 60
    assert minutes[0].outcomes == {"ok": 1}
    assert minutes[-1].outcomes == {"refused": 1}
    clock.now += 60
    assert history.periods("hour")[0].outcomes == {}
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
    assert quantile(history.periods("hour"), share) == pytest.approx(exact, rel=0.02)


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
        clock.now += 60
        history.request_ended(
            entry(10 ** source.uniform(-9, 6), source.choice(["ok", "forbidden"]), source.randrange(10**6))
        )
    for span, ring in history.rings.items():
        assert len(ring.periods) == SPANS[span][1]
        for period in ring.periods:
            assert len(period.outcomes) <= 2
            assert period.durations.counts is None or period.durations.counts.nbytes <= 4 * (BINS + 1)
    for span, accounts in history.accounts.items():
        assert len(accounts.periods) == ACCOUNT_SPANS[span][1]
        assert all(len(one.callers) <= MOST_ACCOUNTS + 2 for one in accounts.periods)


@pytest.mark.slow
def test_the_largest_history_there_can_be_takes_less_than_20_megabytes(clock: Clock) -> None:
    tracemalloc.start()
    try:
        history = History(clock)
        for span, ring in history.rings.items():
            for number in range(SPANS[span][1]):
                for outcome in OUTCOMES[:-1]:
                    ring.at(START + number * ring.seconds).take(entry(0.1, outcome))
        for accounts in history.accounts.values():
            for number in range(accounts.length):
                for uid in range(2 * MOST_ACCOUNTS):
                    for outcome in ("ok", "refused", "expired"):
                        accounts.at(START + number * accounts.seconds).take(entry(0.1, outcome, uid))
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size < 20e6


def test_a_day_and_a_week_remember_what_the_hour_forgot(history: History, clock: Clock) -> None:
    history.request_ended(entry(0.5))
    clock.now += 3 * 3600
    history.request_ended(entry(0.1, "refused"))
    hour, day, week = Hour.of(history), LongSpan.of(history, "day"), LongSpan.of(history, "week")
    assert (hour.asked, day.asked, week.asked) == (1, 2, 2)
    assert (hour.validators, day.validators, day.callers[0].asked) == (1, 1, 2)
    assert day.p95 == day.longest == 0.5
    assert day.last == week.last == START
    clock.now += 2 * 86400
    assert (LongSpan.of(history, "day").asked, LongSpan.of(history, "week").asked) == (0, 2)


def test_a_clock_set_back_by_days_shows_the_present_at_once(history: History, clock: Clock) -> None:
    history.request_ended(entry())
    clock.now -= 3 * 86400
    history.request_ended(entry(outcome="refused"))
    for shown in (Hour.of(history), LongSpan.of(history, "day"), LongSpan.of(history, "week")):
        assert shown.outcomes == {"refused": 1}


@pytest.mark.parametrize("seconds", [3.0, 90.0, 1800.0, 5400.0, 3 * 86400.0])
def test_a_clock_set_back_hides_what_lies_ahead_alone_and_counts_nothing_twice(
    history: History, clock: Clock, seconds: float
) -> None:
    """At the edge of a period of every ring, the worst there is."""
    clock.now = START // 21600 * 21600
    history.request_ended(entry(outcome="expired"))
    clock.now -= seconds
    history.request_ended(entry(outcome="refused"))
    for span in (Hour.of(history), LongSpan.of(history, "day"), LongSpan.of(history, "week")):
        assert (span.outcomes, span.validators) == ({"refused": 1}, 1)
    clock.now += seconds
    assert LongSpan.of(history, "week").outcomes == {"expired": 1, "refused": 1}


# A stretch of time: the hours by which the clock is wrong in it (0: it is right), its seconds, and its requests.
STRETCHES = st.lists(
    st.tuples(
        st.one_of(st.just(0.0), st.floats(-60_000, 60_000), st.floats(-3, 3)),
        st.floats(1, 86_400),
        st.integers(0, 20),
    ),
    max_size=12,
)


@given(STRETCHES)
def test_what_was_counted_by_the_right_clock_is_there_once_whatever_it_was_in_between(
    stretches: list[tuple[float, float, int]],
) -> None:
    clock = Clock()
    clock.now = 10**9
    history, true, right, begun = History(clock), clock.now, [], 0
    for wrong, seconds, count in stretches:
        for number in range(count):
            clock.now = true + seconds * number / count + wrong * 3600
            history.request_ended(entry(outcome="refused" if wrong else "ok"))
            if not wrong:
                right.append(clock.now)
        begun += (wrong != 0) * count
        true += seconds
    clock.now = true
    for name, ring in history.rings.items():
        assert len(ring.periods) <= 2 * ring.length
        numbers = [period.number for period in ring.periods]
        assert numbers == sorted(set(numbers))
        newest = int(true // ring.seconds)
        # What was begun by a wrong clock pushed out as many of the oldest periods at most, and nothing else.
        due = [sum(at // ring.seconds > newest - ring.length + lost for at in right) for lost in (begun, 0)]
        assert due[0] <= history.total(name).outcomes["ok"] <= due[1]


@given(STRETCHES)
def test_a_clock_that_starts_behind_loses_nothing(stretches: list[tuple[float, float, int]]) -> None:
    """A board without a battery: each start is years behind, and then NTP sets it; kept over restarts as in a file."""
    clock = Clock()
    true = clock.now = 1.7e9
    history, right = History(clock), []
    for behind, seconds, count in stretches:
        begun = History(clock)
        clock.now = true - 86400 * 365 - abs(behind) * 3600
        for name, ring in history.rings.items():
            begun.rings[name].restore(ring.periods, clock.now)
        history = begun
        if count:
            history.request_ended(entry(outcome="unauthorised", caller=""))
        for number in range(count):
            clock.now = true + seconds * number / count
            history.request_ended(entry())
            right.append(clock.now)
        true += seconds
    clock.now = true
    for name, ring in history.rings.items():
        assert history.total(name).outcomes == Counter(
            {"ok": sum(at // ring.seconds > true // ring.seconds - ring.length for at in right)}
        )


def looked_at(history: History) -> list[dict[str, Any]]:
    spans = [Hour.of(history), LongSpan.of(history, "day"), LongSpan.of(history, "week")]
    return [span.model_dump() for span in spans]


def calls_of_a_look(history: History) -> int:
    """Return how many functions are called for an hour, a day and a week: the same on any machine."""
    count = 0

    def see(frame: FrameType, event: str, _: object) -> None:
        nonlocal count
        count += event == "call"

    before = sys.getprofile()
    sys.setprofile(see)
    try:
        looked_at(history)
    finally:
        sys.setprofile(before)
    return count


def test_a_second_look_sums_up_the_newest_periods_alone(history: History, clock: Clock) -> None:
    for _ in range(7 * 24):
        clock.now += 3600
        for uid in range(20):
            history.request_ended(entry(uid=uid))
    first, asked = calls_of_a_look(history), LongSpan.of(history, "week").asked
    history.request_ended(entry(uid=7))
    clock.now += 5
    assert calls_of_a_look(history) < first / 3
    assert LongSpan.of(history, "week").asked == asked + 1
    again = LongSpan.of(history, "day").periods
    assert sum(one is not other for one, other in zip(LongSpan.of(history, "day").periods, again, strict=True)) == 1


def test_what_is_kept_of_sums_is_right_whatever_the_clock_does(history: History, clock: Clock) -> None:
    """Back over the edge of a period, forth by days, back by days: as if each look were the first."""
    source = random.Random(3)
    for _ in range(300):
        clock.now += source.choice((1, 5, 30, 60, 60, 900, 7200, -1, -5, -60, -200, -900, 86400, -3 * 86400))
        if source.random() < 0.7:
            history.request_ended(entry(source.uniform(0.1, 9), source.choice(("ok", "refused")), source.randrange(4)))
        fresh = History(clock)
        for name, ring in history.rings.items():
            fresh.rings[name].periods.extend(ring.periods)
        for name, accounts in history.accounts.items():
            fresh.accounts[name].periods.extend(accounts.periods)
        assert looked_at(history) == looked_at(fresh)


def test_who_asks_is_counted_by_uid_and_query_and_strangers_are_no_validators(history: History) -> None:
    for record in (
        entry(0.2, uid=7), entry(0.3, uid=7), entry(outcome="refused", uid=7), entry(outcome="expired", uid=7),
        entry(outcome="forbidden", uid=8, permit=False), entry(caller="", outcome="unproven", uid=None),
        entry(caller="ours", uid=4),
    ):  # fmt: skip
        history.request_ended(record)
    found = history.callers("hour")
    assert found.keys() == {7, UNPERMITTED}
    seven, stranger = callers(found, [])
    assert (seven.uid, seven.asked, seven.answered, seven.refused, seven.late) == (7, 4, 2, 1, 1)
    assert (stranger.uid, stranger.is_permitted, stranger.asked) == (None, False, 1)
    assert seven.p95 == pytest.approx(0.3, rel=0.1)
    assert history.hotkeys("hour")["ours"].outcomes.total() == 7
    assert Hour.of(history).validators == 1


def test_the_table_of_who_asks_is_short_and_loses_no_request(history: History) -> None:
    neurons = [Neuron(uid, f"v{uid}", float(uid), validator_permit=uid % 2 == 0) for uid in range(60)]
    for uid in range(30):
        for _ in range(uid):
            history.request_ended(entry(uid=uid))
    rows = callers(history.callers("hour"), neurons, most=5)
    assert [row.uid for row in rows] == [29, 28, 27, 26, 25, None]
    assert sum(row.asked for row in rows) == sum(range(30))
    assert rows[-1].count == 25 + 15
    quiet = callers({}, neurons, most=2)
    assert [(row.uid, row.stake, row.asked, row.last) for row in quiet[:2]] == [
        (58, 58.0, 0, None),
        (56, 56.0, 0, None),
    ]


def test_more_validators_than_a_subnet_has_are_summed(history: History) -> None:
    for uid in range(MOST_ACCOUNTS + 9):
        history.request_ended(entry(uid=uid))
    found = history.callers("hour")
    assert len(found) == MOST_ACCOUNTS + 1
    assert found[OTHERS].outcomes == {"ok": 9}


def test_strangers_do_not_lower_the_share_that_is_answered(history: History) -> None:
    for outcome in ("ok", "ok", "ok", "refused", "forbidden", "bad_image"):
        history.request_ended(entry(outcome=outcome))
    assert Hour.of(history).answered_share == 0.75
