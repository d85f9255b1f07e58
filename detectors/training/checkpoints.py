"""What a run keeps while it goes on: checkpoints that are whole, the best weights, and when it is time to stop."""

import shutil
import time
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from detectors.files import flush
from detectors.training.batching import MicroBatches
from detectors.training.job import ALL_DONE, Schedule, Stopping, scores_of, since_best, superfluous, why_ended
from detectors.training.trainer import AVERAGE, BUFFERS, MicroBatchTrainer

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments  # isort: skip

COMPLETE = "complete"  # written last into a checkpoint: without it, it was being written when the run was killed
MICRO_BATCH = "micro_batch"
BEST = "best.safetensors"


def trained(model: nn.Module) -> dict[str, Tensor]:
    """Return what training changes: weights that learn, their average, and running statistics."""
    parameters = model.named_parameters()
    frozen = {name for name, value in parameters if not value.requires_grad and not name.startswith(AVERAGE)}
    state = model.state_dict().items()
    return {name: value.detach().clone().contiguous() for name, value in state if name not in frozen}


def running_statistics(model: nn.Module) -> dict[str, Tensor]:
    """Return what a network remembers of its batches, which checkpoints of adapters leave out."""
    parameters = dict(model.named_parameters())
    return {name: value.detach().clone() for name, value in model.state_dict().items() if name not in parameters}


def load_best(model: nn.Module, run: Path) -> None:
    """Give the network the weights of its best epoch."""
    model.load_state_dict(load_file(run / BEST), strict=False)


def latest(checkpoints: Path) -> Path | None:
    """Return the latest whole checkpoint, and remove those that are not."""
    found = []
    for path in checkpoints.glob("checkpoint-*"):
        if (path / COMPLETE).is_file():
            found.append(path)
        else:
            shutil.rmtree(path)
    return max(found, key=_step, default=None)


def micro_batch_of(checkpoint: Path) -> int:
    """Return the micro-batch that a run had come down to."""
    return int((checkpoint / MICRO_BATCH).read_text(encoding="ascii"))


class Keeper(TrainerCallback):  # type: ignore[misc]
    """Saves and stops; every decision follows from the Trainer's own log, so that a resumed run decides the same."""

    def __init__(
        self,
        run: Path,
        schedule: Schedule,
        parts: MicroBatches,
        stopping: Stopping,
        *,
        every: int,
        limit: int,
        minutes: float,
        patience: int,
    ) -> None:
        self._run, self._schedule, self._parts, self._stopping = run, schedule, parts, stopping
        self._every, self._limit, self._patience = every, limit, patience
        self._interval = minutes * 60
        self._saved = time.monotonic()
        self.trainer: MicroBatchTrainer | None = None
        self.why = ALL_DONE

    def on_epoch_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Tell the sampler which epoch it is, also after a resume."""
        assert self.trainer is not None
        self.trainer.sampler.set_epoch(state.global_step // self._schedule.epoch)
        self.trainer.pace.idle()  # what came between was a validation, not a wait for photos

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Save after so many minutes; stop when time is over or a signal came."""
        assert self.trainer is not None
        self.trainer.pace.idle()
        reason = self._stopping.reason
        if reason is not None:
            self.why = reason
            control.should_training_stop = True  # the Trainer then validates and saves, as at the end of an epoch
        elif time.monotonic() - self._saved > self._interval and state.global_step % self._schedule.epoch:
            # Logged as well: a resumed run begins a new mean of losses here, and so does this one.
            control.should_save = control.should_log = True

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: nn.Module, **_: Any
    ) -> None:
        """Keep the weights if they are the best so far; stop when they have not been for long."""
        waited = since_best(scores_of(state.log_history))
        if waited == 0:
            partial = self._run / (BEST + ".partial")
            try:
                save_file(trained(model), partial)
            except SafetensorError as error:  # a full disk, in words of its own
                raise OSError(f"{partial} can't be written: {error}") from error
            flush(partial)
            partial.replace(self._run / BEST)
        ended = why_ended(state.log_history, state.global_step, self._schedule, self._patience)
        if ended is not None:
            self.why, control.should_training_stop = ended, True

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: nn.Module, **_: Any
    ) -> None:
        """Declare a checkpoint whole, then remove those that are not needed any more."""
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        (folder / MICRO_BATCH).write_text(str(self._parts.size), encoding="ascii")
        statistics = running_statistics(model)
        if hasattr(model, "peft_config") and statistics:
            save_file(statistics, folder / BUFFERS)
        for path in folder.iterdir():
            flush(path)
        (folder / COMPLETE).touch()
        for path in (folder, folder.parent):  # their lists of names, before the older checkpoints go
            flush(path)
        there = {_step(path): path for path in folder.parent.glob("checkpoint-*")}
        for step in superfluous(list(there), self._schedule.epoch, self._every, self._limit):
            shutil.rmtree(there[step])
        self._saved = time.monotonic()
        assert self.trainer is not None
        self.trainer.pace.idle()


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])
