"""The stages of a cascade in sight: in a record, the metrics, the last day's figures, and where these are shown."""

import asyncio
import json
import re
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from rich.console import Console

from detectors.base import Detector, Prediction, RunOptions, StageEnd, StopReason
from detectors.ensemble import Ensemble
from detectors.models.calibration import Fusion, Stage
from miner.axon.clock import ClockWatch
from miner.cascade import STOP_WORDS, CascadeMetrics, served_reward, stage_rewards
from miner.inference.queue import Queue
from miner.inference.scheduler import Scheduler
from miner.inference.service import Answer, Service
from miner.metrics import Metrics
from miner.recorder.records import OF_CASCADES, RequestRecord
from miner.settings.settings import Settings
from miner.settings.validators import StageMode
from miner.status.archive import Archive
from miner.status.cards import cascade_note, headline, request_note
from miner.status.history import MOST_STAGES, History
from miner.status.overview import CascadeView, RequestView, StageView, cascade_view
from miner.status.page import render
from miner.status.request_log import tell_of
from miner.status.terminal import screen
from miner.status.watch import Watch
from tests.overviews import NOW, entry, overview
from tests.unit.detectors.test_ensemble import MANIFEST, MEASURED, PICTURE, Branch
from tests.unit.miner.axon.test_request import FileChain, exchange

NAMES = ("small", "small + large")
PREFIX = "roadwork_miner_cascade_"


def record(stage: int = 1, stop: str = "sure", outcome: str = "ok", left: float = 8.5) -> RequestRecord:
    spent = dict(zip(NAMES[:stage], (0.01, 0.04), strict=False))
    return replace(entry(outcome), stage=stage, branches=NAMES[stage - 1], stop=stop, spent=spent, left=left)


def cascade(reward: float | None = 0.8, names: tuple[str, str] = ("small", "large")) -> Ensemble:
    first = Stage(branches=[names[0]], band=(0.1, 0.9), measured=MEASURED.model_copy(update={"reward": 0.6}))
    measured = None if reward is None else MEASURED.model_copy(update={"reward": reward})
    branches, fusion = {name: Branch(0.9) for name in names}, Fusion(branches=list(names), measured=measured)
    return Ensemble(MANIFEST, branches, fusion, (), RunOptions(), None, (first,))


def served(detector: Detector) -> Service:
    return Service(detector, Scheduler(Queue(1, 0.01)))


def view(history: History, detector: Ensemble | Branch) -> CascadeView | None:
    return cascade_view(detector, history)


def history_of(*records: RequestRecord) -> History:
    history = History(lambda: NOW)
    for one in records:
        history.request_ended(one)
    return history


DAY = [*[record()] * 6, *[record(2, "last")] * 3, record(1, "budget", left=0.6), entry("refused")]


# What an answer's record says.


def answer(end: StageEnd | None, stages: tuple[float, ...] = (0.01, 0.04), *, shared: bool = False) -> RequestRecord:
    one = exchange(seconds_ago=1.0)
    prediction = Prediction(0.7, 0.001, 0.002, 0.004, stages, end)
    one.take(Answer(prediction, one.arrived + 0.1, one.arrived + 0.25, shared))
    return one.ended(FileChain(), "ok", prediction=0.7)


def test_a_record_says_which_stage_answered_what_each_took_and_what_was_left() -> None:
    told = answer(StageEnd(2, NAMES, "last"))
    assert (told.stage, told.branches, told.stop) == (2, "small + large", "last")
    assert told.spent == {"small": 0.01, "small + large": 0.04}
    assert told.left == pytest.approx(9 - 0.25)
    twin = answer(StageEnd(2, NAMES, "last"), shared=True)
    assert (twin.stage, twin.spent) == (2, {})  # what was done once is told once
    instead = answer(StageEnd(2, NAMES, "fault"), (0.05,))  # the first one failed, and the second stood in
    assert (instead.stage, instead.spent) == (2, {})


def test_the_record_of_another_detector_and_its_line_are_as_they_were() -> None:
    plain = answer(None, (0.05,))
    assert (plain.stage, plain.branches, plain.stop, plain.spent, plain.left) == (None, "", "", {}, None)
    assert not set(OF_CASCADES) & json.loads(plain.line()).keys()


def test_a_line_keeps_the_stages_and_an_old_one_is_read() -> None:
    told = record(2, "last")
    kept = RequestRecord.read(told.line())
    assert kept is not None
    assert {name: getattr(kept, name) for name in OF_CASCADES} == {name: getattr(told, name) for name in OF_CASCADES}
    old = {name: value for name, value in json.loads(told.line()).items() if name not in OF_CASCADES}
    read = RequestRecord.read(json.dumps(old).encode())
    assert read is not None
    assert read.stage is None


