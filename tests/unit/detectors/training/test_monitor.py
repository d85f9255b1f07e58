"""The resource log, and the moments when a run has to stop."""

import contextlib
import io
import signal
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from rich.console import Console

from detectors.console import Screen
from detectors.training.budget import COLUMNS, GB, MachineReading, ResourceLog
from detectors.training.job import SIGNALLED, TIME_OVER, StopSignal


def test_rows_are_written_from_entry_to_exit_and_by_a_resumed_run_as_well(tmp_path: Path) -> None:
    seconds = count()

    def probe() -> MachineReading:
        return MachineReading(resident=2 * GB, available=8 * GB, memory=16 * GB, cpu=float(next(seconds)))

    path = tmp_path / "resources.csv"
    for _ in range(2):
        with ResourceLog(path, probe, Screen(Console(file=io.StringIO())), interval=60):
            pass
    head, *rows = path.read_text().splitlines()
    assert head == ",".join(COLUMNS)
    assert len(rows) == 2
    assert rows[0].split(",")[2:4] == ["2000", "8000"]


def test_the_same_advice_is_not_given_twice_in_a_row(tmp_path: Path) -> None:
    told = io.StringIO()
    starved = MachineReading(resident=15 * GB, available=0.1 * GB, memory=16 * GB)
    path = tmp_path / "log.csv"
    with ResourceLog(path, lambda: starved, Screen(Console(file=told, width=200)), interval=0.01):
        end = time.monotonic() + 30
        while not (path.is_file() and path.read_text().count("\n") >= 5) and time.monotonic() < end:
            time.sleep(0.01)
    assert told.getvalue().count("99% of the memory") == 1


def test_time_and_signals_ask_for_a_stop_and_the_second_signal_stops_at_once() -> None:
    screen = Screen(Console(file=io.StringIO()))
    assert StopSignal(0.0, screen).reason == TIME_OVER
    now = [0.0]
    stopping = StopSignal(None, screen, clock=lambda: now[0])
    assert stopping.reason is None
    with interruptible():
        with stopping:
            for _ in range(3):  # as from a launcher whose whole group has got it already: one
                signal.raise_signal(signal.SIGINT)
            assert stopping.reason == SIGNALLED
            now[0] = 1.0
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Have SIGINT interrupt this process; of a shell's background job it is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
