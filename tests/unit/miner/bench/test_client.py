"""Interleaved rounds, with competitors that only count."""

from collections import Counter

import pytest

from miner.bench.client import LONE_REQUESTS, MAX_BURSTS, RoundLimit, bursts_in_turn, measure
from miner.bench.worker import Burst


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def pause(self, seconds: float) -> None:
        self.now += seconds


class Counting:
    """Takes exactly its pace for each picture, and says when it was asked."""

    def __init__(self, name: str, pace: float, clock: Clock, turns: list[tuple[str, int]]) -> None:
        self.name, self.pace, self.clock, self.turns = name, pace, clock, turns

    def turn(self, at_once: int, bursts: int) -> list[Burst]:
        self.turns.append((self.name, at_once))
        self.clock.now += self.pace * at_once * bursts
        latencies = [self.pace * (number + 1) for number in range(at_once)]
        return [Burst(latencies, [0] * at_once, latencies[-1]) for _ in range(bursts)]


def run(bound: RoundLimit, paces: tuple[float, ...] = (0.1, 0.2, 0.3)) -> tuple[int, list[tuple[str, int]], Clock]:
    clock, turns = Clock(), list[tuple[str, int]]()
    competitors = [Counting(name, pace, clock, turns) for name, pace in zip("ABC", paces, strict=False)]
    records, rounds = measure(competitors, [1, 4], bound, clock=clock, pause=clock.pause)
    assert all(set(record.bursts) == {1, 4} for record in records)
    return rounds, turns, clock


def test_all_take_turns_at_every_level_and_another_one_begins_each_round() -> None:
    rounds, turns, _ = run(RoundLimit(rounds=2, until=None))
    assert rounds == 2
    assert turns == [
        *(("A", 1), ("B", 1), ("C", 1), ("A", 4), ("B", 4), ("C", 4)),
        *(("B", 1), ("C", 1), ("A", 1), ("B", 4), ("C", 4), ("A", 4)),
    ]


def test_no_round_is_begun_that_would_end_too_late() -> None:
    _, _, one = run(RoundLimit(rounds=1, until=None))
    rounds, turns, clock = run(RoundLimit(rounds=None, until=one.now * 3.5))
    assert rounds == 3
    assert clock.now <= one.now * 3.5
    assert set(Counter(name for name, _ in turns).values()) == {6}


def test_one_round_is_measured_however_little_time_there_is() -> None:
    assert run(RoundLimit(rounds=None, until=0.0))[0] == 1
    assert run(RoundLimit(rounds=5, until=0.0))[0] == 1


@pytest.mark.parametrize(
    ("at_once", "pace", "bursts"),
    [(1, 0.2, LONE_REQUESTS), (1, 0.01, 25), (1, 1e-9, MAX_BURSTS), (10, 0.2, 1), (10, 0.005, 5), (2, 0.0, MAX_BURSTS)],
)
def test_a_turn_is_long_enough_for_a_quick_model_and_short_enough_for_a_slow_one(
    at_once: int, pace: float, bursts: int
) -> None:
    assert bursts_in_turn(at_once, pace) == bursts
