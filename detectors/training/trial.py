"""A few steps before the training: what fits into memory, what is faster, and how long the whole will take."""

import resource
import time
from typing import Any

from torch import nn

from detectors.console import duration
from detectors.training.budget import GB, first_micro_batch, loader_workers
from detectors.training.hf_model import head_of
from detectors.training.job import Chosen, Job
from detectors.training.trainer import fitting, measure_forward, measure_step

FORWARD = 1 / 3  # of a training step's time, which goes forward once and backward about twice
LOADED = 4  # examples, to see how long one takes
FLOAT = 4  # bytes


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
        lambda size, look: measure_step(network, shape, size, fixed, look),
        min(start, config.batch_size),
        job.probe,
        screen,
    )
    precision = fixed
    if config.precision == "auto" and job.machine.has_bf16:
        faster = measure_step(network, shape, micro_batch, "bf16")
        screen.say(f"a photo takes {seconds * 1e3:.0f} ms in fp32 and {faster * 1e3:.0f} ms in bf16")
        if faster < seconds:
            precision, seconds = "bf16", faster
    loading = _loading(train)
    workers = config.workers if config.workers is not None else loader_workers(job.machine.cores, loading, seconds)
    learning = sum(value.numel() for value in network.parameters() if value.requires_grad)
    everything = sum(value.numel() for value in network.parameters())
    each = _each(seconds, loading, workers)
    total = config.most_epochs * each * (len(train) + FORWARD * val)
    # Gradients and AdamW's two moments come on top of what the trial has taken.
    peak = _peak() + 3 * FLOAT * learning
    screen.say(
        f"{learning / 1e6:.2f} of {everything / 1e6:.1f} million weights learn; micro-batch {micro_batch} of batch "
        f"{config.batch_size}, {precision}, {workers} loader processes ({loading * 1e3:.0f} ms to load a photo)"
    )
    screen.say(
        f"estimate: at most {duration(total)} for {config.most_epochs} epochs of {len(train)} photos, "
        f"about {peak / GB:.1f} GB"
    )
    return Chosen(micro_batch, precision, workers, each, photos)


def choose_for_features(
    job: Job, network: nn.Module, wanted: Any, shape: tuple[int, ...], device: str
) -> tuple[int, int]:
    """Decide on micro-batch and loader processes for a frozen network by trying, and say what all will take.

    Args:
        job: what to do.
        network: is only asked.
        wanted: the pictures.
        shape: of one picture.
        device: where the network runs.
    """
    config, screen = job.config, job.screen
    start = config.micro_batch or first_micro_batch(job.machine.available, config.batch_size, full=False)
    micro_batch, seconds = fitting(
        lambda size, look: measure_forward(network, shape, size, device, look), start, job.probe, screen
    )
    loading = _loading(wanted)
    workers = config.workers if config.workers is not None else loader_workers(job.machine.cores, loading, seconds)
    screen.say(
        f"a photo takes {seconds * 1e3:.0f} ms and {loading * 1e3:.0f} ms to load; micro-batch {micro_batch}, "
        f"{workers} loader processes"
    )
    total = len(wanted) * _each(seconds, loading, workers)
    peak = _peak() + 2 * FLOAT * head_of(network).in_features * len(wanted)  # in the cache, and in order
    screen.say(f"estimate: at most {duration(total)} for {len(wanted)} features, about {peak / GB:.1f} GB")
    return micro_batch, workers


def choose_for_head(job: Job, head: nn.Module, width: int, photos: str, views: int, train: int) -> Chosen:
    """Decide on the micro-batch of a last layer that learns from features, and say what its training will take.

    Args:
        job: what to do.
        head: what learns.
        width: of the features.
        photos: the sum of the data set.
        views: changed copies of each photo that have features.
        train: how many photos it learns from.
    """
    config = job.config
    micro_batch, seconds = fitting(
        lambda size, look: measure_step(head, (width,), size, "fp32", look),
        min(config.micro_batch or config.batch_size, config.batch_size), job.probe, job.screen,
    )  # fmt: skip
    job.screen.say(
        f"estimate: at most {duration(config.most_epochs * train * seconds)} and what validations take, for "
        f"{config.most_epochs} epochs of {train} photos from their features, about {_peak() / GB:.1f} GB"
    )
    return Chosen(micro_batch, "fp32", 0, seconds, photos, views)


def _loading(examples: Any) -> float:
    """Return the seconds that one example takes to be loaded."""
    count = min(LOADED, len(examples))
    began = time.perf_counter()
    for number in range(count):
        examples[number]
    return (time.perf_counter() - began) / count


def _each(seconds: float, loading: float, workers: int) -> float:
    """Return the seconds from one photo to the next: loader processes work beside the network."""
    return max(seconds, loading / workers) if workers else seconds + loading


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0
