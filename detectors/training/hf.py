"""The training of a Hugging Face image classifier (`ViT`), by the method that is chosen, with its progress."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from detectors.console import Screen
from detectors.network import ViT
from detectors.registry import method_class
from detectors.training import checkpoints as keeping
from detectors.training import hf_model
from detectors.training.batching import MicroBatches, Pace, WeightedLoss
from detectors.training.budget import ResourceLog
from detectors.training.dataset import DataSet, collate
from detectors.training.features import RESOURCES
from detectors.training.job import Chosen, Job, Stopping, TrainingResult, class_weights, make_schedule, why_ended
from detectors.training.methods import Start, TrainingMethod
from detectors.training.trainer import Averaged, Averaging, MicroBatchTrainer, validation

from transformers import (  # isort: skip  # after `hf_model`, which mends torchvision
    PrinterCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

CHECKPOINTS, TENSORBOARD, MODEL = "checkpoints", "tensorboard", "model"


class Progress(TrainerCallback):  # type: ignore[misc]
    """A bar over all steps with loss and accuracy, and a line for each epoch."""

    def __init__(self, screen: Screen, pace: Pace) -> None:
        self._screen, self._pace = screen, pace
        self._stack = ExitStack()
        self._loss = float("nan")
        self._update: Any = None

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Open the bar."""
        if state.global_step:
            self._screen.say(f"resuming at step {state.global_step} of {state.max_steps}")
        self._update = self._stack.enter_context(self._screen.bar("training", state.max_steps))

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Move the bar."""
        words = f"loss {self._loss:.3f}, accuracy {self._pace.accuracy:.0%}"
        self._update(state.global_step, words)

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: dict[str, float], **_: Any
    ) -> None:
        """Take the loss for the bar."""
        self._loss = logs.get("loss", self._loss)

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, metrics: dict[str, float], **_: Any
    ) -> None:
        """Print the epoch's line."""
        self._screen.say(
            f"epoch {round(state.epoch or 0)} of {args.num_train_epochs:.0f}: loss {self._loss:.3f}; validation: "
            f"loss {metrics['eval_loss']:.3f}, accuracy {metrics['eval_accuracy']:.1%}, "
            f"expected reward {metrics['eval_reward']:.2f}"
        )

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Close the bar."""
        self._stack.close()


def train(job: Job, data: DataSet, photos: str, stopping: Stopping) -> TrainingResult:
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
    source = hf_model.find_folder(config).path
    if not hf_model.has_weights(source):
        job.screen.warn(f"{source} holds no weights: starting from random ones")
    preprocessing = ViT.read_preprocessing(source)
    model = hf_model.load(source, config.seed)
    labels = np.array([photo.label for photo in data.train], dtype=np.int64)
    chosen = Chosen.read(job.run, photos) if job.resume else None
    method = method_class(config.method)()
    start = Start(job, model, preprocessing, data, photos, stopping, chosen)
    network, examples, chosen = method.prepare(start)
    chosen.write(job.run)
    outcome = _fit(job, method, network, examples, labels, chosen, stopping)
    hf_model.save(method.finish(network, model), source, job.run / MODEL)
    return outcome


def _fit(
    job: Job, method: TrainingMethod, network: nn.Module, examples: Sequence[Any], labels: NDArray[np.int64],
    chosen: Chosen, stopping: Stopping,
) -> TrainingResult:  # fmt: skip
    """Train, and take the best epoch's weights."""
    config, checkpoints = job.config, job.run / CHECKPOINTS
    train, val = examples
    schedule = make_schedule(len(train), config.batch_size, config.most_epochs, config.warm_up)
    checkpoint = keeping.latest(checkpoints) if job.resume else None
    size = keeping.micro_batch_of(checkpoint) if checkpoint is not None else chosen.micro_batch
    parts, pace = MicroBatches(size, job.probe, job.screen), Pace()
    keeper = keeping.Keeper(
        job.run, schedule, parts, stopping, every=config.save_every, limit=config.save_total_limit,
        minutes=config.checkpoint_minutes, patience=config.patience,
    )  # fmt: skip
    arguments = TrainingArguments(
        output_dir=str(checkpoints), logging_dir=str(job.run / TENSORBOARD), report_to=["tensorboard"],
        per_device_train_batch_size=config.batch_size, per_device_eval_batch_size=size,
        num_train_epochs=config.most_epochs, learning_rate=config.rate, weight_decay=config.weight_decay,
        lr_scheduler_type="cosine", warmup_steps=schedule.warm_up, logging_steps=schedule.logging,
        eval_strategy="epoch", save_strategy="epoch", seed=config.seed, use_cpu=True, bf16=chosen.precision == "bf16",
        dataloader_num_workers=chosen.workers, dataloader_pin_memory=False, remove_unused_columns=False,
        label_names=["labels"], disable_tqdm=True, log_level="error",
    )  # fmt: skip
    weights = class_weights(labels, balanced=config.class_weights)
    trainer = MicroBatchTrainer(
        network, arguments, collate, train_dataset=train, eval_dataset=val, compute_metrics=validation,
        callbacks=[keeper, Progress(job.screen, pace)], pace=pace, parts=parts, seed=config.seed,
        loss=WeightedLoss(torch.tensor(weights), config.label_smoothing),
    )  # fmt: skip
    trainer.remove_callback(PrinterCallback)
    if isinstance(network, Averaged):
        trainer.add_callback(Averaging(network))
    keeper.trainer = trainer
    waiting = (lambda: pace.waited) if method.loads_photos else (lambda: 0.0)
    why = None
    if checkpoint is not None:
        state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
        why = why_ended(state.log_history, state.global_step, schedule, config.patience)
    if why is not None:  # killed after its last epoch
        trainer.state = state
    else:
        with stopping, ResourceLog(job.run / RESOURCES, job.probe, job.screen, waiting):
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint is not None else None)
        why = keeper.why
    keeping.load_best(network, job.run)
    facts = {"micro-batch": size, "precision": chosen.precision, "loader processes": chosen.workers}
    epochs = round(trainer.state.global_step / schedule.epoch)
    history = [line for line in trainer.state.log_history if "train_runtime" not in line]  # which differs each time
    return TrainingResult(Path(job.run / MODEL), history, epochs, why, facts)
