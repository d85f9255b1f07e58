"""Ultralytics classification networks, from weights or from scratch, by Ultralytics' own trainer."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.tensorboard import SummaryWriter

from detectors.backends.torch import import_yolo
from detectors.errors import ModelError
from detectors.evaluation.estimates import reward_of
from detectors.files import settle
from detectors.photos.labelled import CLASSES
from detectors.preprocess import Preprocessing, from_processor_config
from detectors.training.batching import MicroBatches, Pace, WeightedLoss, gradients, make_loss
from detectors.training.budget import ResourceLog
from detectors.training.config import TrainConfig
from detectors.training.dataset import DataSet, EpochSampler, Example, PixelExamples, Views, collate
from detectors.training.job import ALL_EPOCHS, RESOURCES_FILE, Job, JobPlan, StopSignal, TrainingResult
from detectors.training.progress import HistoryFile
from detectors.training.trainer import choose

import_yolo()
from ultralytics.models.yolo.classify import ClassificationTrainer  # noqa: E402

STATE_FILE = "exact.pt"  # the whole state at the end of an epoch

SIZE_MODELS = {"tiny": "yolo11n-cls.pt", "small": "yolo11s-cls.pt", "base": "yolo11m-cls.pt"}
SIDE = 224  # pixels, of the validators' pictures
FOLDER, MODEL, TENSORBOARD = "yolo", "model.pt", "tensorboard"


def ended_state(exact: Path) -> dict[str, Any] | None:
    """Return the last state of a training that has come to its end, so that a resumed one has nothing to train."""
    if not exact.is_file():
        return None
    state: dict[str, Any] = torch.load(exact, weights_only=True)
    return state if state.get("why") is not None else None


class RoadworkTrainer(ClassificationTrainer):  # type: ignore[misc]
    """Trains on our photos; everything about an epoch follows from the state at its start."""

    best_fitness: float | None
    last: Path
    best: Path
    train_loader: Any

    def __init__(
        self,
        overrides: dict[str, Any],
        *,
        train: PixelExamples,
        val: PixelExamples,
        loss: WeightedLoss,
        parts: Callable[[Any], tuple[MicroBatches, int, str]],
        pace: Pace,
        stop: Callable[[], str | None],
        tell: Callable[["RoadworkTrainer"], None],
        validating: Callable[[], None],
        limit: int,
        threads: int,
    ) -> None:
        self._examples = {"train": train, "val": val}
        self._weighted, self._choose, self._pace, self._limit = loss, parts, pace, limit
        self._reason, self._tell, self._threads = stop, tell, threads
        self.history: list[dict[str, float]] = []
        self.why, self._workers = ALL_EPOCHS, 0
        super().__init__(overrides=overrides)
        self.add_callback("on_pretrain_routine_end", lambda _: self._begin())
        self.add_callback("on_train_epoch_start", lambda _: self._begin_epoch())
        self.add_callback("on_train_batch_start", lambda _: pace.busy())
        self.add_callback("on_train_batch_end", lambda _: self._end_batch())
        self.add_callback("on_val_batch_end", lambda _: validating())
        self.add_callback("on_fit_epoch_end", lambda _: self._end_epoch())

    @property
    def exact(self) -> Path:
        """Where the whole state is."""
        return Path(self.wdir) / STATE_FILE

    def get_dataset(self) -> dict[str, Any]:
        """Describe the photos, which are there already."""
        names = dict(enumerate(CLASSES))
        return {"train": "train", "val": "val", "test": None, "nc": len(names), "names": names, "channels": 3}

    def get_dataloader(self, dataset_path: str, batch_size: int = 16, rank: int = 0, mode: str = "train") -> Any:
        """Load our photos, those to learn from in an order that follows from seed and epoch."""
        examples = self._examples[mode]
        sampler = EpochSampler(len(examples), self.args.seed) if mode == "train" else None
        return DataLoader(examples, batch_size, sampler=sampler, num_workers=self._workers, collate_fn=_collate)

    def validate(self) -> tuple[dict[str, float], float]:
        """Judge by the expected reward; of equal ones, the lower loss is better."""
        best = self.best_fitness
        metrics, _ = super().validate()
        labels = torch.cat(self.validator.targets).numpy() == 1
        said = torch.cat(self.validator.pred)[:, 0].numpy() == 1
        loss = float(metrics.get("val/loss", 0.0))
        figures = {"eval_loss": loss, "eval_accuracy": float((said == labels).mean())}
        figures["eval_reward"] = reward_of(labels, said)
        self.history += [
            {"epoch": self.epoch + 1.0, "loss": float(sum(self.tloss.values()))},
            {"epoch": self.epoch + 1.0, **figures},
        ]
        fitness = figures["eval_reward"] - min(loss, 1.0) / 100
        self.best_fitness = fitness if best is None else max(best, fitness)
        return metrics, fitness

    def save_model(self) -> bool:
        """Write Ultralytics' checkpoints so that a kill leaves the old ones or the new ones."""
        last, best = self.last, self.best
        self.last, self.best = (path.with_suffix(".partial") for path in (last, best))
        super().save_model()
        for partial, path in ((self.last, last), (self.best, best)):
            if partial.exists():
                settle(partial, path)
        self.last, self.best = last, best
        kept = {int(path.stem.removeprefix("epoch")): path for path in self.wdir.glob("epoch*.pt")}
        for epoch in sorted(kept)[: -self._limit]:
            kept[epoch].unlink()
        return True

    @property
    def micro_batch(self) -> int:
        """Photos in memory at once, as it has come down to."""
        return self._parts.size

    @property
    def loader_processes(self) -> int:
        """How many load photos."""
        return self._workers

    def final_eval(self) -> None:
        """Leave the judging to the caller."""

    def _begin(self) -> None:
        """Before the first step: choose the micro-batch, and go back to where a killed run was."""
        torch.set_num_threads(self._threads)  # Ultralytics has set its own number
        self._parts, self._workers, self.precision = self._choose(self.model)
        if self._workers:  # which were not known when the loaders were made, and a loader's can't be changed
            self.train_loader = self.get_dataloader("train", self.train_loader.batch_size)
        if self.exact.is_file():
            state = torch.load(self.exact, weights_only=True)
            self.model.load_state_dict(state["model"])
            self.ema.ema.load_state_dict(state["ema"])
            self.ema.updates = state["updates"]
            self.optimizer.load_state_dict(state["optimizer"])
            self.start_epoch = state["epoch"] + 1
            self.scheduler.last_epoch = self.start_epoch - 1
            self.best_fitness, self.history = state["best_fitness"], state["history"]
            self.stopper.best_fitness, self.stopper.best_epoch = state["stopper"]
            self._parts.size = min(self._parts.size, state["micro_batch"])
        self.model.criterion = self.model.init_criterion()  # asked for after each epoch
        self.model.loss = self._loss_in_parts

    def _begin_epoch(self) -> None:
        torch.manual_seed(self.args.seed + self.epoch)
        self.train_loader.sampler.set_epoch(self.epoch)
        self._batches = 0
        self._pace.idle()

    def _loss_in_parts(self, batch: dict[str, Tensor], preds: Any = None) -> tuple[Tensor, dict[str, Tensor]]:
        """Add up a batch's gradients, and return a loss whose own backward pass adds nothing."""
        pictures, labels = batch["img"], batch["cls"]

        def logits(part: slice) -> Tensor:
            with torch.autocast("cpu", torch.bfloat16, enabled=self.precision == "bf16"):
                scores: Tensor = self.model(pictures[part])
            return scores.float()

        loss = gradients(
            self.model, logits, labels, self._weighted, self._parts, self._pace, lambda share: share.backward()
        )
        return loss.clone().requires_grad_(), {"loss": loss}

    def _end_batch(self) -> None:
        self._pace.idle()
        self._batches += 1
        self._tell(self)
        reason = self._reason()
        if reason is not None:
            self.why, self.stop = reason, True

    def _end_epoch(self) -> None:
        self._tell(self)
        if self._batches < len(self.train_loader):
            return  # an epoch that was broken off is begun again
        ended, reason = None, self._reason()
        if self.epoch + 1 >= self.epochs:
            ended = ALL_EPOCHS
        elif self.stop and reason is None:
            ended = f"no better validation in {self.args.patience} epochs"
        self.why = ended or reason or self.why
        self.stop = ended is not None or reason is not None
        state = {
            "model": self.model.state_dict(),
            "ema": self.ema.ema.state_dict(),
            "updates": self.ema.updates,
            "optimizer": self.optimizer.state_dict(),
            "epoch": self.epoch,
            "best_fitness": self.best_fitness,
            "stopper": (self.stopper.best_fitness, self.stopper.best_epoch),
            "history": self.history,
            "micro_batch": self._parts.size,
            "why": ended,
        }
        partial = self.exact.with_suffix(".partial")
        torch.save(state, partial)
        settle(partial, self.exact)


