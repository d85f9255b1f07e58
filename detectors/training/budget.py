"""The budget of a training: the memory, cores and time that it may take of the machine.

The readings are the caller's business, since what the kernel says of this process is read elsewhere.
"""

import csv
import gc
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from detectors.console import Screen

GB = 10**9
RESERVE = 0.1  # of the memory, kept free: below it the kernel starts to throw out file caches, then to kill

COLUMNS = (
    "seconds",
    "cpu_share",
    "resident_mb",
    "available_mb",
    "throttled_seconds",
    "swapped_out_mb",
    "waiting_share",
)
SPARE_CORES = 0.6  # idle cores that one more loader process would put to use
ADVICE_SECONDS = 600.0  # seconds until the same advice is given again


@dataclass(frozen=True, slots=True)
class Machine:
    """Cores this process may use, quota in cores (None: none), bytes of memory, and what the CPU can do."""

    cores: int
    quota: float | None
    memory: float  # the machine's, or the cgroup's limit
    available: float
    cpu: str
    features: frozenset[str]  # as /proc/cpuinfo names them

    def __str__(self) -> str:
        """Return it in words."""
        known = [
            name for name in ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16") if name in self.features
        ]
        quota = f"a quota of {self.quota:g}" if self.quota is not None else "no quota"
        return (
            f"{self.cpu or 'unknown CPU'} ({', '.join(known) or 'no AVX2'}), {self.cores} cores, {quota}, "
            f"{self.available / GB:.1f} of {self.memory / GB:.1f} GB memory available"
        )

    @property
    def has_bf16(self) -> bool:
        """Whether the CPU calculates in bf16 itself; elsewhere it is emulated, and slower than fp32."""
        return bool(self.features & {"avx512_bf16", "amx_bf16"})


@dataclass(frozen=True, slots=True)
class MachineReading:
    """What the machine says now. Bytes and seconds; sums count from some start."""

    resident: float  # of this process
    available: float  # until the machine or the cgroup is full
    memory: float  # the machine's, or the cgroup's limit
    swapped_out: float = 0.0  # sum
    throttled: float = 0.0  # sum of the seconds held back by the quota
    cpu: float = 0.0  # sum of the seconds of this process and its children
    idle: float = 0.0  # sum of the seconds in which cores of the machine had nothing to do

    @property
    def is_short(self) -> bool:
        """Whether the next large allocation may be the last."""
        return self.available < RESERVE * self.memory


Probe = Callable[[], MachineReading]
Look = Callable[[], None]  # at the memory, in the middle of a step


