"""Load the configured model as the daemon does, time some pictures, and print it as JSON: `doctor`'s child process."""

import asyncio
import json
import sys
import time

from detectors.pictures import known_picture
from miner.errors import StartError
from miner.metrics import Metrics
from miner.model import ModelLoader
from miner.settings import Settings


def measure(settings: Settings, count: int, budget: float) -> list[float]:
    """Return the seconds of up to `count` pictures; once `budget` seconds have gone, no further one is begun.

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
    detector.close()
    return seconds


def main() -> None:
    """Print `{"seconds": […], "fault": ""}`."""
    count, budget = int(sys.argv[1]), float(sys.argv[2])
    try:
        answer = {"seconds": measure(Settings.load(), count, budget), "fault": ""}
    except StartError as error:
        answer = {"seconds": [], "fault": str(error)}
    sys.stdout.write(json.dumps(answer))


if __name__ == "__main__":
    main()
