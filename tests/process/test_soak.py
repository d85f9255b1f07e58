"""A few hundred mixed requests leave nothing behind; `make soak` sends thousands and looks at the memory too."""

from collections.abc import Callable

import numpy as np
import pytest

from tests.process.conftest import StartDaemon
from tests.soak import BYTES_A_REQUEST, LONGEST, STEP, Sample, Verdict, growth_of, judge, settled, soak

COUNT = 20_000
MB = 1e6


def test_mixed_requests_leave_no_descriptor_and_no_task_behind(start_daemon: StartDaemon) -> None:
    figures = soak(start_daemon().ready(), 240, step=80)
    assert figures.unexpected == []
    assert figures.leftovers == ""
    assert 3 <= len(figures.samples) <= 3 * LONGEST
    assert sum(count for end, count in figures.ends.items() if end == "good: 200") > 60


def verdict_on(memory: Callable[[int], float]) -> tuple[Verdict, list[Sample]]:
    """Return the verdict on a daemon of which this is the resident memory after so many requests."""
    samples: list[Sample] = []
    while (verdict := judge(samples, COUNT) if samples else None) is None:
        requests = STEP * (len(samples) + 1)
        samples.append(Sample(requests, memory(requests), 0, 0, 0))
    return verdict, samples


def warming(seed: int, leak: float) -> Callable[[int], float]:
    """Return memory that settles over thousands of requests, with noise of 4 MB and now and then a step of 15."""
    chance = np.random.default_rng(seed)
    noise = chance.normal(0, 4 * MB, 100) - chance.choice([0, 15 * MB], 100, p=[0.9, 0.1])
    return lambda requests: (
        130 * MB + 25 * MB * (1 - np.exp(-requests / 4000)) + noise[requests // STEP] + leak * requests
    )


@pytest.mark.parametrize(("leak", "verdict"), [(0, "steady"), (200, "steady"), (3000, "grows")])
def test_the_verdict_on_memory_is_the_same_every_time(leak: float, verdict: Verdict) -> None:
    assert {verdict_on(warming(seed, leak))[0] for seed in range(20)} == {verdict}


def test_what_the_samples_do_not_tell_is_not_told() -> None:
    verdict, samples = verdict_on(lambda requests: BYTES_A_REQUEST * requests + 40 * MB * (requests // STEP * 7 % 5))
    assert verdict == "undecided"
    growth = growth_of(samples)
    assert growth.low < BYTES_A_REQUEST <= growth.high
    assert samples[-1].requests == LONGEST * COUNT


def test_the_warm_up_is_left_out() -> None:
    assert settled([1, 5, 8, 9, 10, 10, 10, 10, 10, 10, 10, 10]) == 4
    assert settled([10.0] * 12) == 0
    assert settled([float(number) for number in range(12)]) == 6
