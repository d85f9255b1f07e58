"""The machine as the kernel reports it: memory, CPU time and throttling of a process and its cgroup (v1 and v2)."""

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import inf
from pathlib import Path

import psutil

MEMORY_FILES = (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes"))  # versions 2, 1
NO_LIMIT = 2**60  # bytes; version 1 writes "none" as the largest multiple of a page

LOUD = 0.1  # of the machine's CPU time; more than this in other hands, and figures are of little worth


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes; a limit that is not there is infinite."""

    resident: float = 0.0
    proportional: float = 0.0  # shared pages counted in parts
    peak: float = 0.0  # the most that was ever resident
    cgroup_limit: float = inf
    cgroup_usage: float = 0.0
    cgroup_reclaimable: float = 0.0  # of the usage: file cache that the kernel drops before it kills
    machine_available: float = 0.0


@dataclass(frozen=True, slots=True)
class Headroom:
    """Bytes left of the limit, a cgroup's or the machine's own, of which the least is left."""

    left: float = inf
    limit: float = inf
    whose: str = "machine"


@dataclass(frozen=True, slots=True)
class Throttling:
    """The scheduler's periods under a CPU quota, those that ran into it, and the seconds held back."""

    periods: int = 0
    throttled: int = 0
    seconds: float = 0.0


def read_memory(root: Path = Path("/")) -> Memory:
    """Read the memory; what the kernel does not tell stays at its default.

    Args:
        root: where `/proc` and `/sys/fs/cgroup` are.
    """
    status = _kilobytes(root / "proc/self/status")
    # The rollup walks all mappings (about 1 ms) and needs a kernel from 4.14 on.
    rollup = _kilobytes(root / "proc/self/smaps_rollup")
    limit, usage, reclaimable = _cgroup_memory(root)
    resident = status.get("VmRSS", 0.0)
    return Memory(
        resident=resident,
        proportional=rollup.get("Pss", resident),
        peak=status.get("VmHWM", resident),
        cgroup_limit=limit,
        cgroup_usage=usage,
        cgroup_reclaimable=reclaimable,
        machine_available=_kilobytes(root / "proc/meminfo").get("MemAvailable", 0.0),
    )


def read_headroom(root: Path = Path("/")) -> Headroom:
    """Read what is left until the kernel kills, of all limits that hold for this process.

    File cache is not counted as used, but for mapped files: the weights of a model that serves are among them.
    """
    meminfo = _kilobytes(root / "proc/meminfo")
    rooms = [Headroom(meminfo.get("MemAvailable", inf), meminfo.get("MemTotal", inf))]
    for folder in cgroup_folders(root, "memory"):
        stat = _pairs(folder / "memory.stat")
        inactive, active, mapped = (
            stat.get(f"total_{name}", stat.get(name, 0)) for name in ("inactive_file", "active_file", "mapped_file")
        )
        cache = max(inactive, inactive + active - mapped)
        for limit_file, usage_file in MEMORY_FILES:
            limit, usage = _number(folder / limit_file), _number(folder / usage_file)
            if limit is not None and usage is not None and limit < NO_LIMIT:
                rooms.append(Headroom(limit - usage + cache, limit, "cgroup"))
    return min(rooms, key=lambda room: room.left)


def read_throttling(root: Path = Path("/")) -> Throttling:
    """Read the group, of the process's own and its parents, that was held back most."""
    found = [Throttling()]
    for folder in cgroup_folders(root, "cpu"):
        stat = _pairs(folder / "cpu.stat")
        seconds = stat.get("throttled_usec", 0) / 1e6 + stat.get("throttled_time", 0) / 1e9  # version 2, version 1
        found.append(Throttling(stat.get("nr_periods", 0), stat.get("nr_throttled", 0), seconds))
    return max(found, key=lambda group: (group.seconds, group.periods))


def read_cpu(root: Path = Path("/")) -> tuple[str, frozenset[str]]:
    """Read the CPU's name and its instruction sets, as `/proc/cpuinfo` has them; empty where it does not tell."""
    facts: dict[str, str] = {}
    for line in _lines(root / "proc/cpuinfo"):
        name, _, value = line.partition(":")
        facts.setdefault(name.strip(), value.strip())
    flags = facts.get("flags", facts.get("Features", ""))
    return facts.get("model name", facts.get("CPU part", "")), frozenset(flags.split())


def cgroup_folders(root: Path, controller: str) -> Iterator[Path]:
    """Yield the folders of the process's cgroup for a controller and of all its parents, its own first.

    Inside a container the group's path may be the host's and not be there: then only what is there is yielded.
    """
    top = root / "sys/fs/cgroup"
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, group = line.split(":", 2)
        if controllers == "":
            base = top
        elif controller in controllers.split(","):
            base = next((path for name in (controller, controllers) if (path := top / name).is_dir()), top)
        else:
            continue
        folder = base / group.lstrip("/")
        while folder != base and base in folder.parents:
            if folder.is_dir():
                yield folder
            folder = folder.parent
        yield base


def _cgroup_memory(root: Path) -> tuple[float, float, float]:
    """Return limit, usage and reclaimable bytes of the group with the tightest limit."""
    groups = []
    for folder in cgroup_folders(root, "memory"):
        stat = _pairs(folder / "memory.stat")
        reclaimable = stat.get("total_inactive_file", stat.get("inactive_file", 0))
        for limit_file, usage_file in MEMORY_FILES:
            usage = _number(folder / usage_file)
            if usage is not None:
                limit = _number(folder / limit_file)
                groups.append((inf if limit is None or limit >= NO_LIMIT else limit, usage, reclaimable))
    return min(groups, key=lambda group: group[0], default=(inf, 0.0, 0.0))


def _kilobytes(path: Path) -> dict[str, float]:
    """Read lines such as `VmRSS:  1024 kB`, in bytes."""
    found = {}
    for line in _lines(path):
        name, _, rest = line.partition(":")
        words = rest.split()
        if len(words) == 2 and words[1] == "kB" and words[0].isdecimal():
            found[name] = int(words[0]) * 1024.0
    return found


def _pairs(path: Path) -> dict[str, int]:
    words = (line.split() for line in _lines(path))
    return {pair[0]: int(pair[1]) for pair in words if len(pair) == 2 and pair[1].isdecimal()}


def _number(path: Path) -> float | None:
    lines = _lines(path)
    return float(lines[0]) if lines and lines[0].strip().isdecimal() else None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


@dataclass(frozen=True, slots=True)
class CpuSeconds:
    """CPU seconds until a moment: of all cores, of those idle, and of our own processes."""

    total: float
    idle: float
    own: float


def spent(pids: Sequence[int]) -> CpuSeconds:
    """Read the clocks; this process counts as ours."""
    times = psutil.cpu_times()
    own = 0.0
    for pid in (os.getpid(), *pids):
        used = psutil.Process(pid).cpu_times()
        own += used.user + used.system
    # Guests are in `user` already.
    total = times.user + times.nice + times.system + times.idle + times.iowait + times.irq + times.softirq + times.steal
    return CpuSeconds(total, times.idle + times.iowait, own)


def children(root: Path = Path("/")) -> list[int]:
    """Return the processes that this one has started, by their numbers; none where the kernel does not tell."""
    return [int(pid) for path in (root / "proc/self/task").glob("*/children") for pid in " ".join(_lines(path)).split()]


def children_seconds() -> float:
    """Read the CPU seconds of child processes that have not ended; the others' are in this process's own times."""
    seconds = 0.0
    for pid in children():
        with suppress(psutil.Error):  # it has just ended
            times = psutil.Process(pid).cpu_times()
            seconds += times.user + times.system
    return seconds


def children_memory() -> float:
    """Read the bytes that child processes have for themselves; what they share with this one is not counted again."""
    total = 0.0
    for pid in children():
        with suppress(psutil.Error):
            total += psutil.Process(pid).memory_full_info().uss
    return total


def others(before: CpuSeconds, after: CpuSeconds) -> float:
    """Return the share of the machine's CPU time that went to other programs or was stolen by the host; 0 to 1."""
    total = after.total - before.total
    if total <= 0:
        return 0.0
    foreign = total - (after.idle - before.idle) - (after.own - before.own)
    return min(1.0, max(0.0, foreign / total))


def allowed_cores(root: Path = Path("/"), affinity: int | None = None) -> int:
    """Return the whole cores this process may use: the smaller of its affinity mask and its cgroup's quota.

    The mask does not show a quota, and a thread more than the quota allows is throttled, so the quota is rounded down.

    Args:
        root: where `/proc` and `/sys/fs/cgroup` are.
        affinity: the size of the mask; the process's own if None.
    """
    mask = affinity if affinity is not None else len(os.sched_getaffinity(0))
    quota = cpu_quota(root)
    return max(1, mask if quota is None else min(mask, int(quota)))


def cpu_quota(root: Path = Path("/")) -> float | None:
    """Return the CPU quota in cores, the smallest of the process's cgroup and its parents (v1 and v2), or None."""
    quotas = []
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, group = line.split(":", 2)
        if controllers == "":
            base = root / "sys/fs/cgroup"
            read = _quota_v2
        elif "cpu" in controllers.split(","):
            base = next(
                (path for name in ("cpu", "cpu,cpuacct") if (path := root / "sys/fs/cgroup" / name).is_dir()), root
            )
            read = _quota_v1
        else:
            continue
        # Inside a container the group's path may be the host's and not be there: then only the top is ours.
        folder = base / group.lstrip("/")
        while True:
            quotas.append(read(folder))
            if folder == base or base not in folder.parents:
                break
            folder = folder.parent
    found = [quota for quota in quotas if quota is not None]
    return min(found) if found else None


def _quota_v2(folder: Path) -> float | None:
    lines = _lines(folder / "cpu.max")
    if not lines or lines[0].split()[0] == "max":
        return None
    quota, period = lines[0].split()
    return int(quota) / int(period)


def _quota_v1(folder: Path) -> float | None:
    quota, period = _lines(folder / "cpu.cfs_quota_us"), _lines(folder / "cpu.cfs_period_us")
    if not quota or not period or int(quota[0]) <= 0:
        return None
    return int(quota[0]) / int(period[0])
