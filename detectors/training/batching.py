"""Micro-batches: parts of a batch that fit into memory; their gradients add up to the batch's own."""

import gc
import time
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from detectors.console import Screen
from detectors.training.budget import Probe, fewer, is_out_of_memory
from detectors.training.config import EVEN, TrainConfig
from detectors.training.job import class_weights

PROBE_SECONDS = 0.5  # between two looks at the memory


class MicroBatches:
    """Photos in memory at once: halved, instead of dying, when an allocation fails or memory is nearly full."""

    def __init__(self, size: int, probe: Probe, screen: Screen, clock: Callable[[], float] = time.monotonic) -> None:
        self.size = size
        self._probe, self._screen, self._clock = probe, screen, clock
        self._look_at = self._forecast_at = clock()
        self._peak: float | None = None  # bytes of this process where a part of this size takes most

    def over(self, count: int, work: Callable[[slice], None], undo: Callable[[], None]) -> None:
        """Do the work part by part; where memory runs out, undo what was done and begin again with smaller parts."""
        while True:
            start = end = 0
            try:
                while start < count:
                    self._forecast()
                    end = min(start + self.size, count)
                    work(slice(start, end))
                    start = end
                return
            except (MemoryError, RuntimeError, OSError) as error:
                if max(self.size, end - start) == 1 or not is_out_of_memory(error):
                    raise
            # Outside of `except`, whose traceback would hold what is to be freed.
            undo()
            if self.size >= end - start:  # otherwise a look has just halved it
                self._shrink(self.size // 2, "an allocation failed")

    def look(self) -> None:
        """Look at the memory now and then, and make parts smaller from the next one on where it is short.

        To be called where a part takes most, between its way forward and its way back: a moment later all of it is
        free again, and in a cgroup no allocation fails before the kernel kills.
        """
        if self.size > 1 and self._clock() >= self._look_at:
            self._look_at = self._clock() + PROBE_SECONDS
            reading = self._probe()
            self._peak = max(self._peak or 0.0, reading.resident)
            if reading.is_short:
                self._shrink(self.size // 2, "memory is nearly full")

    def _forecast(self) -> None:
        """Look ahead as well: a limit that was lowered kills before the next part is where it takes most."""
        if self.size > 1 and self._peak is not None and self._clock() >= self._forecast_at:
            self._forecast_at = self._clock() + PROBE_SECONDS
            reading = self._probe()
            size = fewer(self.size, self._peak - reading.resident, reading)
            if size < self.size:
                self._shrink(size, "memory would not suffice")

    def _shrink(self, size: int, reason: str) -> None:
        self.size, self._peak = max(1, size), None
        self._look_at = self._clock()  # at the first of the smaller parts
        gc.collect()
        self._screen.warn(f"{reason}: micro-batch {self.size} from here on")


class Pace:
    """What the screen and the advice tell of: recent accuracy, and time spent waiting for photos."""

    def __init__(self) -> None:
        self.accuracy = 0.0
        self.loss: float | None = None  # of the last batches; None before the first
        self.waited = 0.0  # seconds, summed
        self._idle_since: float | None = None

    def idle(self) -> None:
        """Note that the next batch is awaited from now on."""
        self._idle_since = time.monotonic()

    def busy(self) -> None:
        """Note that it is there."""
        if self._idle_since is not None:
            self.waited += time.monotonic() - self._idle_since

    def saw(self, right: int, count: int, loss: float) -> None:
        """Take in how many photos of a batch were right, and its loss."""
        self.accuracy = 0.9 * self.accuracy + 0.1 * right / count if self.accuracy else right / count
        self.loss = loss if self.loss is None else 0.9 * self.loss + 0.1 * loss

    def __str__(self) -> str:
        """Return both in words; nothing before the first batch."""
        return "" if self.loss is None else f"loss {self.loss:.3f}, accuracy {self.accuracy:.0%}"


class WeightedLoss:
    """Cross entropy with weights of the classes and smoothed labels; parts of a batch add up to its mean."""

    def __init__(self, weights: Tensor, smoothing: float) -> None:
        self._weights, self._smoothing = weights, smoothing

    def share(self, logits: Tensor, labels: Tensor, whole: Tensor) -> Tensor:
        """Return what a part adds to the mean over the whole batch, whose labels are `whole`."""
        loss: Tensor = functional.cross_entropy(
            logits, labels, self._weights, reduction="sum", label_smoothing=self._smoothing
        )
        return loss / self._weights[whole].sum()


class TargetLoss(WeightedLoss):
    """Cross entropy with the probability of roadwork that each photo should get, such as a teacher's.

    A photo weighs as its classes do, by their shares, and its own best answer stays its target. Weights within the sum
    over classes would move that: an unsure teacher's .5 to .8 where roadwork is rare.
    """

    def share(self, logits: Tensor, labels: Tensor, whole: Tensor) -> Tensor:
        """Return what a part adds to the mean over the whole batch, whose targets are `whole`."""
        each: Tensor = functional.cross_entropy(logits, _both(labels), reduction="none")
        return (each * (_both(labels) @ self._weights)).sum() / (_both(whole) @ self._weights).sum()


def _both(targets: Tensor) -> Tensor:
    return torch.stack([1 - targets, targets], dim=1)


def make_loss(wanted: NDArray[np.int64] | NDArray[np.float32], config: TrainConfig) -> WeightedLoss:
    """Return the loss for labels, or for targets where photos should get probabilities.

    Classes are balanced as they are learnt from: some photos without roadwork get works drawn into them.
    """
    learnt = np.where(wanted < EVEN, wanted + config.augment.works * (1 - wanted), wanted)
    weights = torch.tensor(class_weights(learnt, balanced=config.class_weights))
    kind = TargetLoss if np.issubdtype(wanted.dtype, np.floating) else WeightedLoss
    return kind(weights, config.smoothing)


def gradients(
    model: nn.Module,
    logits: Callable[[slice], Tensor],
    labels: Tensor,
    loss: WeightedLoss,
    parts: MicroBatches,
    pace: Pace,
    backward: Callable[[Tensor], None],
) -> Tensor:
    """Add a batch's gradients up, in parts; return its loss, which holds no graph any more."""
    shares: list[Tensor] = []
    right: list[int] = []

    def work(part: slice) -> None:
        scores = logits(part)
        share = loss.share(scores, labels[part], labels)
        parts.look()
        backward(share)
        shares.append(share.detach())
        right.append(int((scores.argmax(1) == (labels[part] > 0.5)).sum()))

    def undo() -> None:
        model.zero_grad()
        shares.clear()
        right.clear()

    parts.over(len(labels), work, undo)
    total: Tensor = sum(shares[1:], shares[0])
    pace.saw(sum(right), len(labels), float(total))
    return total
