"""Overviews made by hand, for what shows them."""

from typing import Any

from miner import __version__
from miner.feedback.standing import ImprovementView, IntervalView, ModelStanding, PhotoCounts, StandingView
from miner.recorder.records import RequestRecord
from miner.status.earnings import EarningsView, KeyEarnings
from miner.status.history import History
from miner.status.overview import (
    ChainView,
    IdentityView,
    MemoryUse,
    Model,
    Overview,
    QueueView,
    ReloadView,
    RequestView,
)
from miner.status.spans import Hour, LongSpan

NOW = 1_700_000_000.0
MIB = 2**20
CALLER = "5C4hrfjw9DjXZTzV3MwzrrAr9P1MJhSrvWGWqi1eSuyUpnhM"
HOTKEY = "5GQUUNo4EWYX3s8xzVH2W7gWfhge7UGnQHCrHLoCvJtzYErW"

EARNINGS = EarningsView(
    age_seconds=42.0, fault=None, name="StreetVision", owner=HOTKEY, registered_at=4_218_765, pay="paid", burned=0.12,
    weights_age_seconds=1260.0, earners=163, miners=231, registration_cost_tao=0.2813, registration_cost_rise=1.3,
    registration_locked=0.0, alpha_price_tao=0.01274, machine_cost_tao_per_month=0.09,
    keys=[
        KeyEarnings(
            name="default", hotkey=HOTKEY, standing="rank 41 of 163 who earn", rank=41, shared=0, alpha_per_day=11.52,
            tao_per_day=0.14676, immunity_seconds=0.0, registrations_to_replacement=118,
            replacement="number 118 of 198 to be replaced", collateral_alpha=0.0,
        )
    ],
)  # fmt: skip


TRAFFIC = StandingView(
    at=NOW - 3600,
    photos=PhotoCounts(
        labelled={"roadwork": 74, "no_roadwork": 66}, skipped=3, surprises=31, surprises_outside=25, sampled=88,
        waiting=1234, waiting_sampled=120,
    ),
    model=ModelStanding(
        name="vit-base", fingerprint="1c1339ccaf4d", precision="fp32", photos=84, right=78,
        accuracy=IntervalView(value=0.929, low=0.853, high=0.967), mcc=0.86,
        reward=IntervalView(value=0.71, low=0.55, high=0.83), promised=0.952, promised_photos=78,
    ),
    improvement=ImprovementView(at=NOW - 3.2 * 86400, gain=0.031, promoted=True),
)  # fmt: skip


def entry(outcome: str = "ok", *, seconds: float = 1.2, reason: str = "", uid: int | None = 17) -> RequestRecord:
    prediction = 0.8454 if outcome in ("ok", "expired") else None
    return RequestRecord(
        NOW - 5, uid, "dendrite", outcome, reason, seconds, prediction=prediction, caller=CALLER, hotkey=HOTKEY,
        is_permitted=uid is not None,
    )  # fmt: skip


def overview(*entries: RequestRecord, **changes: Any) -> Overview:
    """Return a miner on mainnet that is well; changes replace parts of it."""
    history = History(clock=lambda: NOW)
    for one in entries:
        history.request_ended(one)
    whole = Overview(
        now=NOW,
        started=NOW - 86400 * 3,
        ready=True,
        obstacle=None,
        identity=IdentityView(version=__version__, hotkey=HOTKEY, network="finney", netuid=72, port=8091, pid=4711),
        model=Model(
            detector="ViT", name="vit-base", revision="8a1f9c20be77d0411c", backend="onnx", precision="fp32",
            threads=4, hash="1c1339ccaf4d", roadwork="class 1 'Roadwork' of 'None', 'Roadwork'",
        ),
        reload=ReloadView(asked=0, done=0, ok=None, text="", at=None),
        queue=QueueView(waiting=3, limit=32, running=1, slots=1, pace_seconds=1.13, estimate_seconds=4.52),
        memory=MemoryUse(
            resident=812 * MIB, proportional=790 * MIB, peak=1010 * MIB, cgroup_usage=1126 * MIB,
            cgroup_limit=2048 * MIB, machine_available=3300 * MIB, throttled_seconds=0,
        ),
        chain=ChainView(
            block=6123456, age_seconds=37, fault=None, uid=143, neurons=256, validators=12, stake=12.5, incentive=None,
            trust=0.93, publication="published 203.0.113.7:8091",
        ),
        earnings=EARNINGS,
        hour=Hour.of(history),
        day=LongSpan.of(history, "day"),
        week=LongSpan.of(history, "week"),
        recent=[RequestView.of(one) for one in history.recent()],
    )  # fmt: skip
    return whole.model_copy(update=changes)
