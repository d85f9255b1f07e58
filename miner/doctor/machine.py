"""The check-up of the machine: cores, memory and disk."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import psutil

from detectors.base import RunOptions
from detectors.machine import Memory, allowed_cores, cpu_quota, read_memory
from miner.doctor.daemon import RunningFacts
from miner.doctor.findings import Finding, ok, problem, warning
from miner.inference.plan import split_cores
from miner.settings.settings import Settings

MB, GB = 10**6, 10**9
BASE_BYTES = 350 * MB  # the process without a model: the interpreter, the SDK, onnxruntime
MODEL_COPIES = 2  # weights are read, then laid out anew for the CPU; afterwards one copy stays
EXPORT_BYTES = 3 * GB  # to fetch and export a ViT-base
STATE_BYTES = 50 * MB
SWAP_COMMANDS = (
    "fallocate -l {size} /swapfile && chmod 600 /swapfile && mkswap /swapfile && swapon /swapfile && "
    "echo '/swapfile none swap sw 0 0' >> /etc/fstab"
)


@dataclass(frozen=True, slots=True)
class CpuFacts:
    """What may be used, and what is planned."""

    plan: RunOptions
    cores: int
    quota: float | None
    remote: bool = False  # the graph runs elsewhere, and slots take no core here


@dataclass(frozen=True, slots=True)
class MemoryFacts:
    """Bytes; `model` is None as long as it is not prepared."""

    available: float
    swap_free: float
    model: int | None
    running: bool  # the miner holds its model already


@dataclass(frozen=True, slots=True)
class DiskFacts:
    """One folder: bytes free where it is or will be, whether it can be written, bytes it needs."""

    setting: str
    path: Path
    free: int
    writable: bool
    needed: int
    closed: Path | None = None  # a folder on the way there that this user may not enter


def read_cpu(settings: Settings, miner: RunningFacts) -> CpuFacts:
    """Read what is allowed and planned: by the miner that runs, which a service's quota holds and not this shell.

    What is set by now, and the miner was not started with, counts as its plan too.
    """
    slots, threads, remote = settings.inference_slots, settings.inference_threads, settings.is_remote
    if miner.plan is not None:
        plan = RunOptions(slots or miner.plan.slots, threads or miner.plan.threads)
        return CpuFacts(plan, miner.cores, miner.quota, remote)
    cores = allowed_cores()
    return CpuFacts(split_cores(cores, slots, threads), cores, cpu_quota(), remote)


def judge_cpu(facts: CpuFacts) -> Finding:
    """Judge the plan: a thread more than the quota allows is throttled, and all wait for it."""
    name = "cpu"
    limit = f"{facts.cores} core{'s' * (facts.cores != 1)}"
    if facts.quota is not None:
        limit += f" (quota {facts.quota:g})"
    wanted = facts.plan.slots * facts.plan.threads
    if wanted > facts.cores and not facts.remote:
        return problem(
            name,
            f"{facts.plan} on {limit}: threads wait for each other",
            "set INFERENCE_SLOTS=0 and INFERENCE_THREADS=0, or raise the quota",
        )
    if facts.quota is not None and facts.quota < 1:
        return warning(name, f"{limit}: every answer is throttled by the CPU quota", "give the miner a whole core")
    return ok(name, f"{facts.plan} on {limit}")


def read_memory_facts(model_bytes: int | None, miner: RunningFacts) -> MemoryFacts:
    """Read what is free for the model: of the machine, or less where a cgroup limits it, the miner's if it runs."""
    known = {kind: miner.memory[kind] for kind in Memory.__slots__ if kind in miner.memory}
    memory = Memory(**known) if "machine_available" in known else read_memory()
    free_in_group = memory.cgroup_limit - memory.cgroup_usage + memory.cgroup_reclaimable
    free = min(memory.machine_available, free_in_group)
    return MemoryFacts(free, psutil.swap_memory().free, model_bytes, miner.running)


def judge_memory(facts: MemoryFacts) -> Finding:
    """Judge whether the model fits; a miner that runs has shown it and only needs some air."""
    name = "memory"
    free = f"{_size(facts.available)} free, {_size(facts.swap_free)} of swap"
    needed = BASE_BYTES if facts.running else BASE_BYTES + MODEL_COPIES * (facts.model or 0)
    if facts.running and facts.model is not None:
        what = "the miner is loaded"
    else:
        what = f"the model needs about {_size(needed)}" if facts.model is not None else "without a model so far"
    size = f"{max(2, -(-2 * needed // GB))}G"
    add_swap = f"as root: {SWAP_COMMANDS.format(size=size)}; or a smaller model"
    if facts.available >= needed:
        return ok(name, f"{free}; {what}")
    if facts.available + facts.swap_free >= needed:
        return warning(name, f"{free}; {what}: it will swap while it loads", add_swap)
    return problem(name, f"{free}; {what}", add_swap)


def read_disks(settings: Settings, *, prepared: bool) -> list[DiskFacts]:
    """Look at the folders that are written to."""
    model = 0 if prepared else EXPORT_BYTES
    folders = (("STATE_DIR", settings.state_dir, STATE_BYTES), ("MODELS_DIR", settings.models_dir, model))
    facts = []
    for setting, path, needed in folders:
        there, closed = _nearest(path.absolute())
        writable = not needed or (not closed and os.access(there, os.W_OK | os.X_OK))
        free = shutil.disk_usage(there).free
        facts.append(DiskFacts(setting, path, free, writable, needed, there if closed else None))
    return facts


def _nearest(path: Path) -> tuple[Path, bool]:
    """Return the nearest folder that is there, as far as this user may look, and whether it may look no further."""
    closed = False
    for parent in (path, *path.parents):
        try:
            if parent.exists():
                break
        except PermissionError:
            closed = True
    return parent, closed


def judge_disk(disks: list[DiskFacts]) -> Finding:
    """Judge whether the state can be kept and the model be made."""
    name = "disk"
    for disk in disks:
        if disk.closed is not None and not disk.writable:
            return problem(
                name,
                f"{disk.setting}={disk.path}: this user may not enter {disk.closed}",
                f"look as root or as the miner's user; if that is this one, set {disk.setting} to another folder",
            )
        if not disk.writable:
            return problem(
                name,
                f"{disk.setting}={disk.path} can't be written",
                f"chown it to the miner's user, or set {disk.setting}",
            )
        if disk.free < disk.needed:
            words = f"{_size(disk.free)} free for {disk.setting}={disk.path}, which may need {_size(disk.needed)}"
            todo = f"make room, or set {disk.setting} to a larger disk"
            return problem(name, words, todo) if disk.setting == "STATE_DIR" else warning(name, words, todo)
    return ok(name, ", ".join(f"{_size(disk.free)} free for {disk.setting}" for disk in disks))


def _size(number: float) -> str:
    return f"{number / GB:.1f} GB" if number >= GB else f"{number / MB:.0f} MB"
