"""The stages of a cascade in sight: the metrics of which one answered, and what that is expected to earn."""

from collections.abc import Iterator, Mapping, Sequence
from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from detectors.base import Detector
from detectors.ensemble import Ensemble
from miner.metrics import PREFIX, REMAINING_BUCKETS, STAGE_BUCKETS
from miner.recorder.records import RequestRecord
from miner.settings.validators import StageMode

STOP_WORDS: Mapping[str, str] = {  # why a cascade asked no further stage
    "sure": "sure",
    "last": "by the last stage",
    "budget": "cut short",
    "fault": "as the next stage failed",
}
CUT_SHORT = ("budget", "fault")  # of these, what had it stop before it was sure
SERVED = "served"  # in place of a stage's number: as it was
LABELS = ("stage", "branches")


def stage_rewards(detector: Detector) -> list[float | None]:
    """Return what each stage was measured to earn with a round answered in time; empty: it is no cascade."""
    if not isinstance(detector, Ensemble) or not detector.cheaper:
        return []
    measured = [stage.measured for stage in (*detector.cheaper, detector.fusion)]
    return [one.reward if one is not None else None for one in measured]


def served_reward(rewards: Sequence[float | None], answers: Sequence[Mapping[str, int]]) -> float | None:
    """Return what a round earned that was answered in time, each with the stages that there was time for.

    A sure answer would have been no other with more time, so it says nothing of how far its picture might have got.
    Those that a stage was unsure of do: where time ran short that stage's reward counts, and else the last one's, as
    the bands are fitted not to lose any of it.

    Args:
        rewards: of each stage.
        answers: of each stage, by why no further one was asked.

    Returns:
        None: nothing was answered, or a reward that counts was not measured.
    """
    if not any(sum(counts.values()) for counts in answers):
        return None
    total, remaining = 0.0, 1.0
    for number, reward in enumerate(rewards):
        cut = sum(answers[number].get(reason, 0) for reason in CUT_SHORT)
        further = sum(sum(counts.values()) for counts in answers[number + 1 :])
        is_last = number == len(rewards) - 1
        share = remaining if is_last else remaining * cut / max(1, cut + further)
        if share and reward is None:
            return None
        total += share * (reward or 0.0)
        remaining -= share
    return total


class CascadeMetrics(Collector):
    """What becomes of pictures in a cascade; nothing at all while the detector that serves is none."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._names: tuple[str, ...] = ()
        self._mode: StageMode = "adaptive"
        self._rewards: Mapping[tuple[str, str], float] = {}
        self._day: Mapping[tuple[str, str], float] = {}
        prefix = PREFIX + "cascade_"
        self._answers = Counter(
            f"{prefix}answers", "Answers in time, by the stage that gave them and why no further one was asked.",
            (*LABELS, "reason"), registry=None,
        )  # fmt: skip
        self._spent = Histogram(
            f"{prefix}duration_seconds", "Time of a stage that ran; the decoding is in the first.", LABELS,
            buckets=STAGE_BUCKETS, registry=None,
        )  # fmt: skip
        self._left = Histogram(
            f"{prefix}remaining_seconds",
            "Time left before the caller's deadline when a stage's answer was there; 0: too late.",
            LABELS, buckets=REMAINING_BUCKETS, registry=None,
        )  # fmt: skip
        registry.register(self)

    def see(self, names: Sequence[str], rewards: Sequence[float | None], mode: StageMode) -> None:
        """Show these stages from now on, cheap to dear, and whether further ones are begun; none: no cascade serves."""
        self._mode = mode
        known, self._names = self._names, tuple(names) if rewards else ()
        self._rewards = self._by_stage(rewards)
        if self._names == known:
            return
        self._day = {}
        for metric in (self._answers, self._spent, self._left):
            metric.clear()
        for number, name in enumerate(self._names, 1):
            self._spent.labels(str(number), name)
            self._left.labels(str(number), name)
            for reason in STOP_WORDS:
                self._answers.labels(str(number), name, reason)

    def earned(self, each: Sequence[float | None], served: float | None) -> None:
        """Show what the last day would have earned with each stage alone, and as it was."""
        self._day = self._by_stage(each) | ({} if served is None else {(SERVED, ""): served})

    def request_ended(self, record: RequestRecord, photo: bytes | None = None) -> None:
        """Count an answer; one of a model that serves no longer is not."""
        if record.stage is None or record.branches not in self._names:
            return
        labels = str(self._names.index(record.branches) + 1), record.branches
        for number, (branches, seconds) in enumerate(record.spent.items(), 1):
            if branches in self._names:
                self._spent.labels(str(number), branches).observe(seconds)
        self._left.labels(*labels).observe(max(0.0, record.left or 0.0))
        if record.outcome == "ok":
            self._answers.labels(*labels, record.stop).inc()

    def _by_stage(self, values: Sequence[float | None]) -> dict[tuple[str, str], float]:
        each = enumerate(zip(self._names, values, strict=True), 1)
        return {(str(number), name): value for number, (name, value) in each if value is not None}

    def collect(self) -> Iterator[Metric]:
        """Yield them, if there are stages; on a thread, while the event loop may show another model's."""
        if not self._names:
            return
        for metric in (self._answers, self._spent, self._left):
            yield from metric.collect()
        mode = GaugeMetricFamily(
            f"{PREFIX}cascade_mode", "INFERENCE_STAGES: 1 for the one that is set.", labels=("mode",)
        )
        for one in get_args(StageMode):
            mode.add_metric((one,), float(one == self._mode))
        yield mode
        for name, told, values in (
            ("reward", "Reward of a round that a stage answers in time, as it was measured.", self._rewards),
            (
                "day_reward",
                "Reward expected of the last day's rounds, had a stage alone answered those; served: as it was.",
                self._day,
            ),
        ):
            gauge = GaugeMetricFamily(f"{PREFIX}cascade_{name}", told, labels=LABELS)
            for labels, value in values.items():
                gauge.add_metric(labels, value)
            yield gauge
