"""A few steps before the training: what fits into memory, what is faster, and how long the whole will take."""

import resource
import time
from typing import Any

from torch import nn

from detectors.training.job import Chosen, Job
from detectors.training.loop import fitting, measure_step
from detectors.training.machine import GB, first_micro_batch, loader_workers
from detectors.training.screen import duration

FORWARD = 1 / 3  # of a training step's time, which goes forward once and backward about twice


def choose(job: Job, network: nn.Module, train: Any, shape: tuple[int, ...], photos: str, val: int) -> Chosen:
    """Decide on micro-batch, precision and loader processes by trying, and say what the run will take.

    Args:
        job: what to do.
        network: what learns.
        train: the examples, which are pictures.
        shape: of one picture.
        photos: the sum of the data set.
        val: how many photos each validation has.
    """
    config, screen = job.config, job.screen
    start = config.micro_batch or first_micro_batch(
        job.machine.available, config.batch_size, full=config.method == "full"
    )
    fixed = "bf16" if config.precision == "bf16" else "fp32"
    micro_batch, seconds = fitting(
        lambda size: measure_step(network, shape, size, fixed), min(start, config.batch_size), job.probe, screen
    )
    precision = fixed
    if config.precision == "auto" and job.machine.has_bf16:
        faster = measure_step(network, shape, micro_batch, "bf16")
        screen.say(f"a photo takes {seconds * 1e3:.0f} ms in fp32 and {faster * 1e3:.0f} ms in bf16")
        if faster < seconds:
            precision, seconds = "bf16", faster
    began = time.perf_counter()
    for number in range(min(4, len(train))):
        train[number]
    loading = (time.perf_counter() - began) / min(4, len(train))
    workers = config.workers if config.workers is not None else loader_workers(job.machine.cores, loading, seconds)
    learning = sum(value.numel() for value in network.parameters() if value.requires_grad)
    everything = sum(value.numel() for value in network.parameters())
    each = max(seconds, loading / workers) if workers else seconds + loading
    total = config.most_epochs * each * (len(train) + FORWARD * val)
    # Gradients and AdamW's two moments come on top of what the trial has taken.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 + 12 * learning
    screen.say(
        f"{learning / 1e6:.2f} of {everything / 1e6:.1f} million weights learn; micro-batch {micro_batch} of batch "
        f"{config.batch_size}, {precision}, {workers} loader processes ({loading * 1e3:.0f} ms to load a photo)"
    )
    screen.say(
        f"estimate: at most {duration(total)} for {config.most_epochs} epochs of {len(train)} photos, "
        f"about {peak / GB:.1f} GB"
    )
    return Chosen(micro_batch, precision, workers, each, photos)
