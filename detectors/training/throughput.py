"""The throughput of a training on this machine: real photos, loaded and through the network, by setting."""

import dataclasses
import gc
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from detectors.backends.torch import import_yolo
from detectors.errors import ModelError
from detectors.machine import children, children_memory, others, spent
from detectors.network import ViT
from detectors.registry import method_class
from detectors.training import hf_model
from detectors.training.budget import Probe, fewer, first_micro_batch, is_out_of_memory
from detectors.training.data import open_dataset
from detectors.training.dataset import DataSet, PixelExamples, Views, collate
from detectors.training.features import CutNetwork, ViewPixels, rows_of
from detectors.training.job import Job, StopSignal
from detectors.training.probe import ProbeRow, ProbeSetting, advice_on, flags, search, table, taken
from detectors.training.trainer import train_step

SEEN_BEFORE = 2  # batches, before the clock runs: those that loaders had ready


@dataclass(frozen=True)
class ProbedNetwork:
    """What is measured: a network, what it is given, and whether it learns or is only asked, as for features."""

    network: nn.Module
    examples: Any
    learns: bool

    def step(self, loaded: Any, precision: str, look: Callable[[], None] = lambda: None) -> int:
        """Have the network see a batch as in the training; return how many photos it has."""
        if not self.learns:
            with torch.inference_mode():
                hf_model.logits_of(self.network.eval(), loaded)
            look()
            return len(loaded)
        hf_model.set_training(self.network)
        train_step(self.network, loaded["inputs"], loaded["labels"], precision, look)
        self.network.zero_grad()
        return len(loaded["labels"])

    def loader(self, micro_batch: int, workers: int) -> "DataLoader[Any]":
        """Load the photos without end."""
        return DataLoader(
            self.examples, micro_batch, sampler=itertools.cycle(range(len(self.examples))), num_workers=workers,
            collate_fn=collate if self.learns else None, prefetch_factor=1 if workers else None,
        )  # fmt: skip


def probe_machine(job: Job) -> list[ProbeRow]:
    """Compare for a training that is not begun, and say what came out.

    Raises:
        DetectorConfigError: the photos are wrong.
        ModelError: the network can't be found or loaded.
    """
    data = open_dataset(job.config, job.cache / "photos", job.screen, job.machine.cores)
    rows = compare(job, data)
    if words := flags(job.config, rows):
        job.screen.say(f"a training takes it with {words}, or compares for itself (--probe --out)")
    return rows


def with_best(job: Job, data: DataSet) -> Job:
    """Return the training with the best of what was not set; its configuration is saved.

    Raises:
        ModelError: the network can't be found or loaded.
    """
    config = taken(job.config, compare(job, data))
    config.write(job.run)
    return dataclasses.replace(job, config=config)


def compare(job: Job, data: DataSet) -> list[ProbeRow]:
    """Compare settings for a minute, and print the table.

    Raises:
        ModelError: the network can't be found or loaded.
    """
    config, screen, cores = job.config, job.screen, job.machine.cores
    probed = _probed(job, data)
    start = config.micro_batch or first_micro_batch(job.machine.available, config.batch_size, full=probed.learns)
    most = config.batch_size if probed.learns else 2 * start
    screen.say("comparing threads, loader processes, micro-batches and precisions, for about a minute")
    precisions = ["fp32"]
    if probed.learns and config.precision != "fp32":
        precisions = ["bf16"] if config.precision == "bf16" else ["fp32"] + ["bf16"] * job.machine.has_bf16
        if not job.machine.has_bf16 and config.precision == "auto":
            screen.say("this CPU has no bf16 of its own: fp32 alone is compared")
    setting = ProbeSetting(cores, 0, start, precisions[0])
    rows = search(_measure(probed, job.probe), config, setting, most, precisions, screen)
    for line in (*table(rows, cores), *advice_on(rows, cores, config)):
        screen.say(line)
    gc.collect()
    return rows


def _probed(job: Job, data: DataSet) -> ProbedNetwork:
    config, views = job.config, Views(job.config.augment, job.config.seed)
    if config.is_yolo:
        from detectors.training.yolo import SIZE_MODELS, preprocessing

        name = SIZE_MODELS.get(config.model, config.model)
        local = Path(name).expanduser()
        try:
            network = import_yolo()(str(local.resolve()) if local.is_file() else name).model
        except (OSError, ValueError, RuntimeError) as error:
            raise ModelError(f"{config.model} can't be trained: {str(error).splitlines()[0]}") from error
        return ProbedNetwork(
            network.requires_grad_(True), PixelExamples(data.train, views, preprocessing(), plain=False), True
        )
    from detectors.training.methods import HeadMethod, MethodInputs, PhotoMethod

    source = hf_model.find_folder(config, job.cache).path
    model, as_served = hf_model.load(source, config.seed), ViT.read_preprocessing(source)
    method = method_class(config.method)()
    if isinstance(method, PhotoMethod):
        stopping = StopSignal(None, job.screen)
        network = method.network(MethodInputs(job, model, as_served, data, "", stopping, None))
        return ProbedNetwork(network, PixelExamples(data.train, views, as_served, plain=False), True)
    assert isinstance(method, HeadMethod)
    wanted = ViewPixels(data.train, rows_of(data.train, 1), views, as_served, config.head_views)
    return ProbedNetwork(CutNetwork(model), wanted, False)


def _measure(probed: ProbedNetwork, probe: Probe) -> Callable[[ProbeSetting, float], ProbeRow]:
    taken_before: dict[int, float] = {}  # bytes that a micro-batch added, by its size

    def measure(setting: ProbeSetting, seconds: float) -> ProbeRow:
        now = probe()
        size = setting.micro_batch
        known = max((one for one in taken_before if one < size), default=size)
        if fewer(size, taken_before.get(known, 0.0) * size / known, now) < size:
            return ProbeRow(setting, 0.0)
        try:
            row = _timed(probed, setting, seconds, probe)
        except (MemoryError, RuntimeError, OSError) as error:
            if not is_out_of_memory(error):
                raise
            gc.collect()
            return ProbeRow(setting, 0.0)
        taken_before.setdefault(size, max(0.0, row.memory - now.resident))
        return row

    return measure


def _timed(probed: ProbedNetwork, setting: ProbeSetting, seconds: float, probe: Probe) -> ProbeRow:
    """Measure for so many seconds, but one batch at least; the first ones are not timed, unless one takes so long."""
    torch.set_num_threads(setting.threads)
    peak = 0.0

    def look() -> None:
        nonlocal peak
        peak = max(peak, probe().resident)

    batches = iter(probed.loader(setting.micro_batch, setting.workers))
    began, before = time.perf_counter(), spent(children())
    count, timed = 0, False
    for number in itertools.count():
        count += probed.step(next(batches), setting.precision, look)
        took = time.perf_counter() - began
        if took >= seconds:
            break
        if number + 1 == SEEN_BEFORE and not timed:
            count, timed = 0, True
            began, before = time.perf_counter(), spent(children())
    after = spent(children())
    memory = peak + children_memory()
    del batches
    cores, idle = (max(0.0, later - earlier) / took for later, earlier in (
        (after.own, before.own), (after.idle, before.idle),
    ))  # fmt: skip
    return ProbeRow(setting, count / took, memory, cores, idle, others(before, after))
