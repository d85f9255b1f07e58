"""`python -m tests.screenshot [PNG]`: the page of a week made by hand, as the README shows it.

The browser is the tests', the page is the miner's; only the week is drawn by lot, always the same one.
"""

import random
import sys
import tempfile
from pathlib import Path

from PIL import Image

from miner.chain.base import Neuron
from miner.natix.registration import Registration, in_words
from miner.recorder.records import RequestRecord
from miner.status.archive import CheckupView, FindingView
from miner.status.history import History
from miner.status.overview import NatixView, Overview, RequestView
from miner.status.page import render
from miner.status.spans import Hour, LongSpan
from tests.overviews import CALLER, HOTKEY, MIB, NOW, overview
from tests.process.browser import Browser

PICTURE = Path(__file__).parents[1] / "deploy" / "images" / "page.png"
SCREEN = (1040, 900)  # GitHub shows it 830 pixels wide
TALLEST = 1350  # pixels
# The picture ends within the first row of cards, below what is earned: where the second card does.
END = "return Math.ceil(document.querySelector('.cards > :nth-child(2)').getBoundingClientRect().bottom) + 14"
LARGEST = 300_000  # bytes
# Stakes by uid; the last one doesn't ask.
VALIDATORS = {17: 412_800.0, 34: 96_410.0, 71: 1_204_311.0, 118: 58_020.0, 202: 240_115.0, 5: 81_300.0}
ASKING = tuple(VALIDATORS)[:5]
MINUTES = 7 * 24 * 60
WELL = (
    "settings",
    "hotkey",
    "coldkey",
    "cpu",
    "memory",
    "disk",
    "model",
    "inference",
    "miner",
    "port",
    "asked",
    "chain",
    "clock",
    "registration",
    "standing",
    "address",
    "validators",
    "rules",
    "pay",
    "subnet",
    "cost",
    "natix",
    "published",
)
KNOWN = Registration(progress="succeeded", netuid=72, uid=143, sent=NOW - 12 * 86400, since=NOW - 12 * 86400, at=NOW)
NATIX = NatixView(
    standing="yes", words=in_words("yes", KNOWN, KNOWN.uid, NOW), command="", since=KNOWN.since, asked=KNOWN.at
)
INFERENCE = 0.062  # seconds


def busy_hour() -> Overview:
    """Return a miner that five validators have asked for a week, sometimes all at once."""
    draw = random.Random(14)
    at = NOW
    history = History(clock=lambda: at)
    for minute in range(MINUTES - 1, -1, -1):
        for second in sorted(draw.sample(range(1, 60), draw.randint(3, 8)), reverse=True):
            at = NOW - 60 * minute - second
            history.request_ended(request(draw, at))
    at = NOW
    whole = overview()
    assert whole.model is not None
    assert whole.queue is not None
    assert whole.chain is not None
    neurons = [Neuron(uid, f"validator {uid}", stake, True) for uid, stake in VALIDATORS.items()]
    return whole.model_copy(
        update={
            "model": whole.model.model_copy(
                update={"name": "vit-base", "threads": 2, "reward": 0.82, "reward_photos": 470}
            ),
            "queue": whole.queue.model_copy(
                update={"pace_seconds": INFERENCE, "estimate_seconds": INFERENCE * 4, "running": 1, "waiting": 3}
            ),
            "memory": whole.memory.model_copy(
                update={"resident": 514 * MIB, "proportional": 487 * MIB, "peak": 541 * MIB, "cgroup_usage": 605 * MIB,
                        "cgroup_limit": 1024 * MIB}
            ),
            "chain": whole.chain.model_copy(update={"incentive": 0.00391, "natix": NATIX}),
            "hour": Hour.of(history, neurons),
            "day": LongSpan.of(history, "day", neurons),
            "week": LongSpan.of(history, "week", neurons),
            "checkup": CheckupView(
                at=NOW - 3 * 3600, key="default", verdict="ready to earn", findings=[
                    *(FindingView(name=name, level="ok", words="") for name in WELL),
                    FindingView(
                        name="reachable", level="warning", words="not tried from outside",
                        todo="from another machine: roadwork-miner query photo.jpg --host 203.0.113.7 --port 8091",
                    ),
                ],
            ),
            "recent": [RequestView.of(one) for one in history.recent()[:8]],
        }
    )  # fmt: skip


def request(draw: random.Random, at: float) -> RequestRecord:
    """Return a request: most are answered; a few come too late for an answer, or from whom nobody knows."""
    kind = draw.random()
    if kind < 0.015:
        reason = "no answer in time is possible"
        return RequestRecord(
            at,
            draw.choice(ASKING),
            "dendrite",
            "refused",
            reason,
            0.0006,
            caller=CALLER,
            is_permitted=True,
            hotkey=HOTKEY,
        )
    if kind < 0.04:
        reason = "your hotkey is not registered on this subnet"
        return RequestRecord(at, None, "dendrite", "forbidden", reason, 0.0005, caller=CALLER, hotkey=HOTKEY)
    waiting = draw.choice((0, 0, 0, 0, 0, 1, 1, 2, 4))
    seconds = INFERENCE * (1 + waiting) * draw.uniform(1.0, 1.25)
    probability = draw.betavariate(8, 1) if draw.random() < 0.5 else draw.betavariate(1, 8)
    return RequestRecord(
        at,
        draw.choice(ASKING),
        "dendrite",
        "ok",
        "",
        seconds,
        prediction=probability,
        caller=CALLER,
        is_permitted=True,
        hotkey=HOTKEY,
    )


def photograph(picture: Path) -> None:
    """Write the page as a PNG of few bytes."""
    with tempfile.TemporaryDirectory() as folder, Browser(Path(folder)) as browser:
        page = Path(folder) / "page.html"
        page.write_text(render(busy_hour()), encoding="utf-8")
        browser.look(*SCREEN)
        browser.open(page.as_uri())
        browser.photograph(picture, height=browser.run(END))
    with Image.open(picture) as whole:  # 256 colours are enough for it, and a third of the bytes
        few = whole.convert("RGB").quantize(256, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
        few.save(picture, optimize=True)


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else PICTURE
    photograph(target)
    assert target.stat().st_size < LARGEST, f"{target.stat().st_size} bytes: too large for the README"
    print(target)