def _collate(examples: list[Example]) -> dict[str, Tensor]:
    batch = collate(examples)
    return {"img": batch["inputs"], "cls": batch["labels"]}


def preprocessing() -> Preprocessing:
    """Return what Ultralytics does to a picture before a classifier sees it."""
    return from_processor_config({"image_processor_type": "UltralyticsClassify", "size": {"shortest_edge": SIDE}})


def train(job: Job, data: DataSet, photos: str, stopping: StopSignal) -> TrainingResult:
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
    known = JobPlan.read(job.run, photos) if job.resume else None
    state = ended_state(weights / STATE_FILE) if known is not None else None
    if known is not None and state is not None:  # killed after its last epoch
        history, why = state["history"], state["why"]
        facts = _facts(state["micro_batch"], known.precision, known.workers)
    else:
        trainer = _trained(job, data, photos, stopping, known)
        history, why = trainer.history, trainer.why
        facts = _facts(trainer.micro_batch, trainer.precision, trainer.loader_processes)
    model = _strip(weights / "best.pt", job.run / MODEL)
    return TrainingResult(model, history, round(history[-1]["epoch"]), why, facts)


def _facts(micro_batch: int, precision: str, workers: int) -> dict[str, Any]:
    return {"micro-batch": micro_batch, "precision": precision, "loader processes": workers}


