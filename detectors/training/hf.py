"""The training of a Hugging Face image classifier (`ViT`), by the method that is chosen.

With its progress, and what a run keeps: checkpoints that are whole, the best weights, and when it is time to stop.
"""

import shutil
import time
from collections.abc import Sequence
from contextlib import ExitStack
from math import inf
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from detectors.console import Screen
from detectors.files import flush, settle, writing_tensors
from detectors.network import ViT
from detectors.registry import method_class
from detectors.training import hf_model
from detectors.training.batching import MicroBatches, Pace, WeightedLoss, make_loss
from detectors.training.budget import ResourceLog
from detectors.training.dataset import DataSet, collate
from detectors.training.job import (
    ALL_EPOCHS,
    RESOURCES_FILE,
    Job,
    JobPlan,
    Schedule,
    StopSignal,
    TrainingResult,
    make_schedule,
    scores_of,
    since_best,
    superfluous,
    why_ended,
)  # fmt: skip
from detectors.training.methods import MethodInputs, TrainingMethod
from detectors.training.progress import HistoryFile
from detectors.training.trainer import (
    AVERAGE_PREFIX,
    BUFFERS,
    AveragedNetwork,
    AverageUpdate,
    MicroBatchTrainer,
    validation,
)

from transformers import (  # isort: skip  # after `hf_model`, which mends torchvision
    PrinterCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

COMPLETE_FILE = "complete"  # written last into a checkpoint: without it, it was being written when the run was killed
MICRO_BATCH = "micro_batch"
BEST_FILE = "best.safetensors"


def trained(model: nn.Module) -> dict[str, Tensor]:
    """Return what training changes: weights that learn, their average, and running statistics."""
    parameters = model.named_parameters()
    frozen = {name for name, value in parameters if not value.requires_grad and not name.startswith(AVERAGE_PREFIX)}
    state = model.state_dict().items()
    return {name: value.detach().clone().contiguous() for name, value in state if name not in frozen}


def running_statistics(model: nn.Module) -> dict[str, Tensor]:
    """Return what a network remembers of its batches, which checkpoints of adapters leave out."""
    parameters = dict(model.named_parameters())
    return {name: value.detach().clone() for name, value in model.state_dict().items() if name not in parameters}


def load_best(model: nn.Module, run: Path) -> None:
    """Give the network the weights that were kept."""
    model.load_state_dict(load_file(run / BEST_FILE), strict=False)


def latest(checkpoints: Path) -> Path | None:
    """Return the latest whole checkpoint, and remove those that are not."""
    found = []
    for path in checkpoints.glob("checkpoint-*"):
        if (path / COMPLETE_FILE).is_file():
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
        stopping: StopSignal,
        *,
        every: int,
        limit: int,
        minutes: float,
        patience: float,
        validate_every: int = 1,
    ) -> None:
        self._run, self._schedule, self._parts, self._stopping = run, schedule, parts, stopping
        self._every, self._limit, self._patience = every, limit, patience
        self._interval, self._validate_every = minutes * 60, validate_every
        self._saved = time.monotonic()
        self.trainer: MicroBatchTrainer | None = None
        self.why = ALL_EPOCHS

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

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Leave the validation out of an epoch that has none, unless it is the last."""
        is_last = control.should_training_stop or state.global_step >= self._schedule.total
        if not is_last and state.global_step // self._schedule.epoch % self._validate_every:
            control.should_evaluate = False

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: nn.Module, **_: Any
    ) -> None:
        """Keep the weights that are the best so far, or any where the last ones are taken; stop after long without."""
        if self._patience == inf or since_best(scores_of(state.log_history)) == 0:
            partial = self._run / (BEST_FILE + ".partial")
            with writing_tensors(partial):
                save_file(trained(model), partial)
            settle(partial, self._run / BEST_FILE)
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
        (folder / COMPLETE_FILE).touch()
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


CHECKPOINTS, TENSORBOARD, MODEL = "checkpoints", "tensorboard", "model"


class Progress(TrainerCallback):  # type: ignore[misc]
    """A bar over all steps with loss and accuracy, a line for each epoch, and the log for who watches."""

    def __init__(self, screen: Screen, pace: Pace, history: HistoryFile) -> None:
        self._screen, self._pace, self._history = screen, pace, history
        self._stack = ExitStack()
        self._loss: float | None = None
        self._update: Any = None

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Open the bar."""
        if state.global_step:
            self._screen.say(f"resuming at step {state.global_step} of {state.max_steps}")
        self._update = self._stack.enter_context(self._screen.bar("training", state.max_steps, state.global_step))

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Move the bar."""
        self._update(state.global_step, str(self._pace), what="training")

    def on_prediction_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Say that the epoch is judged: no step is done meanwhile."""
        self._update(state.global_step, what="validating")

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: dict[str, float], **_: Any
    ) -> None:
        """Take the loss for the epoch's line."""
        self._loss = logs.get("loss", self._loss)
        self._history.write(state.log_history)

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, metrics: dict[str, float], **_: Any
    ) -> None:
        """Print the epoch's line."""
        loss = self._loss if self._loss is not None else self._pace.loss
        learning = "" if loss is None else f"loss {loss:.3f}; "
        self._screen.say(
            f"epoch {round(state.epoch or 0)} of {args.num_train_epochs:.0f}: {learning}validation: "
            f"loss {metrics['eval_loss']:.3f}, accuracy {metrics['eval_accuracy']:.1%}, "
            f"expected reward {metrics['eval_reward']:.2f}"
        )

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Close the bar."""
        self._stack.close()


def train(job: Job, data: DataSet, photos: str, stopping: StopSignal) -> TrainingResult:
    """Train and write `model/` into the run's folder.

    Args:
        job: what to do.
        data: the photos.
        photos: their sum.
        stopping: says when to end.

    Raises:
        ModelError: the model to start from can't be found or loaded.
        StoppedEarly: it has to end before there are features of every photo.
    """
    config = job.config
    source = hf_model.find_folder(config, job.cache).path
    if not hf_model.has_weights(source):
        job.screen.warn(f"{source} holds no weights: starting from random ones")
    preprocessing = ViT.read_preprocessing(source)
    model = hf_model.load(source, config.seed)
    chosen = JobPlan.read(job.run, photos) if job.resume else None
    rate = config.rate(convolutional=hf_model.is_convolutional(model))
    method = method_class(config.method)()
    start = MethodInputs(job, model, preprocessing, data, photos, stopping, chosen)
    network, examples, chosen = method.prepare(start)
    chosen.write(job.run)
    loss = make_loss(data.wanted, config)
    outcome = _fit(job, method, network, examples, loss, chosen, stopping, rate)
    finished = method.finish(network, model)
    hf_model.set_prior(finished, config.prior)
    hf_model.save(finished, source, job.run / MODEL)
    if (head := method.head(finished, config)) is not None:
        head.write(job.run / MODEL)
    return outcome


def _fit(
    job: Job, method: TrainingMethod, network: nn.Module, examples: Sequence[Any], loss: WeightedLoss,
    chosen: JobPlan, stopping: StopSignal, rate: float,
) -> TrainingResult:  # fmt: skip
    """Train, and take the best epoch's weights, or a head's last ones."""
    config, checkpoints = job.config, job.run / CHECKPOINTS
    train, val = examples
    schedule = make_schedule(len(train), config.batch_size, config.most_epochs, config.warm_up)
    checkpoint = latest(checkpoints) if job.resume else None
    size = micro_batch_of(checkpoint) if checkpoint is not None else chosen.micro_batch
    parts, pace = MicroBatches(size, job.probe, job.screen), Pace()
    job.screen.say(f"learning rate {rate:g}")
    keeper = Keeper(
        job.run, schedule, parts, stopping, every=config.save_every, limit=config.save_total_limit,
        minutes=config.checkpoint_minutes, patience=config.most_waited, validate_every=config.validate_every,
    )  # fmt: skip
    arguments = TrainingArguments(
        output_dir=str(checkpoints), logging_dir=str(job.run / TENSORBOARD), report_to=["tensorboard"],
        per_device_train_batch_size=config.batch_size, per_device_eval_batch_size=size,
        num_train_epochs=config.most_epochs, learning_rate=rate, weight_decay=config.weight_decay,
        lr_scheduler_type="cosine", warmup_steps=schedule.warm_up, logging_steps=schedule.logging,
        eval_strategy="epoch", save_strategy="epoch", seed=config.seed, use_cpu=True,
        dataloader_num_workers=chosen.workers, dataloader_pin_memory=False, remove_unused_columns=False,
        label_names=["labels"], disable_tqdm=True, log_level="error",
    )  # fmt: skip
    trainer = MicroBatchTrainer(
        network, arguments, collate, train_dataset=train, eval_dataset=val, compute_metrics=validation,
        callbacks=[keeper, Progress(job.screen, pace, HistoryFile(job.run))], pace=pace, parts=parts, seed=config.seed,
        precision=chosen.precision, loss=loss, prior=config.prior,
    )  # fmt: skip
    trainer.remove_callback(PrinterCallback)
    if isinstance(network, AveragedNetwork):
        trainer.add_callback(AverageUpdate(network))
    keeper.trainer = trainer
    waiting = (lambda: pace.waited) if method.loads_photos else (lambda: 0.0)
    why = None
    if checkpoint is not None:
        state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
        why = why_ended(state.log_history, state.global_step, schedule, config.most_waited)
    if why is not None:  # killed after its last epoch
        trainer.state = state
    else:
        log = ResourceLog(job.run / RESOURCES_FILE, job.probe, job.screen, waiting)
        with stopping, log, writing_tensors(checkpoints):
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint is not None else None)
        why = keeper.why
    load_best(network, job.run)
    facts = {
        "learning rate": f"{rate:g}",
        "micro-batch": parts.size,
        "precision": chosen.precision,
        "loader processes": chosen.workers,
    }
    epochs = round(trainer.state.global_step / schedule.epoch)
    history = [line for line in trainer.state.log_history if "train_runtime" not in line]  # which differs each time
    return TrainingResult(Path(job.run / MODEL), history, epochs, why, facts)
