"""Load the configured model as the daemon does, time some pictures, ask it what it takes for roadwork, print JSON.

`doctor`'s child process.
"""

import asyncio
import json
import sys
import time
from itertools import zip_longest
from pathlib import Path
from typing import Any

from detectors.errors import DetectorError
from detectors.models.reversal import ask_drawn
from detectors.photos.labelled import CLASSES, pictures_of
from detectors.photos.synthetic import known_picture
from miner.errors import StartError
from miner.inference.loader import ModelLoader
from miner.metrics import Metrics
from miner.settings.settings import Settings


def measure(settings: Settings, count: int, budget: float, folder: str) -> dict[str, Any]:
    """Ask the model about pictures; once `budget` seconds have gone, no further one is begun.

    Args:
        settings: of the miner.
        count: how many pictures are timed.
        budget: seconds.
        folder: of labelled photos; empty: drawings are asked about.

    Returns:
        `seconds` of each picture, and `photos` as pairs of label and answer with those `unread` and why, or `drawn` as
        pairs of answers.

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
    photos, unread, drawn = list[tuple[bool, float]](), list[str](), list[tuple[float, float]]()
    labelled = _in_turn(Path(folder)) if folder else []
    for path, label in labelled:
        if time.monotonic() - began > budget:
            break
        try:
            photos.append((label, detector.predict(path.read_bytes()).probability))
        except (DetectorError, OSError) as error:
            unread.append(f"{path.name}: {getattr(error, 'strerror', None) or error}")
    if not folder and time.monotonic() - began < budget:
        drawn += ask_drawn(lambda drawing: detector.judge(drawing).probability).pairs
    detector.close()
    return {"seconds": seconds, "photos": photos, "unread": unread, "drawn": drawn, "fault": ""}


def _in_turn(folder: Path) -> list[tuple[Path, bool]]:
    """Return labelled photos, the classes in turn, so that the time is enough for some of both."""
    clear, works = (pictures_of(folder, kind)[0] for kind in CLASSES)
    both = [[(path, True) for path in works], [(path, False) for path in clear]]
    return [one for pair in zip_longest(*both) for one in pair if one is not None]


def main() -> None:
    """Print what was measured, or the fault."""
    count, budget, folder = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3]
    try:
        answer = measure(Settings.load(), count, budget, folder)
    except StartError as error:
        answer = {"seconds": [], "photos": [], "unread": [], "drawn": [], "fault": str(error)}
    sys.stdout.write(json.dumps(answer))


if __name__ == "__main__":
    main()