def test_the_log_says_it_too(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("DEBUG", "miner"):
        tell_of(record())
        tell_of(entry())
    with_stage, without = (vars(one)["fields"] for one in caplog.records)
    assert {name: with_stage[name] for name in ("stage", "branches", "stop", "left_seconds")} == {
        "stage": 1, "branches": "small", "stop": "sure", "left_seconds": 8.5,
    }  # fmt: skip
    assert not with_stage.keys() - {"stage", "branches", "stop", "left_seconds"} - without.keys()


# What the last day is worth.


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([{"sure": 10}, {"last": 5}], 0.8),  # as good as the last stage alone, which was asked wherever it was needed
        ([{"sure": 10}, {}], 0.8),
        ([{"sure": 10, "budget": 5}, {}], 0.6),
        ([{"budget": 5}, {"last": 5}], 0.7),
        ([{"sure": 90, "budget": 2, "fault": 3}, {"last": 5}], 0.7),
        ([{}, {}], None),
    ],
)
def test_where_time_ran_short_the_stages_own_reward_counts(
    answers: list[dict[str, int]], expected: float | None
) -> None:
    assert served_reward((0.6, 0.8), answers) == pytest.approx(expected)


def test_of_three_stages_each_takes_its_share_of_what_got_so_far() -> None:
    answers = [{"sure": 50, "budget": 10}, {"sure": 7, "budget": 2}, {"last": 1}]
    # Of 20 that the first was unsure of, half went on; of 3 that the second was unsure of, a third.
    assert served_reward((0.2, 0.5, 0.8), answers) == pytest.approx(0.5 * 0.2 + 0.5 * (2 / 3 * 0.5 + 1 / 3 * 0.8))


def test_what_was_not_measured_is_not_claimed() -> None:
    assert served_reward((0.6, None), [{"budget": 1}, {"last": 1}]) is None
    assert served_reward((0.6, None), [{"budget": 1}, {}]) == pytest.approx(0.6)


counts = st.dictionaries(st.sampled_from([*STOP_WORDS]), st.integers(0, 50))


@given(st.lists(st.tuples(st.floats(0, 1), counts), min_size=1, max_size=5))
def test_it_lies_between_the_least_and_the_most(stages: list[tuple[float, dict[str, int]]]) -> None:
    rewards, answers = zip(*stages, strict=True)
    found = served_reward(rewards, answers)
    assert (found is None) == (not any(sum(one.values()) for one in answers))
    if found is not None:
        assert min(rewards) - 1e-9 <= found <= max(rewards) + 1e-9


def test_the_day_of_a_cascade_in_figures() -> None:
    shown = view(history_of(*DAY), cascade())
    assert shown is not None
    first, second = shown.stages
    assert [(one.branches, one.answers, one.share) for one in (first, second)] == [
        ("small", 7, pytest.approx(0.7)), ("small + large", 3, pytest.approx(0.3)),
    ]  # fmt: skip
    assert first.reasons == {"sure": 6, "budget": 1}
    assert first.p50 == pytest.approx(0.01, rel=0.1)
    assert second.p95 == pytest.approx(0.04, rel=0.1)
    assert first.left == pytest.approx(8.5, rel=0.02)
    assert (first.earned, second.earned) == (pytest.approx(0.6 * 10 / 11), pytest.approx(0.8 * 10 / 11))
    assert shown.reward == pytest.approx(0.25 * 0.6 + 0.75 * 0.8)
    assert shown.earned == pytest.approx((0.25 * 0.6 + 0.75 * 0.8) * 10 / 11)


def test_before_anybody_asks_and_without_stages() -> None:
    empty = view(history_of(), cascade(None))
    assert empty is not None
    assert [one.share for one in empty.stages] == [None, None]
    assert (empty.reward, empty.earned, empty.stages[1].reward) == (None, None, None)
    assert view(history_of(*DAY), Branch(0.9)) is None
    assert stage_rewards(Branch(0.9)) == []


def test_a_late_answer_took_its_time_and_earned_nothing() -> None:
    shown = view(history_of(record(2, "last", "expired", left=-0.2)), cascade())
    assert shown is not None
    assert [one.answers for one in shown.stages] == [0, 0]
    assert shown.stages[1].p50 == pytest.approx(0.04, rel=0.1)


