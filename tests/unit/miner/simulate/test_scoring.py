"""What validators make of answers: the score against an implementation of its own, and the sums."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from miner.axon.client import Reply
from miner.errors import MESSAGES
from miner.simulate.report import score_all, summed_up, truth
from miner.simulate.schedule import Request
from miner.simulate.sender import SentAnswer, judged


def request(number: int = 0, *, works: bool = True, validator: int = 0, votes: tuple[bool, ...] = ()) -> Request:
    return Request(number, float(number), 0.0, validator, 0, works, votes)


def answer(number: int = 0, prediction: float | None = 0.9) -> SentAnswer:
    outcome = "late" if prediction is None else "answered"
    return SentAnswer(number, outcome, prediction, 0.1, 0 if prediction is None else 200, "")  # type: ignore[arg-type]


def by_the_book(played: list[tuple[float | None, bool]]) -> list[float]:
    """The smoothed scores, with scikit-learn, from the description of the subnet's validator."""
    from sklearn.metrics import accuracy_score, matthews_corrcoef

    score, scores = 0.0, []
    for end in range(1, len(played) + 1):
        reward = 0.0
        if played[end - 1][0] is not None:
            labels, said = {}, {}
            for window in (100, 10):
                kept = [one for one in played[max(0, end - window) : end] if one[0] is not None]
                labels[window] = [int(label) for _, label in kept]
                said[window] = [int(np.round(prediction)) for prediction, _ in kept]
            many = len(set(labels[100])) > 1
            mcc = max(0.0, matthews_corrcoef(labels[100], said[100])) if many else 0.0
            reward = (0.5 * mcc + 0.5 * accuracy_score(labels[10], said[10])) ** 3
        score = 0.95 * score + 0.05 * reward
        scores.append(score)
    return scores


rounds = st.tuples(st.none() | st.sampled_from([0.0, 0.3, 0.5, 0.500001, 0.7, 1.0]), st.booleans())


@settings(max_examples=30, deadline=None)
@given(st.lists(rounds, min_size=1, max_size=40))
@pytest.mark.slow
def test_the_simulated_score_is_the_validators(played: list[tuple[float | None, bool]]) -> None:
    check(played)


@pytest.mark.slow
def test_the_simulated_score_is_the_validators_over_windows_that_are_full() -> None:
    random = np.random.default_rng(0)
    played: list[tuple[float | None, bool]] = []
    for _ in range(260):
        works = bool(random.random() < 0.5)
        right = random.random() < 0.85
        played.append((None if random.random() < 0.1 else 0.8 if works == right else 0.2, works))
    check(played)


def check(played: list[tuple[float | None, bool]]) -> None:
    pairs = [
        (request(number, works=works), answer(number, prediction)) for number, (prediction, works) in enumerate(played)
    ]
    (tally,) = score_all(pairs, 1)
    assert tally.scores == pytest.approx(by_the_book(played), abs=1e-9)


def test_each_validator_keeps_a_history_of_its_own() -> None:
    pairs = [
        (request(number, validator=number % 2), answer(number, 0.9 if number % 2 else 0.1)) for number in range(40)
    ]
    wrong, right = score_all(pairs, 2)
    assert wrong.score == 0
    assert right.score > 0
    assert len(wrong.rewards) == len(right.rewards) == 20


@pytest.mark.parametrize(
    ("votes", "prediction", "label"),
    [
        ((True, True), 0.1, True),
        ((True, False), 0.1, False),
        ((True, False), 0.9, True),
        ((True, False), None, None),
        ((False, False), None, False),
        ((), 0.1, True),  # the validator's own label
    ],
)
def test_organic_tasks_are_scored_by_the_majority(
    votes: tuple[bool, ...], prediction: float | None, label: bool | None
) -> None:
    assert truth(request(votes=votes), answer(0, prediction)) is label


@pytest.mark.parametrize(
    ("reply", "outcome"),
    [
        (Reply(200, 0.3, "", 0.1), "answered"),
        (Reply(200, 1, "", 0.1), "answered"),
        (Reply(200, math.nan, "", 0.1), "failed"),
        (Reply(200, 1.5, "", 0.1), "failed"),
        (Reply(200, None, "", 0.1), "failed"),
        (Reply(500, 0.3, "", 0.1), "failed"),
        (Reply(503, None, MESSAGES["queue_full"], 0.1), "refused"),
        (Reply(0, None, "", 9.0, timed_out=True), "late"),
        (Reply(0, None, "", 0.1), "unreachable"),
    ],
)
def test_only_a_probability_in_time_is_an_answer(reply: Reply, outcome: str) -> None:
    found = judged(4, reply)
    assert (found.number, found.outcome) == (4, outcome)
    assert (found.prediction is not None) == (outcome == "answered")


def test_the_sum_counts_what_was_sent_and_says_what_the_lost_cost() -> None:
    requests = [request(number, works=number % 2 == 0) for number in range(100)]
    answers = [answer(number, None if number < 20 else 0.9 if number % 2 == 0 else 0.1) for number in range(100)]
    report = summed_up(requests, answers, 1, 10.0, 1.0)
    assert (report.outcomes["answered"], report.outcomes["late"], report.lost) == (80, 20, 0.2)
    assert report.quality.accuracy == report.quality.mcc == 1
    assert report.expected_unlost == pytest.approx(1, abs=0.01)
    assert report.expected == pytest.approx(0.8, abs=0.03)


def test_nothing_sent_is_a_report_too() -> None:
    report = summed_up([], [], 2, 0.0, 1.0)
    assert (report.requests, report.p50, report.expected, report.score) == (0, None, None, 0.0)
