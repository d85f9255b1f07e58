"""The training loop: transformers' Trainer, with micro-batches that shrink instead of dying.

The Trainer gives the cosine schedule, checkpoints with optimiser, random state and position in the data, and
TensorBoard. Its `auto_find_batch_size` starts again from nothing with a smaller batch, which is another training;
here the optimiser's batch stays as asked, and only the part of it that is in memory at once is halved.
"""

import re
import resource
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel

from detectors.console import counted, duration
from detectors.evaluation.estimates import reward_of
from detectors.registry import METHODS
from detectors.training.batching import MicroBatches, Pace, WeightedLoss, gradients
from detectors.training.budget import GB, Look, first_micro_batch, fitting, loader_workers
from detectors.training.dataset import EpochSampler
from detectors.training.hf_model import ROADWORK, head_of, learns_statistics, log_odds, logits_of, set_training
from detectors.training.job import Job, JobPlan, share_of_rate

from transformers import (  # isort: skip  # after `hf_model`, which mends torchvision
    EvalPrediction,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

AVERAGE_PREFIX = "average."  # what names of the averaged weights begin with
AVERAGE_MODULE_PREFIX = AVERAGE_PREFIX + "module."  # and in `AveragedModel`
BUFFERS = "buffers.safetensors"  # running statistics, beside adapters

FORWARD = 1 / 3  # of a training step's time, which goes forward once and backward about twice
FORWARD_PHOTOS = 4  # at once on the CPU: lite2 took half the CPU time of 16 a photo, whose memory comes and goes
TIMED_EXAMPLES = 4  # examples, to see how long one takes
FLOAT = 4  # bytes


class MicroBatchTrainer(Trainer):  # type: ignore[misc]
    """Trains on whole batches, in parts that fit into memory; their gradients add up to the batch's own."""

    def __init__(
        self, *arguments: Any, loss: WeightedLoss, seed: int, parts: MicroBatches, pace: Pace, precision: str,
        prior: float, **rest: Any,
    ) -> None:  # fmt: skip
        super().__init__(*arguments, **rest)
        self._loss, self._parts, self.pace, self._precision = loss, parts, pace, precision
        self._log_odds = log_odds(prior)
        self.sampler = EpochSampler(len(self.train_dataset), seed)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        """Also load what a checkpoint of adapters leaves out."""
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        path = Path(resume_from_checkpoint) / BUFFERS
        if path.is_file():
            (model or self.model).load_state_dict(load_file(path), strict=False)

    def _get_train_sampler(self, train_dataset: Any = None) -> EpochSampler:
        return self.sampler

    def training_step(self, model: nn.Module, inputs: dict[str, Tensor], num_items_in_batch: Any = None) -> Tensor:
        """Add up a batch's gradients and return its loss."""
        self.pace.busy()
        set_training(model)
        pictures, labels = inputs["inputs"], inputs["labels"]

        def logits(part: slice) -> Tensor:
            # Here alone: `TrainingArguments(bf16=True)` would validate in bf16 too, which is not what is served.
            with torch.autocast("cpu", torch.bfloat16, enabled=self._precision == "bf16"):
                return logits_of(model, pictures[part])

        loss = gradients(model, logits, labels, self._loss, self._parts, self.pace, self.accelerator.backward)
        self.args.per_device_eval_batch_size = self._parts.size
        return loss

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> LambdaLR:
        """Return a warm-up and a cosine; transformers' own spends the first step at a rate of 0."""
        share = partial(share_of_rate, warm_up=self.args.warmup_steps, total=num_training_steps)
        self.lr_scheduler: LambdaLR = LambdaLR(optimizer or self.optimizer, share)
        return self.lr_scheduler

    def prediction_step(
        self, model: nn.Module, inputs: dict[str, Tensor], prediction_loss_only: bool, ignore_keys: Any = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the log loss, the logits and the labels of a batch."""
        model.eval()
        with torch.inference_mode():
            logits = logits_of(model, inputs["inputs"])
            logits[:, ROADWORK] += self._log_odds  # as it will serve
        return functional.cross_entropy(logits, inputs["labels"]), logits, inputs["labels"]


def probabilities_of(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the probabilities of roadwork for logits of shape (photos, classes)."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return np.asarray(shifted[:, 1] / shifted.sum(axis=1))


def validation(prediction: EvalPrediction) -> dict[str, float]:
    """Return a validation's figures, for the Trainer's log."""
    from sklearn.metrics import matthews_corrcoef

    labels, said = prediction.label_ids == 1, probabilities_of(prediction.predictions) > 0.5
    return {
        "accuracy": float((said == labels).mean()),
        "mcc": float(matthews_corrcoef(labels, said)),
        "reward": reward_of(labels, said),
    }


def train_step(model: nn.Module, pictures: Tensor, labels: Tensor, precision: str, look: Look) -> None:
    """Go forward and backward; `look` is called in between, where a step takes most memory."""
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        logits = logits_of(model, pictures)
    loss = functional.cross_entropy(logits, labels)
    look()
    loss.backward()


def measure_step(
    model: nn.Module,
    shape: tuple[int, ...],
    micro_batch: int,
    precision: str,
    look: Look = lambda: None,
    rounds: int = 2,
) -> float:
    """Return the seconds a photo takes forward and backward: the least of some rounds with made pictures.

    The network is left as it was, running statistics included. `look` is called where a step takes most memory.
    """
    set_training(model)
    buffers = {name: value.clone() for name, value in model.named_buffers()}
    best = float("inf")
    pictures, labels = torch.zeros((micro_batch, *shape)), torch.zeros(micro_batch, dtype=torch.int64)
    try:
        for _ in range(rounds):
            began = time.perf_counter()
            train_step(model, pictures, labels, precision, look)
            best = min(best, time.perf_counter() - began)
            model.zero_grad()
    finally:
        model.zero_grad()
        with torch.no_grad():
            for name, value in model.named_buffers():
                value.copy_(buffers[name])
    return best / micro_batch


def measure_forward(
    model: nn.Module, shape: tuple[int, ...], micro_batch: int, device: str, look: Look = lambda: None, rounds: int = 2
) -> float:
    """Return the seconds a photo takes forward alone: the least of some rounds with made pictures."""
    model.eval().to(device)
    best, pictures = float("inf"), torch.zeros((micro_batch, *shape))
    with torch.inference_mode():
        for _ in range(rounds):
            began = time.perf_counter()
            logits_of(model, pictures.to(device)).cpu()
            best = min(best, time.perf_counter() - began)
            look()
    return best / micro_batch


class AveragedNetwork(nn.Module):  # type: ignore[misc]
    """A network that answers as itself while it trains, and as the moving average of its weights otherwise.

    Args:
        model: learns.
        share: of the average that is kept at a step; less at first, or the random start would stay in it for long.
    """

    def __init__(self, model: nn.Module, share: float) -> None:
        super().__init__()

        def mixed(average: Tensor, current: Tensor, steps: Tensor | int) -> Tensor:
            if not average.is_floating_point():  # how many batches were seen
                return current
            count = float(steps)
            return average.lerp(current.to(average.dtype), 1 - min(share, count / (count + 9)))

        self.model = model
        self.average = AveragedModel(model, avg_fn=mixed, use_buffers=True).requires_grad_(False)
        self.average.n_averaged.fill_(1)  # at 0 the first step would replace the average

    def forward(self, inputs: Tensor) -> Any:
        """Return what the network or the average returns."""
        return self.model(inputs) if self.training else self.average(inputs)

    def load_state_dict(self, state_dict: Mapping[str, Any], *rest: Any, **options: Any) -> Any:
        """Load weights and average; checkpoints older than `AveragedModel` name the average's own weights directly."""
        if not any(name.startswith(AVERAGE_MODULE_PREFIX) for name in state_dict):
            old = re.compile("^" + re.escape(AVERAGE_PREFIX))
            state_dict = {old.sub(AVERAGE_MODULE_PREFIX, name): value for name, value in state_dict.items()}
            state_dict[AVERAGE_PREFIX + "n_averaged"] = self.average.n_averaged  # which `AverageUpdate` sets
        return super().load_state_dict(state_dict, *rest, **options)

    def update(self) -> None:
        """Take a step of the network in, running statistics included."""
        self.average.update_parameters(self.model)

    def settle(self) -> None:
        """Give the network the average's weights: the training is over."""
        self.model.load_state_dict(self.average.module.state_dict())


class AverageUpdate(TrainerCallback):  # type: ignore[misc]
    """Updates the average after every step."""

    def __init__(self, network: AveragedNetwork) -> None:
        self._network = network

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Count from the step that is resumed at, which an old checkpoint's average does not know."""
        self._network.average.n_averaged.fill_(state.global_step + 1)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Take the step in."""
        self._network.update()


def choose(job: Job, network: nn.Module, train: Any, shape: tuple[int, ...], photos: str, val: int) -> JobPlan:
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
    first = first_micro_batch(job.machine.available, config.batch_size, full=METHODS[config.method].whole)
    # Statistics of a few photos are no statistics: the whole batch, where it fits.
    start = config.micro_batch or (config.batch_size if learns_statistics(network) else first)
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
    everything = sum(value.numel() for name, value in network.named_parameters() if not name.startswith(AVERAGE_PREFIX))
    each = _each(seconds, loading, workers)
    total = config.most_epochs * each * (len(train) + FORWARD * val)
    # Gradients and AdamW's two moments come on top of what the trial has taken.
    peak = _peak() + 3 * FLOAT * learning
    screen.say(
        f"{learning / 1e6:.2f} of {everything / 1e6:.1f} million weights learn; micro-batch {micro_batch} of batch "
        f"{config.batch_size}, {precision}, {counted(workers, 'loader process', 'es')} ({loading * 1e3:.0f} ms to load "
        "a photo)"
    )
    screen.say(
        f"estimate: at most {duration(total)} for {config.most_epochs} epochs of {len(train)} photos, "
        f"about {peak / GB:.1f} GB"
    )
    return JobPlan(micro_batch, precision, workers, each, photos)


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
    first = first_micro_batch(job.machine.available, config.batch_size, full=False)
    start = config.micro_batch or (min(first, FORWARD_PHOTOS) if device == "cpu" else first)
    micro_batch, seconds = fitting(
        lambda size, look: measure_forward(network, shape, size, device, look), start, job.probe, screen
    )
    loading = _loading(wanted)
    workers = config.workers if config.workers is not None else loader_workers(job.machine.cores, loading, seconds)
    screen.say(
        f"a photo takes {seconds * 1e3:.0f} ms and {loading * 1e3:.0f} ms to load; micro-batch {micro_batch}, "
        f"{counted(workers, 'loader process', 'es')}"
    )
    total = len(wanted) * _each(seconds, loading, workers)
    peak = _peak() + 2 * FLOAT * head_of(network).in_features * len(wanted)  # in the cache, and in order
    screen.say(f"estimate: at most {duration(total)} for {len(wanted)} features, about {peak / GB:.1f} GB")
    return micro_batch, workers


def choose_for_head(job: Job, head: nn.Module, width: int, photos: str, views: int, train: int) -> JobPlan:
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
    return JobPlan(micro_batch, "fp32", 0, seconds, photos, views)


def _loading(examples: Any) -> float:
    """Return the seconds that one example takes to be loaded."""
    count = min(TIMED_EXAMPLES, len(examples))
    began = time.perf_counter()
    for number in range(count):
        examples[number]
    return (time.perf_counter() - began) / count


def _each(seconds: float, loading: float, workers: int) -> float:
    """Return the seconds from one photo to the next: loader processes work beside the network."""
    return max(seconds, loading / workers) if workers else seconds + loading


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0
