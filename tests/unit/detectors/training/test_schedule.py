"""What follows from the amount of data."""

import numpy as np
import pytest

from detectors.training.job import (
    ALL_EPOCHS,
    Schedule,
    class_weights,
    make_schedule,
    share_of_rate,
    since_best,
    superfluous,
    why_ended,
)


@pytest.mark.parametrize(
    ("photos", "batch", "epochs", "schedule"),
    [
        pytest.param(33, 32, 10, Schedule(epoch=2, total=20, warm_up=2, logging=1), id="little data"),
        pytest.param(32_000, 32, 10, Schedule(epoch=1000, total=10_000, warm_up=1000, logging=100), id="much"),
        pytest.param(1, 32, 1, Schedule(epoch=1, total=1, warm_up=1, logging=1), id="one photo"),
    ],
)
def test_steps_follow_from_the_data(photos: int, batch: int, epochs: int, schedule: Schedule) -> None:
    assert make_schedule(photos, batch, epochs, warm_up=0.1) == schedule


@pytest.mark.parametrize(("warm_up", "total"), [(1, 1), (2, 20), (0, 3), (100, 1000)])
def test_no_step_is_made_at_a_rate_of_0(warm_up: int, total: int) -> None:
    shares = [share_of_rate(step, warm_up, total) for step in range(total)]
    assert min(shares) > 0
    top = int(np.argmax(shares))
    assert shares[: top + 1] == sorted(shares[: top + 1])
    assert shares[top:] == sorted(shares[top:], reverse=True)
    assert max(shares) == 1 or total == 1


def test_patience_counts_epochs_however_few_of_them_are_validated() -> None:
    schedule = Schedule(epoch=10, total=1000, warm_up=0, logging=1)

    def validated(*epochs: float) -> list[dict[str, float]]:
        rewards = (0.5, 0.6, 0.4, 0.4, 0.4)
        return [
            {"epoch": epoch, "eval_reward": reward, "eval_loss": 1.0}
            for epoch, reward in zip(epochs, rewards, strict=False)
        ]

    assert why_ended([], 0, schedule, patience=1) is None
    assert why_ended(validated(1, 2, 3, 4), 40, schedule, patience=3) is None
    ended = why_ended(validated(3, 6, 9, 12), 120, schedule, patience=6)
    assert ended is not None
    assert "6 epochs" in ended
    assert why_ended(validated(3, 6, 9, 12), 120, schedule, patience=7) is None
    assert why_ended(validated(3, 6, 9, 12), 1000, schedule, patience=7) == ALL_EPOCHS
    assert why_ended(validated(3, 6, 6.5, 9), 90, schedule, patience=6) is None, "stopped and resumed in between"


def test_both_classes_weigh_the_same_in_all() -> None:
    labels = np.array([0] * 90 + [1] * 10)
    none, works = class_weights(labels, balanced=True)
    assert 90 * none == pytest.approx(10 * works) == pytest.approx(50)
    assert class_weights(labels, balanced=False) == (1, 1)


@pytest.mark.parametrize(
    ("scores", "count"),
    [
        ([], 0),
        ([(0.5, -1.0)], 0),
        ([(0.5, -1.0), (0.6, -2.0)], 0),
        ([(0.6, -1.0), (0.5, -0.1), (0.5, -0.1)], 2),
        ([(0.6, -1.0), (0.6, -0.9)], 0),  # as much reward, and surer
        ([(0.6, -1.0), (0.6, -1.0)], 1),  # no better: the first stays
    ],
)
def test_the_epochs_since_the_best_are_counted(scores: list[tuple[float, float]], count: int) -> None:
    assert since_best(scores) == count


@pytest.mark.parametrize(
    ("steps", "gone"),
    [
        ([], []),
        ([10], []),
        ([10, 20], [10]),
        ([10, 13], [10]),  # within an epoch
        ([20, 40, 50], []),  # every second epoch, and the latest
        ([20, 40, 60, 70], [20]),
        ([30, 35, 40], [30, 35]),
    ],
)
def test_checkpoints_that_may_go(steps: list[int], gone: list[int]) -> None:
    assert superfluous(steps, epoch=10, every=2, limit=2) == gone
