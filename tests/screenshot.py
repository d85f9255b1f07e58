"""`python -m tests.screenshot [PNG]`: the page of an hour made by hand, as the README shows it.

The browser is the tests', the page is the miner's; only the hour is drawn by lot, always the same one, as a real one
takes an hour.
"""

import random
import sys
import tempfile
from pathlib import Path

from miner.recorder.records import RequestRecord
from miner.status.history import History
from miner.status.overview import Hour, Overview, RequestView
from miner.status.page import render
from tests.overviews import HOTKEY, MIB, NOW, overview
from tests.process.browser import Browser

PICTURE = Path(__file__).parents[1] / "deploy" / "images" / "page.png"
SCREEN = (1280, 900)
LARGEST = 300_000  # bytes
VALIDATORS = (17, 34, 71, 118, 202)
INFERENCE = 0.062  # seconds


def busy_hour() -> Overview:
    """Return a miner that five validators ask for an hour, sometimes all at once."""
    draw = random.Random(14)
    at = NOW
    history = History(clock=lambda: at)
    for minute in range(59, -1, -1):
        for second in sorted(draw.sample(range(1, 60), draw.randint(9, 16)), reverse=True):
            at = NOW - 60 * minute - second
            history.request_ended(request(draw, at))
    at = NOW
    whole = overview()
    assert whole.model is not None
    assert whole.queue is not None
    assert whole.chain is not None
    return whole.model_copy(
        update={
            "model": whole.model.model_copy(update={"name": "starter", "threads": 2}),
            "queue": whole.queue.model_copy(
                update={"pace_seconds": INFERENCE, "estimate_seconds": INFERENCE * 4, "running": 1, "waiting": 3}
            ),
            "memory": whole.memory.model_copy(
                update={"resident": 214 * MIB, "proportional": 187 * MIB, "peak": 221 * MIB, "cgroup_usage": 305 * MIB,
                        "cgroup_limit": 1024 * MIB}
            ),
            "chain": whole.chain.model_copy(update={"incentive": 0.00391}),
            "hour": Hour.of(history),
            "recent": [RequestView.of(one) for one in history.recent()[:12]],
        }
    )  # fmt: skip


def request(draw: random.Random, at: float) -> RequestRecord:
    """Return a request: most are answered; a few come too late for an answer, or from whom nobody knows."""
    kind = draw.random()
    if kind < 0.015:
        reason = "no answer in time is possible"
        return RequestRecord(at, draw.choice(VALIDATORS), "dendrite", "refused", reason, 0.0006, caller=HOTKEY)
    if kind < 0.04:
        reason = "your hotkey is not registered on this subnet"
        return RequestRecord(at, None, "dendrite", "forbidden", reason, 0.0005, caller=HOTKEY)
    waiting = draw.choice((0, 0, 0, 0, 0, 1, 1, 2, 4))
    seconds = INFERENCE * (1 + waiting) * draw.uniform(1.0, 1.25)
    probability = draw.betavariate(8, 1) if draw.random() < 0.5 else draw.betavariate(1, 8)
    return RequestRecord(
        at, draw.choice(VALIDATORS), "dendrite", "ok", "", seconds, prediction=probability, caller=HOTKEY
    )


def photograph(picture: Path) -> None:
    """Write the page as a PNG."""
    with tempfile.TemporaryDirectory() as folder, Browser(Path(folder)) as browser:
        page = Path(folder) / "page.html"
        page.write_text(render(busy_hour()), encoding="utf-8")
        browser.look(*SCREEN)
        browser.open(page.as_uri())
        browser.photograph(picture)


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else PICTURE
    photograph(target)
    assert target.stat().st_size < LARGEST, f"{target.stat().st_size} bytes: too large for the README"
    print(target)
