"""Interleaved rounds: every competitor in turn, a little at a time, so that the machine's noise hits all alike."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from miner.bench.client import Competitor
from miner.bench.job import Burst

TURN = 0.25  # seconds a turn should take: caches, pages and the library's threads are the competitor's own by then
ALONE = 6  # requests one after another, at least
MOST = 60  # bursts in a turn
PAUSE = 0.02  # seconds until the last competitor's threads have stopped spinning

Progress = Callable[[str, float], None]  # what is done, and the share of the whole


@dataclass(slots=True)
class Record:
    """All bursts of a competitor, by how many requests were submitted together."""

    bursts: dict[int, list[Burst]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Bound:
    """When to stop: after `rounds`, or when another round would end later than `until` (on the clock)."""

    rounds: int | None
    until: float | None


def bursts_in_turn(at_once: int, pace: float) -> int:
    """Return how many bursts make up a turn."""
    least = ALONE if at_once == 1 else 1
    return max(least, min(MOST, round(TURN / (at_once * max(pace, 1e-6)))))


def measure(
    competitors: Sequence[Competitor],
    levels: Sequence[int],
    bound: Bound,
    progress: Progress = lambda _text, _share: None,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> tuple[list[Record], int]:
    """Run rounds until the bound, at least one; return a record for each competitor, and the number of rounds."""
    records = [Record() for _ in competitors]
    began = clock()
    rounds = 0
    while True:
        for at_once in levels:
            for number in _rotated(len(competitors), rounds):
                competitor = competitors[number]
                progress(f"{competitor.name}, {at_once} at once", _share(bound, rounds, began, clock()))
                bursts = competitor.turn(at_once, bursts_in_turn(at_once, competitor.pace))
                records[number].bursts.setdefault(at_once, []).extend(bursts)
                pause(PAUSE)
        rounds += 1
        now = clock()
        if bound.rounds is not None and rounds >= bound.rounds:
            break
        if bound.until is not None and now + (now - began) / rounds > bound.until:
            break
    return records, rounds


def _rotated(count: int, rounds: int) -> list[int]:
    """Let another one begin each round: the first after a pause has it easier."""
    return [(number + rounds) % count for number in range(count)]


def _share(bound: Bound, rounds: int, began: float, now: float) -> float:
    if bound.rounds is not None:
        return rounds / bound.rounds
    assert bound.until is not None
    return min(1.0, (now - began) / max(bound.until - began, 1e-3))
