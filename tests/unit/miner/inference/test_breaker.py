"""When a model that fails is asked no more, and when again."""

import re

import pytest

from miner.inference.service import FAILURES, FIRST_PAUSE, LAST_PAUSE, Breaker


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def broken(clock: Clock) -> Breaker:
    breaker = Breaker(clock)
    for _ in range(FAILURES):
        breaker.failed("not finite")
    return breaker


def test_some_failures_are_no_reason(clock: Clock) -> None:
    breaker = Breaker(clock)
    for _ in range(3):
        for _ in range(FAILURES - 1):
            breaker.failed("not finite")
        breaker.succeeded()
    assert breaker.obstacle is None


def test_failures_in_a_row_are_one_and_it_is_said(clock: Clock) -> None:
    breaker = broken(clock)
    assert breaker.obstacle is not None
    assert re.search("failed 5 times .*: not finite$", breaker.obstacle)
    assert not breaker.due
    clock.now += FIRST_PAUSE
    assert breaker.due


def test_a_good_test_closes_it_on_probation(clock: Clock) -> None:
    breaker = broken(clock)
    breaker.tested(None)
    assert breaker.obstacle is None
    breaker.failed("not finite")
    assert breaker.obstacle is not None
    clock.now += FIRST_PAUSE
    assert not breaker.due  # twice as long this time
    clock.now += FIRST_PAUSE
    assert breaker.due


def test_a_good_answer_ends_the_probation(clock: Clock) -> None:
    breaker = broken(clock)
    breaker.tested(None)
    breaker.succeeded()
    for _ in range(FAILURES - 1):
        breaker.failed("not finite")
    assert breaker.obstacle is None


def test_a_bad_test_keeps_it_open_for_longer_but_not_for_ever(clock: Clock) -> None:
    breaker = broken(clock)
    for _ in range(20):
        breaker.tested("answers 0.9, not 0.1")
    assert breaker.obstacle is not None
    assert breaker.obstacle.endswith("self-test: answers 0.9, not 0.1")
    clock.now += LAST_PAUSE
    assert breaker.due
