"""How quiet the machine was while something was measured."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

import psutil

LOUD = 0.1  # of the machine's CPU time; more than this in other hands, and figures are of little worth


@dataclass(frozen=True, slots=True)
class Spent:
    """CPU seconds until a moment: of all cores, of those idle, and of our own processes."""

    total: float
    idle: float
    own: float


def spent(pids: Sequence[int]) -> Spent:
    """Read the clocks; this process counts as ours."""
    times = psutil.cpu_times()
    own = 0.0
    for pid in (os.getpid(), *pids):
        used = psutil.Process(pid).cpu_times()
        own += used.user + used.system
    # Guests are in `user` already.
    total = times.user + times.nice + times.system + times.idle + times.iowait + times.irq + times.softirq + times.steal
    return Spent(total, times.idle + times.iowait, own)


def others(before: Spent, after: Spent) -> float:
    """Return the share of the machine's CPU time that went to other programs or was stolen by the host; 0 to 1."""
    total = after.total - before.total
    if total <= 0:
        return 0.0
    foreign = total - (after.idle - before.idle) - (after.own - before.own)
    return min(1.0, max(0.0, foreign / total))