def test_the_counts_survive_a_restart(tmp_path: Path) -> None:
    path, whole = tmp_path / "history.jsonl", history_of(*DAY)
    asyncio.run(Archive(whole, path, lambda: NOW).save())
    kept = history_of()
    Archive(kept, path, lambda: NOW).load()
    assert view(kept, cascade()) == view(whole, cascade())


def test_a_reason_that_there_is_not_makes_the_file_a_damaged_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "history.jsonl"
    asyncio.run(Archive(history_of(record()), path, lambda: NOW).save())
    path.write_text(path.read_text().replace('"sure"', '"<b>"'))
    kept = history_of()
    Archive(kept, path, lambda: NOW).load()
    assert [one.levelname for one in caplog.records] == ["WARNING"]
    assert kept.total("day").stages == {}


def test_a_history_without_stages_is_written_as_before(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    asyncio.run(Archive(history_of(entry()), path, lambda: NOW).save())
    assert '"stages"' not in path.read_text()


def test_however_many_cascades_a_period_sees_it_keeps_few() -> None:
    names = [f"branch {number}" for number in range(3 * MOST_STAGES)]
    history = history_of(*(replace(record(), branches=name, spent={name: 0.1}) for name in names))
    assert list(history.total("day").stages) == names[:MOST_STAGES]
    assert history.total("day").outcomes["ok"] == len(names)


# Metrics.


@pytest.fixture
def metrics() -> CascadeMetrics:
    return CascadeMetrics(CollectorRegistry())


def read(metrics: CascadeMetrics, name: str) -> dict[tuple[str, ...], float]:
    return {
        (*(sample.labels[label] for label in ("stage", "branches")), sample.labels.get("reason", "")): sample.value
        for family in metrics.collect()
        for sample in family.samples
        if sample.name == PREFIX + name
    }


def test_a_detector_without_stages_has_none_of_these_metrics() -> None:
    registry = CollectorRegistry()
    metrics = CascadeMetrics(registry)
    metrics.see(Branch(0.9).stages, [], "adaptive")
    metrics.request_ended(entry())
    assert generate_latest(registry) == b""


def test_answers_are_counted_by_stage_and_reason_and_zeros_are_there_before(metrics: CascadeMetrics) -> None:
    metrics.see(NAMES, (0.6, 0.8), "adaptive")
    assert read(metrics, "answers_total") == {
        (str(number), name, reason): 0 for number, name in enumerate(NAMES, 1) for reason in STOP_WORDS
    }
    for one in (record(), record(), record(1, "budget"), record(2, "last"), record(2, "last", "expired", -1.0)):
        metrics.request_ended(one)
    answers = Counter({labels: value for labels, value in read(metrics, "answers_total").items() if value})
    assert answers == {("1", "small", "sure"): 2, ("1", "small", "budget"): 1, ("2", "small + large", "last"): 1}
    assert read(metrics, "duration_seconds_count") == {("1", "small", ""): 5, ("2", "small + large", ""): 2}
    assert read(metrics, "remaining_seconds_count") == {("1", "small", ""): 3, ("2", "small + large", ""): 2}
    assert read(metrics, "remaining_seconds_sum")["2", "small + large", ""] == 8.5  # what is late has 0 left
    assert read(metrics, "reward") == {("1", "small", ""): 0.6, ("2", "small + large", ""): 0.8}


@pytest.mark.parametrize("mode", ["adaptive", "cheapest"])
def test_the_alert_of_stages_cut_short_can_tell_what_was_set(metrics: CascadeMetrics, mode: StageMode) -> None:
    metrics.see(NAMES, (0.6, 0.8), mode)
    (family,) = (one for one in metrics.collect() if one.name == PREFIX + "mode")
    assert [sample.labels["mode"] for sample in family.samples if sample.value] == [mode]
    assert {sample.labels["mode"] for sample in family.samples} == set(get_args(StageMode))


def test_after_a_reload_the_old_stages_are_gone_and_equal_ones_go_on(metrics: CascadeMetrics) -> None:
    metrics.see(NAMES, (0.6, 0.8), "adaptive")
    metrics.request_ended(record())
    metrics.earned((0.5, 0.7), 0.6)
    metrics.see(NAMES, (0.6, None), "adaptive")
    assert read(metrics, "answers_total")["1", "small", "sure"] == 1
    assert read(metrics, "reward") == {("1", "small", ""): 0.6}
    metrics.see(("tiny", "tiny + large"), (0.5, 0.8), "adaptive")
    metrics.request_ended(record())  # it was worked on meanwhile
    assert set(read(metrics, "answers_total")) == {
        (str(number), name, reason) for number, name in ((1, "tiny"), (2, "tiny + large")) for reason in STOP_WORDS
    }
    assert not any(read(metrics, "answers_total").values())
    assert read(metrics, "day_reward") == {}
    metrics.see(("all",), [], "adaptive")
    assert list(metrics.collect()) == []


def test_a_scrape_has_what_the_last_day_would_have_earned() -> None:
    watch = Watch(Settings(), Metrics(), lambda: None, ClockWatch())
    watch.history = history_of(*DAY)
    watch.service = served(cascade())
    watch.see_stages()
    watch.read_day()
    day = read(watch.stages, "day_reward")
    assert day["served", "", ""] == pytest.approx(0.75 * 10 / 11)
    assert day["2", "small + large", ""] == pytest.approx(0.8 * 10 / 11)
    watch.service = served(Branch(0.9))
    watch.see_stages()
    watch.read_day()
    assert read(watch.stages, "day_reward") == {}


# Page and terminal.


def shown_stages() -> CascadeView:
    found = view(history_of(*DAY), cascade())
    assert found is not None
    return found


def frame(width: int, cascade: CascadeView | None) -> str:
    console = Console(width=width, force_terminal=False)
    with console.capture() as capture:
        console.print(screen(overview(record(2, "last"), cascade=cascade)))
    return capture.get()


@pytest.mark.parametrize("width", [80, 152])
def test_page_and_terminal_show_the_stages(width: int) -> None:
    shown = shown_stages()
    page = render(overview(record(2, "last"), cascade=shown))
    text = " ".join(re.sub("<style>.*?</style>|<[^>]+>", " ", page, flags=re.DOTALL).split())
    terminal = frame(width, shown)
    for figure in ("70.0 %", "30.0 %", "8.50 s", ".60", ".80", ".55", ".73", ".75", ".68", "served", "stage 2"):
        assert figure in text
        assert figure in terminal
    assert cascade_note(shown) in text
    assert max(len(line) for line in terminal.splitlines()) <= width
    assert "…" not in terminal


def test_without_stages_nothing_is_shown_of_them() -> None:
    assert "Stages" not in render(overview(entry()))
    assert "Stages" not in frame(80, None)


def test_names_of_branches_are_only_text() -> None:
    stage = shown_stages().stages[0].model_copy(update={"branches": "<script>alert(1)</script>"})
    page = render(overview(cascade=shown_stages().model_copy(update={"stages": [stage]})))
    assert "<script>alert" not in page


def test_the_headline_expects_what_the_stages_had_time_for() -> None:
    model = overview().model
    assert model is not None
    whole = overview(entry(), model=model.model_copy(update={"reward": 0.8, "reward_photos": 321}))
    assert str(headline(whole)).endswith(".80")
    assert str(headline(whole.model_copy(update={"cascade": shown_stages()}))).endswith(".75")


@pytest.mark.parametrize(
    ("stage", "stop", "reason", "words"),
    [(1, "sure", "", "stage 1, sure"), (2, "last", "", "stage 2"), (1, "sure", "late", "late"), (None, "", "", "")],
)
def test_a_request_says_in_a_word_or_two_which_stage_answered(
    stage: int | None, stop: str, reason: str, words: str
) -> None:
    of = RequestView.of(entry()).model_copy(update={"stage": stage, "stop": stop, "reason": reason})
    assert request_note(of) == words


def test_a_stage_that_never_answered_has_no_figures_rather_than_wrong_ones() -> None:
    nothing = StageView(
        number=1, branches="small", answers=0, share=None, reasons={}, p50=None, p95=None, left=None, reward=None,
        earned=None,
    )  # fmt: skip
    assert "–" in render(overview(cascade=CascadeView(stages=[nothing], reasons={}, reward=None, earned=None)))


# From a real cascade.


@pytest.mark.parametrize(
    ("said", "budget", "reason"), [(0.95, True, "sure"), (0.5, True, "last"), (0.5, False, "budget")]
)
def test_the_end_of_a_real_cascade_is_in_its_prediction(said: float, budget: bool, reason: StopReason) -> None:
    both = cascade()
    small = both.branches["small"]
    assert isinstance(small, Branch)
    small.said = said
    judged = both.judge(PICTURE, time.monotonic() + 9, lambda _: budget)
    assert judged.end == StageEnd(len(judged.stages), both.stages, reason)
