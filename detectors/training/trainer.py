"""The training loop: transformers' Trainer, with micro-batches that shrink instead of dying.

The Trainer gives the cosine schedule, checkpoints with optimiser, random state and position in the data, and
TensorBoard. Its `auto_find_batch_size` starts again from nothing with a smaller batch, which is another training;
here the optimiser's batch stays as asked, and only the part of it that is in memory at once is halved.
"""

import gc
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from detectors.console import Screen
from detectors.evaluation.estimates import reward_of
from detectors.training.batching import MicroBatches, Pace, WeightedLoss, gradients
from detectors.training.budget import Probe, fewer, is_out_of_memory
from detectors.training.examples import EpochSampler
from detectors.training.hf_model import logits_of

from transformers import EvalPrediction, Trainer  # isort: skip  # after `classifier`, which mends torchvision


BUFFERS = "buffers.safetensors"  # running statistics, beside adapters


class MicroBatchTrainer(Trainer):  # type: ignore[misc]
    """Trains on whole batches, in parts that fit into memory; their gradients add up to the batch's own."""

    def __init__(
        self, *arguments: Any, loss: WeightedLoss, seed: int, parts: MicroBatches, pace: Pace, **rest: Any
    ) -> None:
        super().__init__(*arguments, **rest)
        self._loss, self._parts, self.pace = loss, parts, pace
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
        model.train()
        pictures, labels = inputs["inputs"], inputs["labels"]
        loss = gradients(
            model, lambda part: logits_of(model, pictures[part]), labels, self._loss, self._parts, self.pace,
            self.accelerator.backward,
        )  # fmt: skip
        self.args.per_device_eval_batch_size = self._parts.size
        return loss

    def prediction_step(
        self, model: nn.Module, inputs: dict[str, Tensor], prediction_loss_only: bool, ignore_keys: Any = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the log loss, the logits and the labels of a batch."""
        model.eval()
        with torch.inference_mode():
            logits = logits_of(model, inputs["inputs"])
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


Look = Callable[[], None]  # at the memory, in the middle of a step


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
    model.train()
    buffers = {name: value.clone() for name, value in model.named_buffers()}
    best = float("inf")
    pictures, labels = torch.zeros((micro_batch, *shape)), torch.zeros(micro_batch, dtype=torch.int64)
    try:
        for _ in range(rounds):
            began = time.perf_counter()
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                logits = logits_of(model, pictures)
            loss = functional.cross_entropy(logits, labels)
            look()
            loss.backward()
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


def fitting(measure: Callable[[int, Look], float], micro_batch: int, probe: Probe, screen: Screen) -> tuple[int, float]:
    """Try a micro-batch and halve it until a step succeeds and leaves memory free; return it and seconds a photo.

    One and two photos are tried before: what the second adds tells of more, and in a cgroup that kills, where no
    allocation fails, trying too many would be the end.
    """
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
