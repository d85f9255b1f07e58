"""Overviews made by hand, for what shows them."""

from typing import Any

from miner import __version__
from miner.recorder.records import RequestRecord
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
        hour=Hour.of(history),
        day=LongSpan.of(history, "day"),
        week=LongSpan.of(history, "week"),
        recent=[RequestView.of(one) for one in history.recent()],
    )  # fmt: skip
    return whole.model_copy(update=changes)