def first_micro_batch(available: float, batch_size: int, *, full: bool) -> int:
    """Return how many photos to try first: 4 below 8 GB, 8 to 16 GB, 16 above; half for training all weights."""
    size = 4 if available < 8 * GB else 8 if available < 16 * GB else 16
    return min(batch_size, size // 2 if full else size)


def loader_workers(cores: int, load_seconds: float, step_seconds: float) -> int:
    """Return how many processes load photos: none where loading takes less than a tenth of a step's time."""
    return 0 if load_seconds < 0.1 * step_seconds else min(2, cores // 2)


def fewer(micro_batch: int, growth: float, now: MachineReading) -> int:
    """Return how many photos of a micro-batch fit, which adds `growth` bytes to what is taken now.

    Half as many where the reserve would be touched, and halved on where what is available would not suffice.
    """
    if growth <= 0 or now.available - growth >= RESERVE * now.memory:
        return micro_batch
    size = micro_batch // 2
    while size > 1 and growth * size / micro_batch > now.available:
        size //= 2
    return max(1, size)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an allocation failed; torch says so with a RuntimeError, in words."""
    if isinstance(error, MemoryError):
        return True
    words = str(error)
    signs = ("can't allocate memory", "not enough memory", "out of memory", "Cannot allocate memory", "bad_alloc")
    # oneDNN has no words for it: a primitive that worked before can't be made, for want of memory.
    primitives = ("could not create a primitive", "could not create a memory", "could not execute a primitive")
    return isinstance(error, RuntimeError | OSError) and any(sign in words for sign in signs + primitives)


def advice(before: MachineReading, now: MachineReading, seconds: float, waiting: float) -> list[str]:
    """Say in words what the run lacks.

    Args:
        before: the last reading.
        now: this one.
        seconds: between the two.
        waiting: share of that time in which the training waited for photos.
    """
    words = []
    if now.swapped_out - before.swapped_out > 10e6:
        words.append("the machine is swapping: stop other programs, or choose a smaller --micro-batch")
    if now.is_short:
        share = 1 - now.available / now.memory
        words.append(f"{share:.0%} of the memory is taken: choose a smaller --micro-batch or --model")
    is_throttled = now.throttled - before.throttled > 0.1 * seconds
    if waiting > 0.3:
        idle = (now.idle - before.idle) / seconds
        what = f"{waiting:.0%} of the time goes by waiting for photos"
        if idle >= SPARE_CORES and not is_throttled:
            words.append(f"{what}, and {idle:.1f} cores are idle: more loader processes (--set workers=…)")
        else:
            words.append(f"{what}, and no core is idle: smaller photos load faster")
    if is_throttled:
        words.append("the CPU quota holds the training back: fewer --set threads=…, or a larger quota")
    return words


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
            if now - self._told.get(kind, -ADVICE_SECONDS) >= ADVICE_SECONDS:
                self._told[kind] = now
                self._screen.warn(line)


def _row(before: MachineReading, now: MachineReading, seconds: float, waiting: float, since: float) -> list[str]:
    share = (now.cpu - before.cpu) / seconds
    return [
        f"{since:.1f}", f"{share:.2f}", f"{now.resident / 1e6:.0f}", f"{now.available / 1e6:.0f}",
        f"{now.throttled:.2f}", f"{now.swapped_out / 1e6:.0f}", f"{waiting:.2f}",
    ]  # fmt: skip


def fitting(measure: Callable[[int, Look], float], micro_batch: int, probe: Probe, screen: Screen) -> tuple[int, float]:
    """Try a micro-batch and halve it until a step succeeds and leaves memory free; return it and seconds a photo.

    One and two photos are tried before: what the second adds tells of more, and in a cgroup that kills, where no
    allocation fails, trying too many would be the end.
    """
    screen.say("trying how long a photo takes, and how many fit into memory")
    micro_batch = _foreseen(measure, micro_batch, probe, screen)

    def look() -> None:
        if micro_batch > 1 and probe().is_short:
            raise MemoryError("memory is nearly full")

    while True:
        try:
            return micro_batch, measure(micro_batch, look)
        except (MemoryError, RuntimeError, OSError) as error:
            if micro_batch == 1 or not is_out_of_memory(error):
                raise
        gc.collect()
        screen.say(f"a micro-batch of {micro_batch} does not fit")
        micro_batch //= 2


def _foreseen(measure: Callable[[int, Look], float], micro_batch: int, probe: Probe, screen: Screen) -> int:
    """Return how many of so many photos will fit, judging by what one and two of them take."""
    if micro_batch <= 2:
        return micro_batch
    peaks: list[float] = []
    for size in (1, 2):
        taken: list[float] = []

        def note(taken: list[float] = taken) -> None:
            taken.append(probe().resident)

        try:
            measure(size, note)
        except (MemoryError, RuntimeError, OSError) as error:
            if size == 1 or not is_out_of_memory(error):
                raise
            return 2  # which is tried again, and halved
        peaks.append(max(taken))
    now = probe()
    each = max(0.0, peaks[1] - peaks[0])
    size = fewer(micro_batch, peaks[1] + each * (micro_batch - 2) - now.resident, now)
    if size < micro_batch:
        screen.say(f"a micro-batch of {micro_batch} would not fit")
    return size
