"""`YOLOClassifier`: an Ultralytics classification network, from weights or from scratch, by Ultralytics' trainer."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.tensorboard import SummaryWriter

from detectors.errors import ModelError
from detectors.exporters.yolo import load_yolo
from detectors.preprocess import Preprocessing, from_processor_config
from detectors.training.config import TrainConfig
from detectors.training.examples import PixelExamples
from detectors.training.folder import DataSet
from detectors.training.job import Chosen, Job, Outcome
from detectors.training.micro import MicroBatches, Pace, WeightedLoss
from detectors.training.resources import ResourceLog
from detectors.training.schedule import class_weights
from detectors.training.stopping import Stopping
from detectors.training.trial import choose
from detectors.training.views import Views
from detectors.training.yolo_trainer import RoadworkTrainer

SIZES = {"tiny": "yolo11n-cls.pt", "small": "yolo11s-cls.pt", "base": "yolo11m-cls.pt"}
SIDE = 224  # pixels, of the validators' pictures
FOLDER, MODEL, TENSORBOARD, RESOURCES = "yolo", "model.pt", "tensorboard", "resources.csv"


def preprocessing() -> Preprocessing:
    """Return what Ultralytics does to a picture before a classifier sees it."""
    return from_processor_config({"image_processor_type": "UltralyticsClassify", "size": {"shortest_edge": SIDE}})


def train(job: Job, data: DataSet, photos: str) -> Outcome:
    """Train and write `model.pt` into the run's folder.

    Args:
        job: what to do.
        data: the photos.
        photos: their sum.

    Raises:
        ModelError: the network to start from can't be found or read.
    """
    config = job.config
    views = Views(config.augment, config.seed)
    examples = {
        name: PixelExamples(part, views, preprocessing(), plain=name != "train")
        for name, part in (("train", data.train), ("val", data.val), ("test", data.test))
    }
    labels = np.array([photo.label for photo in data.train], dtype=np.int64)
    weights = torch.tensor(class_weights(labels, balanced=config.class_weights))
    known = Chosen.read(job.run, photos) if job.resume else None

    def decide(model: Any) -> tuple[MicroBatches, int, str]:
        shape = preprocessing().shape[1:]
        chosen = known or choose(job, model, examples["train"], shape, photos, len(data.val))
        chosen.write(job.run)
        return MicroBatches(chosen.micro_batch, job.probe, job.screen), chosen.workers, chosen.precision

    pace, stopping = Pace(), Stopping(config.max_hours, job.screen)
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
    model = _strip(trainer.best, job.run / MODEL)
    judged = [_probabilities(model, examples[name]) for name in ("val", "test")]
    epochs = round(trainer.history[-1]["epoch"])
    facts = {"micro-batch": trainer._parts.size, "precision": trainer.precision, "loader processes": trainer.workers}
    return Outcome(model, trainer.history, judged[0], judged[1], epochs, trainer.why, facts)


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


def _probabilities(model: Path, examples: PixelExamples) -> NDArray[np.float64]:
    network = load_yolo(model).model.float().eval()
    said: list[float] = []
    with torch.inference_mode():
        for number in range(len(examples)):
            output = network(examples[number]["inputs"][None])
            said.append(float((output[0] if isinstance(output, Sequence) else output)[0, 1]))
    return np.array(said)
