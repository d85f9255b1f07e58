"""`YOLOClassifier`: an Ultralytics classification network, from weights or from scratch, by Ultralytics' trainer."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.tensorboard import SummaryWriter

from detectors.errors import ModelError
from detectors.preprocess import Preprocessing, from_processor_config
from detectors.training.batching import MicroBatches, Pace, WeightedLoss
from detectors.training.config import TrainConfig
from detectors.training.dataset import DataSet
from detectors.training.examples import PixelExamples
from detectors.training.job import Chosen, Job, Outcome
from detectors.training.resources import ResourceLog
from detectors.training.schedule import class_weights
from detectors.training.stopping import Stopping
from detectors.training.trial import choose
from detectors.training.views import Views
from detectors.training.yolo_trainer import EXACT, RoadworkTrainer, ended_state

SIZES = {"tiny": "yolo11n-cls.pt", "small": "yolo11s-cls.pt", "base": "yolo11m-cls.pt"}
SIDE = 224  # pixels, of the validators' pictures
FOLDER, MODEL, TENSORBOARD, RESOURCES = "yolo", "model.pt", "tensorboard", "resources.csv"


def preprocessing() -> Preprocessing:
    """Return what Ultralytics does to a picture before a classifier sees it."""
    return from_processor_config({"image_processor_type": "UltralyticsClassify", "size": {"shortest_edge": SIDE}})


def train(job: Job, data: DataSet, photos: str, stopping: Stopping) -> Outcome:
    """Train and write `model.pt` into the run's folder.

    Args:
        job: what to do.
        data: the photos.
        photos: their sum.
        stopping: says when to end.

    Raises:
        ModelError: the network to start from can't be found or read.
    """
    weights = job.run / FOLDER / "weights"
    known = Chosen.read(job.run, photos) if job.resume else None
    state = ended_state(weights / EXACT) if known is not None else None
    if known is not None and state is not None:  # killed after its last epoch
        history, why = state["history"], state["why"]
        facts = _facts(state["micro_batch"], known.precision, known.workers)
    else:
        trainer = _trained(job, data, photos, stopping, known)
        history, why = trainer.history, trainer.why
        facts = _facts(trainer.micro_batch, trainer.precision, trainer.loader_processes)
    model = _strip(weights / "best.pt", job.run / MODEL)
    return Outcome(model, history, round(history[-1]["epoch"]), why, facts)


def _facts(micro_batch: int, precision: str, workers: int) -> dict[str, Any]:
    return {"micro-batch": micro_batch, "precision": precision, "loader processes": workers}


def _trained(job: Job, data: DataSet, photos: str, stopping: Stopping, known: Chosen | None) -> RoadworkTrainer:
    """Train, from where a killed run was."""
    config = job.config
    views = Views(config.augment, config.seed)
    examples = {
        name: PixelExamples(part, views, preprocessing(), plain=name != "train")
        for name, part in (("train", data.train), ("val", data.val))
    }
    labels = np.array([photo.label for photo in data.train], dtype=np.int64)
    weights = torch.tensor(class_weights(labels, balanced=config.class_weights))

    def decide(model: Any) -> tuple[MicroBatches, int, str]:
        shape = preprocessing().shape[1:]
        chosen = known or choose(job, model, examples["train"], shape, photos, len(data.val))
        chosen.write(job.run)
        return MicroBatches(chosen.micro_batch, job.probe, job.screen), chosen.workers, chosen.precision

    pace = Pace()
    steps = config.most_epochs * -(-len(data.train) // config.batch_size)
    with (
        stopping,
        job.screen.bar("training", steps) as bar,
        ResourceLog(job.run / RESOURCES, job.probe, job.screen, lambda: pace.waited),
    ):
        trainer = _make(
            job, examples, WeightedLoss(weights, config.label_smoothing), decide, pace, stopping,
            _Teller(job, bar, pace),
        )  # fmt: skip
        trainer.train()
    return trainer


def _make(
    job: Job,
    examples: dict[str, PixelExamples],
    loss: WeightedLoss,
    decide: Any,
    pace: Pace,
    stopping: Stopping,
    tell: Any,
) -> RoadworkTrainer:
    try:
        return RoadworkTrainer(
            _arguments(job.config, job.run),
            train=examples["train"], val=examples["val"], loss=loss, parts=decide, pace=pace,
            stop=lambda: stopping.reason, tell=tell, limit=job.config.save_total_limit, threads=job.threads,
        )  # fmt: skip
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelError(f"{job.config.model} can't be trained: {str(error).splitlines()[0]}") from error


def _arguments(config: TrainConfig, run: Path) -> dict[str, Any]:
    """Put the configuration into Ultralytics' words; its own changes of photos are off, since ours come first."""
    name = SIZES.get(config.model, config.model)
    local = Path(name).expanduser()
    return {
        "model": str(local.resolve()) if local.is_file() else name, "data": "photos", "imgsz": SIDE, "device": "cpu",
        "epochs": config.most_epochs, "batch": config.batch_size, "nbs": config.batch_size, "optimizer": "AdamW",
        "lr0": config.rate, "lrf": 0.01, "cos_lr": True, "weight_decay": config.weight_decay, "warmup_bias_lr": 0.0,
        "warmup_epochs": config.warm_up * config.most_epochs, "patience": config.patience, "seed": config.seed,
        "save_period": config.save_every, "project": str(run), "name": FOLDER, "exist_ok": True, "amp": False,
        "close_mosaic": 0, "plots": False, "verbose": False,
    }  # fmt: skip


class _Teller:
    """Tells the screen and TensorBoard."""

    def __init__(self, job: Job, bar: Any, pace: Pace) -> None:
        self._screen, self._bar, self._pace = job.screen, bar, pace
        self._writer = SummaryWriter(str(job.run / TENSORBOARD))
        self._told = 0
        self._steps = 0

    def __call__(self, trainer: RoadworkTrainer) -> None:
        """Move the bar; after an epoch, print its line."""
        if len(trainer.history) == self._told:
            done = trainer.epoch * len(trainer.train_loader)
            self._steps = max(self._steps + 1, done)
            loss = float(sum(trainer.tloss.values()))
            self._bar(self._steps, f"loss {loss:.3f}, accuracy {self._pace.accuracy:.0%}")
            return
        self._told = len(trainer.history)
        train, val = trainer.history[-2:]
        for entry in (train, val):
            for name in entry.keys() - {"epoch"}:
                self._writer.add_scalar(name, entry[name], int(entry["epoch"]))
        self._writer.flush()
        self._screen.say(
            f"epoch {train['epoch']:.0f} of {trainer.epochs}: loss {train['loss']:.3f}; validation: loss "
            f"{val['eval_loss']:.3f}, accuracy {val['eval_accuracy']:.1%}, expected reward {val['eval_reward']:.2f}"
        )


def _strip(best: Path, target: Path) -> Path:
    """Write the best weights without the optimiser's state."""
    from ultralytics.utils.torch_utils import strip_optimizer

    partial = target.with_name("partial.pt")
    strip_optimizer(best, partial)
    partial.replace(target)
    return target
