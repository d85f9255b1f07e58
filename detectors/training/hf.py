"""`ViT`: a Hugging Face image classifier trained by its head on cached features, by adapters, or in full."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from detectors.network import ViT
from detectors.training import checkpoints as keeping
from detectors.training import hf_model
from detectors.training.batching import MicroBatches, Pace, WeightedLoss
from detectors.training.budget import ResourceLog
from detectors.training.dataset import DataSet, FeatureExamples, PixelExamples, Views, collate
from detectors.training.features import RESOURCES, features_of
from detectors.training.job import Chosen, Job, Stopping, TrainingResult, class_weights, make_schedule, why_ended
from detectors.training.trainer import Averaged, Averaging, MicroBatchTrainer, choose, choose_for_head, validation

from transformers import PrinterCallback, TrainerState, TrainingArguments  # isort: skip
from contextlib import ExitStack

from detectors.console import Screen

from transformers import TrainerCallback, TrainerControl  # isort: skip


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


class FeatureHead(nn.Module):  # type: ignore[misc]
    """A linear layer on features that are brought to mean 0 and spread 1 first, so that one learning rate suits all."""

    def __init__(self, features: NDArray[np.float32]) -> None:
        super().__init__()
        flat = torch.from_numpy(features).flatten(0, 1)
        self.register_buffer("mean", flat.mean(0))
        self.register_buffer("spread", flat.std(0).clamp_min(1e-4))
        self.linear = nn.Linear(flat.shape[1], len(hf_model.LABELS))
        nn.init.zeros_(self.linear.weight)  # the problem is convex: no luck is needed
        nn.init.zeros_(self.linear.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Return logits."""
        logits: Tensor = self.linear((features - self.mean) / self.spread)
        return logits

    def fold_into(self, layer: nn.Linear) -> None:
        """Write the layer that gives the same logits from the features as they come."""
        with torch.no_grad():
            layer.weight.copy_(self.linear.weight / self.spread)
            layer.bias.copy_(self.linear.bias - layer.weight @ self.mean)


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
    views = Views(config.augment, config.seed)
    labels = np.array([photo.label for photo in data.train], dtype=np.int64)
    chosen = Chosen.read(job.run, photos) if job.resume else None
    examples: list[Any]
    if config.method == "head":
        known = chosen.views if chosen is not None else None
        arrays, count = features_of(job, model, preprocessing, data, stopping, config.views if known is None else known)
        network: nn.Module = FeatureHead(arrays[0])
        examples = [
            FeatureExamples(array, np.array([photo.label for photo in part], dtype=np.int64))
            for array, part in zip(arrays, (data.train, data.val), strict=False)
        ]
        chosen = chosen or choose_for_head(job, network, arrays[0].shape[2], photos, count, len(data.train))
    else:
        network = model
        if config.method == "lora":
            network = hf_model.with_adapters(model, config.lora_rank, config.seed)
        elif config.average:
            network = Averaged(model)
        examples = [
            PixelExamples(part, views, preprocessing, plain=part is not data.train) for part in (data.train, data.val)
        ]
        chosen = chosen or choose(job, network, examples[0], preprocessing.shape[1:], photos, len(data.val))
    chosen.write(job.run)
    outcome = _fit(job, network, examples, labels, chosen, stopping)
    if isinstance(network, FeatureHead):
        network.fold_into(hf_model.head_of(model))
    if isinstance(network, Averaged):
        network.settle()
    hf_model.save(network if config.method == "lora" else model, source, job.run / MODEL)
    return outcome


def _fit(
    job: Job, network: nn.Module, examples: Sequence[Any], labels: NDArray[np.int64], chosen: Chosen, stopping: Stopping
) -> TrainingResult:
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
        trainer.add_callback(Averaging(network, config.average))
    keeper.trainer = trainer
    # A head has no photos to wait for.
    waiting = (lambda: 0.0) if config.method == "head" else (lambda: pace.waited)
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
