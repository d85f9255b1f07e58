"""What a run takes of the machine, every few seconds, as CSV; and advice in words when it lacks something."""

import csv
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

from detectors.console import Screen
from detectors.training.budget import Probe, Reading, advice

COLUMNS = (
    "seconds",
    "cpu_share",
    "resident_mb",
    "available_mb",
    "throttled_seconds",
    "swapped_out_mb",
    "waiting_share",
)
AGAIN = 600.0  # seconds until the same advice is given again


class ResourceLog:
    """A thread that writes a row every few seconds, from entry to exit; a resumed run goes on in the same file."""

    def __init__(
        self,
        path: Path,
        probe: Probe,
        screen: Screen,
        waiting: Callable[[], float] = lambda: 0.0,
        interval: float = 5.0,
    ) -> None:
        self._path, self._probe, self._screen = path, probe, screen
        self._waiting, self._interval = waiting, interval
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="resources", daemon=True)
        self._told: dict[str, float] = {}

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        fresh = not self._path.is_file()
        with self._path.open("a", newline="", encoding="ascii") as file:
            rows = csv.writer(file)
            if fresh:
                rows.writerow(COLUMNS)
            began = then = time.monotonic()
            before, waited_before = self._probe(), self._waiting()
            ended = False
            while not ended:
                ended = self._stop.wait(self._interval)  # one row at the end, however short the run
                now, reading, waited = time.monotonic(), self._probe(), self._waiting()
                seconds = max(now - then, 1e-3)
                waiting = min(1.0, (waited - waited_before) / seconds)
                rows.writerow(_row(before, reading, seconds, waiting, now - began))
                file.flush()
                if not ended:
                    self._advise(advice(before, reading, seconds, waiting), now)
                before, waited_before, then = reading, waited, now

    def _advise(self, words: list[str], now: float) -> None:
        for line in words:
            kind = line.rpartition(":")[2]  # what to do about it: the figures before it differ each time
            if now - self._told.get(kind, -AGAIN) >= AGAIN:
                self._told[kind] = now
                self._screen.warn(line)


def _row(before: Reading, now: Reading, seconds: float, waiting: float, since: float) -> list[str]:
    share = (now.cpu - before.cpu) / seconds
    return [
        f"{since:.1f}", f"{share:.2f}", f"{now.resident / 1e6:.0f}", f"{now.available / 1e6:.0f}",
        f"{now.throttled:.2f}", f"{now.swapped_out / 1e6:.0f}", f"{waiting:.2f}",
    ]  # fmt: skip