def _trained(job: Job, data: DataSet, photos: str, stopping: StopSignal, known: JobPlan | None) -> RoadworkTrainer:
    """Train, from where a killed run was."""
    config = job.config
    views = Views(config.augment, config.seed)
    examples = {
        "train": PixelExamples(data.train, views, preprocessing(), plain=False, wanted=data.wanted),
        "val": PixelExamples(data.val, views, preprocessing(), plain=True),
    }

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
        ResourceLog(job.run / RESOURCES_FILE, job.probe, job.screen, lambda: pace.waited),
    ):
        trainer = _make(
            job, examples, make_loss(data.wanted, config), decide, pace, stopping,
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
    stopping: StopSignal,
    tell: "_Teller",
) -> RoadworkTrainer:
    try:
        return RoadworkTrainer(
            _arguments(job.config, job.run),
            train=examples["train"], val=examples["val"], loss=loss, parts=decide, pace=pace,
            stop=lambda: stopping.reason, tell=tell, validating=tell.validating, limit=job.config.save_total_limit,
            threads=job.threads,
        )  # fmt: skip
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelError(f"{job.config.model} can't be trained: {str(error).splitlines()[0]}") from error


def _arguments(config: TrainConfig, run: Path) -> dict[str, Any]:
    """Put the configuration into Ultralytics' words; its own changes of photos are off, since ours come first."""
    name = SIZE_MODELS.get(config.model, config.model)
    local = Path(name).expanduser()
    return {
        "model": str(local.resolve()) if local.is_file() else name, "data": "photos", "imgsz": SIDE, "device": "cpu",
        "epochs": config.most_epochs, "batch": config.batch_size, "nbs": config.batch_size, "optimizer": "AdamW",
        "lr0": config.rate(convolutional=True), "lrf": 0.01, "cos_lr": True,
        "weight_decay": config.weight_decay, "warmup_bias_lr": 0.0,
        "warmup_epochs": config.warm_up * config.most_epochs, "patience": config.most_waited, "seed": config.seed,
        "save_period": config.save_every, "project": str(run), "name": FOLDER, "exist_ok": True, "amp": False,
        "close_mosaic": 0, "plots": False, "verbose": False,
    }  # fmt: skip


class _Teller:
    """Tells the screen, TensorBoard, and who watches."""

    def __init__(self, job: Job, bar: Any, pace: Pace) -> None:
        self._screen, self._bar, self._pace = job.screen, bar, pace
        self._writer = SummaryWriter(str(job.run / TENSORBOARD))
        self._history = HistoryFile(job.run)
        self._told = 0
        self._steps = 0

    def validating(self) -> None:
        """Say that the epoch is judged: no step is done meanwhile."""
        self._bar(self._steps, what="validating")

    def __call__(self, trainer: RoadworkTrainer) -> None:
        """Move the bar; after an epoch, print its line."""
        if len(trainer.history) == self._told:
            done = trainer.epoch * len(trainer.train_loader)
            self._steps = max(self._steps + 1, done)
            self._bar(self._steps, str(self._pace), what="training")
            return
        self._told = len(trainer.history)
        train, val = trainer.history[-2:]
        for entry in (train, val):
            for name in entry.keys() - {"epoch"}:
                self._writer.add_scalar(name, entry[name], int(entry["epoch"]))
        self._writer.flush()
        self._history.write(trainer.history)
        self._screen.say(
            f"epoch {train['epoch']:.0f} of {trainer.epochs}: loss {train['loss']:.3f}; validation: loss "
            f"{val['eval_loss']:.3f}, accuracy {val['eval_accuracy']:.1%}, expected reward {val['eval_reward']:.2f}"
        )


def _strip(best: Path, target: Path) -> Path:
    """Write the best weights without the optimiser's state, and without the paths of this machine."""
    from ultralytics.utils.torch_utils import strip_optimizer

    partial = target.with_name("partial.pt")
    found = strip_optimizer(best, partial)
    network = found["model"]
    for name in {"args", "yaml"} & set(vars(network)):
        setattr(network, name, without_paths(getattr(network, name)))
    whole = {name: value if name == "model" else without_paths(value) for name, value in found.items()}
    torch.save(whole, partial)
    settle(partial, target)
    return target


def without_paths(value: Any) -> Any:
    """Return settings in which the last name stands for each absolute path."""
    match value:
        case str() if Path(value).is_absolute():
            return Path(value).name
        case dict():
            return {key: without_paths(one) for key, one in value.items()}
        case list():
            return [without_paths(one) for one in value]
    return value
