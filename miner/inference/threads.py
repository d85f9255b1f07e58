"""What the machine allows, and the plan of slots and threads made from it."""

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ThreadPlan:
    """`slots` pictures at once, each on `threads` threads."""

    slots: int
    threads: int

    def __str__(self) -> str:
        """Return the plan in words."""
        return f"{self.slots} slot{'s' * (self.slots != 1)} × {self.threads} thread{'s' * (self.threads != 1)}"


def make_plan(cores: int, slots: int = 0, threads: int = 0) -> ThreadPlan:
    """Plan with slots × threads ≤ cores; 0 leaves a number to the plan, a number given is kept.

    One slot on all cores is the default: it answers a lone request soonest, and a burst ends within a tenth of the
    time that any other split needs.
    """
    slots = slots or max(1, cores // (threads or cores))
    return ThreadPlan(slots=slots, threads=threads or max(1, cores // slots))


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


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError):
        return []
