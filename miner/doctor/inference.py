"""Load the configured model as the daemon does, time some pictures, ask it what it takes for roadwork, print JSON.

`doctor`'s child process.
"""

import asyncio
import json
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from detectors.errors import ImageError
from detectors.labelled import CLASSES, SUFFIXES
from detectors.pictures import known_picture
from detectors.reversal import ask_drawn
from miner.errors import StartError
from miner.metrics import Metrics
from miner.model import ModelLoader
from miner.settings import Settings


def measure(settings: Settings, count: int, budget: float, folder: str) -> dict[str, Any]:
    """Ask the model about pictures; once `budget` seconds have gone, no further one is begun.

    Args:
        settings: of the miner.
        count: how many pictures are timed.
        budget: seconds.
        folder: of labelled photos; empty: drawings are asked about.

    Returns:
        `seconds` of each picture, and `photos` as pairs of label and answer, or `drawn` as pairs of answers.

    Raises:
        StartError: the model can't be loaded, fails its checks, or is too slow.
    """
    loader = ModelLoader(settings)
    loader.show_in(Metrics())
    detector = asyncio.run(loader.load()).detector
    picture, began, seconds = known_picture(), time.monotonic(), list[float]()
    while len(seconds) < count and (not seconds or time.monotonic() - began < budget):
        started = time.perf_counter()
        detector.predict(picture)
        seconds.append(time.perf_counter() - started)
    photos, drawn = list[tuple[bool, float]](), list[tuple[float, float]]()
    labelled = _in_turn(Path(folder)) if folder else []
    for path, label in labelled:
        if time.monotonic() - began > budget:
            break
        with suppress(ImageError, OSError):
            photos.append((label, detector.predict(path.read_bytes()).probability))
    if not folder and time.monotonic() - began < budget:
        drawn += ask_drawn(lambda drawing: detector.judge(drawing).probability).pairs
    detector.close()
    return {"seconds": seconds, "photos": photos, "drawn": drawn, "fault": ""}


def _in_turn(folder: Path) -> list[tuple[Path, bool]]:
    """Return labelled photos, the classes in turn, so that the time is enough for some of both."""
    clear, works = (
        sorted(path for path in (folder / kind).rglob("*") if path.suffix.lower() in SUFFIXES) for kind in CLASSES
    )
    return [one for pair in zip(works, clear, strict=False) for one in zip(pair, (True, False), strict=True)]


def main() -> None:
    """Print what was measured, or the fault."""
    count, budget, folder = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3]
    try:
        answer = measure(Settings.load(), count, budget, folder)
    except StartError as error:
        answer = {"seconds": [], "photos": [], "drawn": [], "fault": str(error)}
    sys.stdout.write(json.dumps(answer))


if __name__ == "__main__":
    main()
