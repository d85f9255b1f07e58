"""The probe of a machine: what is compared, in which order, and which of it is taken."""

import io
from collections.abc import Callable
from dataclasses import replace

import pytest
from rich.console import Console

from detectors.console import Screen
from detectors.training.budget import GB
from detectors.training.config import TrainConfig
from detectors.training.probe import (
    PROBE_SECONDS,
    ProbeRow,
    ProbeSetting,
    advice_on,
    best,
    flags,
    search,
    splits,
    table,
    taken,
)

CONFIG = TrainConfig(data="photos", method="full")
START = ProbeSetting(2, 0, 8, "fp32")
Rate = Callable[[ProbeSetting], float]


def searched(
    rate: Rate, config: TrainConfig = CONFIG, most: int = 32, takes: float = 1.0
) -> tuple[list[ProbeRow], list[float], str]:
    """Search a machine with such rates; return the rows, the seconds each was given, and what is said."""
    given: list[float] = []
    now, said = [0.0], io.StringIO()

    def measure(setting: ProbeSetting, seconds: float) -> ProbeRow:
        given.append(seconds)
        now[0] += seconds * takes
        return ProbeRow(setting, rate(setting))

    screen = Screen(Console(file=said))
    rows = search(measure, config, START, most, ["fp32", "bf16"], screen, clock=lambda: now[0])
    return rows, given, said.getvalue()


def test_two_cores_are_shared_in_every_way_that_makes_sense() -> None:
    assert splits(2) == [(2, 0), (2, 1), (1, 0), (1, 1), (1, 2)]
    assert splits(1) == [(1, 0), (1, 1)]
    assert splits(2, threads=1) == [(1, 0), (1, 1), (1, 2)]
    assert splits(2, workers=2) == [(1, 2)]
    assert splits(2, threads=2, workers=4) == [(2, 4)], "what both are given is not judged"
    assert splits(2, workers=8) == [(1, 8)]
    assert splits(2, threads=4) == [(4, 0)]
    assert all(threads + workers <= 17 for threads, workers in splits(16))


def test_each_question_is_asked_of_the_best_so_far_and_all_within_a_minute() -> None:
    def rate(setting: ProbeSetting) -> float:
        return (
            20 + 10.0 * setting.workers - 4 * setting.threads + setting.micro_batch + 5 * (setting.precision == "bf16")
        )

    rows, given, _ = searched(rate)
    settings = [row.setting for row in rows]
    assert settings[5:] == [
        ProbeSetting(1, 2, 8, "bf16"), ProbeSetting(1, 2, 4, "bf16"), ProbeSetting(1, 2, 16, "bf16"),
    ]  # fmt: skip
    assert best(rows).setting == settings[-1]
    assert sum(given) == pytest.approx(PROBE_SECONDS)


def test_what_is_set_is_not_compared_and_stays() -> None:
    config = CONFIG.model_copy(update={"threads": 2, "micro_batch": 8})
    rows, _, _ = searched(lambda setting: 1.0 + setting.workers, config)
    assert {(row.setting.threads, row.setting.micro_batch) for row in rows} == {(2, 8)}
    compared = [ProbeRow(START, 1.0), ProbeRow(ProbeSetting(1, 1, 16, "bf16"), 2.0)]
    chosen = taken(config, compared)
    assert (chosen.threads, chosen.workers, chosen.micro_batch, chosen.precision) == (2, 1, 8, "bf16")
    assert flags(config, compared) == "--set workers=1 --set precision=bf16"
    assert taken(CONFIG, compared[:1]).precision == "auto", "which nothing was compared with"


def test_threads_that_are_far_too_slow_get_no_loader_processes() -> None:
    rows, _, _ = searched(lambda setting: 10.0 if setting.threads == 1 else 2.0)
    asked = [(row.setting.threads, row.setting.workers) for row in rows if row.setting.precision == "fp32"]
    assert asked[:4] == [(2, 0), (1, 0), (1, 1), (1, 2)]


def test_a_batch_is_not_exceeded_and_a_slow_machine_not_compared_for_ever() -> None:
    rows, _, said = searched(lambda setting: 1.0, most=8, takes=4.0)
    assert {row.setting.micro_batch for row in rows} <= {4, 8}
    assert 0 < len(rows) < 7
    assert "not compared" in said


def test_of_equals_the_simplest_is_taken_and_what_does_not_fit_is_none() -> None:
    rows = [
        ProbeRow(replace(START, threads=2, workers=1), 10.0), ProbeRow(replace(START, threads=1), 9.7),
        ProbeRow(replace(START, threads=1, micro_batch=16), 9.9), ProbeRow(replace(START, micro_batch=32), 0.0),
    ]  # fmt: skip
    assert best(rows) is rows[1]
    lines = table(rows, 2)
    assert len(lines) == 5
    assert max(map(len, lines)) <= 80
    assert [line.endswith("best") for line in lines] == [False, False, True, False, False]


@pytest.mark.parametrize(
    ("cores", "idle", "is_free"), [(1.9, 0.1, False), (0.5, 0.0, False), (1.9, 6.0, False), (1.0, 1.0, True)]
)
def test_no_advice_asks_for_cores_that_are_gone(cores: float, idle: float, is_free: bool) -> None:
    row = ProbeRow(START, 10.0, 2 * GB, cores, idle)
    words = " ".join(advice_on([row], 2, CONFIG))
    assert ("are idle" in words) == is_free
    assert "workers" not in words
    assert "80%" in " ".join(advice_on([replace(row, others=0.8)], 2, CONFIG))
    assert "--method head" not in " ".join(advice_on([row], 2, TrainConfig(data="photos")))
