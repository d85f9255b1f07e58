"""Trainings in this process, with tiny networks: what they say, where they stop, and how they go on."""

import io
import json
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from rich.console import Console
from typer.testing import CliRunner

pytest.importorskip("torch")

import torch
from safetensors.torch import load_file, save_file

from detectors.base import Detector
from detectors.console import BarUpdate, Screen
from detectors.errors import ModelError
from detectors.models.manifest import Manifest
from detectors.network import ViT
from detectors.training import hf_model
from detectors.training.backbones import backbone_folder
from detectors.training.budget import GB, Machine, MachineReading
from detectors.training.config import Augment, TrainConfig
from detectors.training.data import fingerprint, open_dataset
from detectors.training.dataset import UNCHANGED_VIEW, Views, load_pixels
from detectors.training.features import features_of
from detectors.training.hf import COMPLETE_FILE, train
from detectors.training.job import ALL_EPOCHS, TIME_OVER, Job, StoppedEarly, StopSignal, TrainingResult, open_run
from detectors.training.run import run
from miner.cli import app
from miner.errors import ConfigurationError
from tests.models import make_resnet, make_vit
from tests.photos import fill
from tests.process.limits import small_disk
from tests.unit.detectors.training.test_trainer import old_names

pytestmark = [
    pytest.mark.usefixtures("imports_are_not_garbage"),
    pytest.mark.export,
    pytest.mark.filterwarnings("ignore"),
]

MACHINE = Machine(2, None, 16 * GB, 12 * GB, "a CPU", frozenset())


class KilledError(Exception):
    """Stands for a kill: nothing of the training handles it."""


class Spy(Screen):
    """Keeps what is said, and kills at a line or at a step of the training."""

    def __init__(self, *, line: str | None = None, step: int | None = None) -> None:
        self.said = io.StringIO()
        super().__init__(Console(file=self.said, soft_wrap=True))
        self._line, self._step = line, step

    def say(self, words: str) -> None:
        super().say(words)
        if self._line is not None and self._line in words:
            raise KilledError

    @contextmanager
    def bar(self, what: str, total: int = 0, done: int = 0) -> Iterator[BarUpdate]:
        step = what

        def update(done: int, words: str | None = None, *, total: int = 0, what: str = "") -> None:
            if step == "training" and done == self._step:
                raise KilledError

        yield update

    @property
    def text(self) -> str:
        return self.said.getvalue()


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fill(tmp_path_factory.mktemp("photos") / "photos", 8)


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_vit(tmp_path_factory.mktemp("vit") / "tiny-vit", hidden_size=16, num_hidden_layers=1)


@pytest.fixture(scope="module")
def resnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_resnet(tmp_path_factory.mktemp("resnet") / "tiny-resnet")


def probe() -> MachineReading:
    return MachineReading(resident=GB, available=12 * GB, memory=16 * GB)


def start(folder: Path, screen: Spy, values: dict[str, object] | None = None) -> Job:
    """Open a run, or without values one to be resumed."""
    given = TrainConfig.make({"seed": 3, "threads": 1, "workers": 0} | values) if values is not None else None
    return Job(open_run(folder, given), folder, folder.parent / "cache", MACHINE, probe, screen, resume=given is None)


def learn(folder: Path, screen: Spy, values: dict[str, object] | None = None) -> TrainingResult:
    """Train, and export nothing."""
    job = start(folder, screen, values)
    data = open_dataset(job.config, folder, screen, 1)
    return train(job, data, fingerprint(data), StopSignal(None, screen))


def test_a_quick_run_says_what_it_will_take_and_ends_with_what_serves(photos: Path, vit: Path, tmp_path: Path) -> None:
    screen = Spy()
    results = run(
        start(
            tmp_path / "run",
            screen,
            {"data": str(photos), "model": str(vit), "views": 1, "quick": True, "workers": None},
        )
    )
    assert "estimate: at most" in screen.text
    assert " for 14 features, about " in screen.text
    assert "for 100 epochs of 12 photos" in screen.text
    figures, verdict = results["figures"], results["verdict"]
    assert isinstance(figures, dict)
    assert isinstance(verdict, dict)
    assert verdict["now"] == "starter"
    assert verdict["photos"] == figures["test"]["photos"]
    assert verdict["words"] in screen.text
    assert figures["test"]["accuracy"]["low"] < figures["test"]["accuracy"]["high"]
    assert figures["test"]["reward"]["low"] <= figures["test"]["reward"]["high"]
    manifest = Manifest.read(tmp_path / "run" / "served")
    assert manifest.name == "run"  # not what each training calls its weights
    assert manifest.predictions is not None
    assert sum(manifest.predictions) == pytest.approx(1, abs=0.01)
    for card in (tmp_path / "run" / "README.md", tmp_path / "run" / "served" / "README.md"):
        assert verdict["words"] in card.read_text()
        assert f"| {figures['test']['accuracy']['value']:.3f} ({figures['test']['accuracy']['low']:.3f} to" in (
            card.read_text()
        )


def test_photos_kept_back_in_the_wrong_folders_make_the_model_look_reversed(tmp_path: Path) -> None:
    photos, screen = tmp_path / "photos", Spy()
    fill(photos / "train", 12)
    fill(photos / "test", 8, first_seed=1000)
    (photos / "test" / "roadwork").rename(photos / "test" / "works")
    (photos / "test" / "no_roadwork").rename(photos / "test" / "roadwork")
    (photos / "test" / "works").rename(photos / "test" / "no_roadwork")
    results = run(start(tmp_path / "run", screen, {"data": str(photos), "model": "lite0", "views": 0}))
    figures = results["figures"]
    assert isinstance(figures, dict)
    assert figures["test"]["reversed"]
    assert not figures["val"]["reversed"]
    (warned,) = [line for line in screen.text.splitlines() if line.startswith("warning: test: AUC ")]
    assert "no_roadwork" in warned


def test_it_is_judged_beside_what_serves_now_and_else_beside_the_starter(
    photos: Path, vit: Path, tmp_path: Path
) -> None:
    values = {"data": str(photos), "model": str(vit), "views": 0, "epochs": 1}
    job = start(tmp_path / "run", Spy(), values)
    served = open_dataset(job.config, tmp_path, Spy(), 1).test

    class Oracle:
        """Knows the labels, which no trained model surpasses."""

        def predict(self, data: bytes) -> SimpleNamespace:
            return SimpleNamespace(probability=float({one.path.read_bytes(): one.label for one in served}[data]))

    now = run(replace(job, serving=lambda: ("mine", cast(Detector, Oracle()))))["verdict"]
    assert isinstance(now, dict)
    assert (now["now"], now["recommended"]) == ("mine", False)
    assert now["gain"]["value"] <= 0

    def gone() -> tuple[str, Detector]:
        raise ModelError("its folder is gone")

    screen = Spy()
    job = start(tmp_path / "other", screen, values)
    now = run(replace(job, serving=gone))["verdict"]
    assert isinstance(now, dict)
    assert now["now"] == "starter"
    assert "its folder is gone" in screen.text


def test_the_last_line_is_the_verdict_beside_what_the_settings_name(
    photos: Path, vit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch, "set_num_interop_threads", lambda _: None)

    def call(run: str, *options: str) -> str:
        arguments = ["train", str(photos), "--model", str(vit), "--quick", "--out", run, "--cache", "cache", *options]
        result = CliRunner().invoke(app, [*arguments, "--set", "threads=1", "--set", "workers=0"])
        assert result.exit_code == 0, result.output
        return result.stdout.splitlines()[-1]

    line = call("first")
    verdict = json.loads((tmp_path / "first" / "results.json").read_bytes())["verdict"]
    assert line == f"first: {verdict['words']}"
    assert (verdict["now"], verdict["recommended"]) == ("starter", False)
    monkeypatch.setenv("IMAGE_DETECTOR_CONFIG", str(tmp_path / "first" / "detector.yaml"))
    told = json.loads(call("second", "--json"))["verdict"]
    assert (told["now"], told["recommended"]) == ("first/detector.yaml", False)
    assert told["gain"]["value"] == 0  # the very same model


def test_epochs_are_judged_in_the_precision_that_is_served(photos: Path, resnet: Path, tmp_path: Path) -> None:
    values = {"data": str(photos), "model": str(resnet), "method": "full", "epochs": 2, "precision": "bf16"}
    values["prior"] = 0.2
    screen = Spy()
    result = learn(tmp_path / "run", screen, values | {"learning_rate": 1e-3})
    data = open_dataset(TrainConfig.make({"seed": 3} | values), tmp_path, screen, 1)
    preprocessing, model = ViT.read_preprocessing(resnet), hf_model.load(result.original, 3).eval()
    views, labels = Views(Augment(), 3), torch.tensor([photo.label for photo in data.val])
    pixels = torch.stack([load_pixels(photo, UNCHANGED_VIEW, views, preprocessing) for photo in data.val])

    def loss(precision: torch.dtype) -> float:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
            return float(torch.nn.functional.cross_entropy(hf_model.logits_of(model, pixels), labels))

    best = min(entry["eval_loss"] for entry in result.history if "eval_loss" in entry)
    assert abs(loss(torch.float32) - best) < 1e-6
    assert abs(loss(torch.bfloat16) - best) > 1e-5  # so that it shows


def test_frozen_layers_stay_and_the_others_learn(photos: Path, vit: Path, tmp_path: Path) -> None:
    values = {"data": str(photos), "model": str(vit), "method": "full", "epochs": 1, "frozen": 0.5, "average": 0.9}
    result = learn(tmp_path / "run", Spy(), values)
    names = [name for name, _ in hf_model.load(vit, 3).named_parameters()]
    before, after = load_file(vit / "model.safetensors"), load_file(result.original / "model.safetensors")
    stays = [torch.equal(before[name], after[name]) for name in names]
    assert stays == [number < len(names) // 2 for number in range(len(names))]


@pytest.mark.parametrize("method", ["head", "lora", "full"])
def test_a_prior_moves_every_answer_by_its_logit(method: str, photos: Path, vit: Path, tmp_path: Path) -> None:
    values = {"data": str(photos), "model": str(vit), "method": method, "epochs": 1, "views": 1}
    pixels = torch.rand(3, 3, 224, 224)

    def margins(prior: float) -> torch.Tensor:
        result = learn(tmp_path / str(prior), Spy(), values | {"prior": prior})
        with torch.no_grad():
            return hf_model.logits_of(hf_model.load(result.original, 3).eval(), pixels).diff().flatten()

    assert (margins(0.2) - margins(0.5)).tolist() == pytest.approx([-math.log(4)] * 3, abs=1e-5)


def test_statistics_of_pretrained_weights_are_kept_and_parts_of_a_batch_do_no_harm(
    photos: Path, resnet: Path, tmp_path: Path
) -> None:
    values = {"data": str(photos), "model": str(resnet), "method": "full", "epochs": 2, "batch_size": 8}
    whole, parts = (
        learn(tmp_path / str(size), Spy(), values | {"micro_batch": size, "learning_rate": 1e-2}) for size in (8, 2)
    )
    for one, other in zip(_losses(whole), _losses(parts), strict=True):
        assert one == pytest.approx(other, abs=1e-5)
    before, after = load_file(resnet / "model.safetensors"), load_file(whole.original / "model.safetensors")
    statistics = [name for name in before if "running" in name]
    assert statistics
    assert all(torch.equal(before[name], after[name]) for name in statistics)
    assert not all(torch.equal(before[name], after[name]) for name in before.keys() - set(statistics))


def test_statistics_of_random_weights_are_learnt_from_whole_batches(photos: Path, resnet: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    shutil.copytree(resnet, empty, ignore=shutil.ignore_patterns("*.safetensors"))
    screen = Spy()
    result = learn(tmp_path / "run", screen, {"data": str(photos), "model": str(empty), "method": "full", "epochs": 1})
    assert "micro-batch 32 of batch 32" in screen.text
    after = load_file(result.original / "model.safetensors")
    assert any(bool(value.abs().max() > 0) for name, value in after.items() if "running_mean" in name)


def test_a_disk_too_small_for_weights_is_named(vit: Path, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 16) as disk:
        with pytest.raises(OSError, match=str(disk / "model")):
            hf_model.save(hf_model.load(vit, 3), vit, disk / "model")
        with pytest.raises(OSError, match=str(disk)):
            backbone_folder("lite0", disk)


def test_a_momentum_in_tensorflows_words_is_translated(tmp_path: Path) -> None:
    from transformers import EfficientNetConfig

    EfficientNetConfig(width_coefficient=0.2, depth_coefficient=0.2, hidden_dim=64).save_pretrained(tmp_path)
    found = {module.momentum for module in hf_model.load(tmp_path, 0).modules() if hasattr(module, "momentum")}
    assert sorted(found) == [pytest.approx(0.01), 0.1]  # transformers leaves torch's own to some layers


def test_epochs_are_validated_now_and_then_and_the_last_one_always(photos: Path, vit: Path, tmp_path: Path) -> None:
    values = {
        "data": str(photos), "model": str(vit), "method": "full", "epochs": 7, "batch_size": 4, "validate_every": 3,
        "checkpoint_minutes": 0,
    }  # fmt: skip
    whole = learn(tmp_path / "whole", Spy(), values)
    assert [line["epoch"] for line in whole.history if "eval_loss" in line] == [3, 6, 7]
    with pytest.raises(KilledError):
        learn(tmp_path / "killed", Spy(step=14), values)
    assert _losses(learn(tmp_path / "killed", Spy())) == _losses(whole)


def test_time_ends_a_run_with_the_best_so_far_and_it_may_go_on(photos: Path, vit: Path, tmp_path: Path) -> None:
    values = {"data": str(photos), "model": str(vit), "method": "full", "epochs": 3, "batch_size": 4}
    results = run(start(tmp_path / "run", Spy(), {**values, "max_hours": 1e-9}))
    assert (results["ended"], results["epochs"]) == (TIME_OVER, 0)
    assert (tmp_path / "run" / "served" / "model.onnx").is_file()
    screen = Spy()
    assert learn(tmp_path / "run", screen).epochs == 3
    assert "resuming at step 1 of 9" in screen.text


def test_an_epoch_of_yolo_is_kept_where_the_time_ends_during_its_validation(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    yolo = pytest.importorskip("detectors.training.yolo")
    screen = Spy()
    values = {"data": str(photos), "detector": "YOLOClassifier", "model": "yolo11n-cls.yaml", "epochs": 3}
    job = start(tmp_path / "run", screen, values | {"batch_size": 8, "micro_batch": 4})
    data = open_dataset(job.config, tmp_path, screen, 1)
    now = 0.0
    stopping = StopSignal(1.0, screen, clock=lambda: now)
    validate = yolo.RoadworkTrainer.validate

    def takes_long(trainer: object) -> object:
        nonlocal now
        now = 7200.0
        return validate(trainer)

    monkeypatch.setattr(yolo.RoadworkTrainer, "validate", takes_long)
    first = yolo.train(job, data, fingerprint(data), stopping)
    assert (first.why, first.epochs) == (TIME_OVER, 1)
    monkeypatch.setattr(yolo.RoadworkTrainer, "validate", validate)
    again = start(tmp_path / "run", screen)
    whole = yolo.train(again, data, fingerprint(data), StopSignal(None, screen))
    assert whole.why == ALL_EPOCHS
    assert [entry["epoch"] for entry in whole.history if "loss" in entry] == [1, 2, 3]
    assert whole.history[:2] == first.history


def test_time_for_features_ends_with_the_views_that_are_whole(photos: Path, vit: Path, tmp_path: Path) -> None:
    screen = Spy()
    values = {"data": str(photos), "model": str(vit), "views": 3, "micro_batch": 1}
    job = start(tmp_path / "run", screen, values)
    data = open_dataset(job.config, tmp_path, screen, 1)
    model, preprocessing = hf_model.load(vit, 3), ViT.read_preprocessing(vit)
    ticks = iter(range(10**6))
    hours = (len(data.train + data.val) + 1.5 * len(data.train)) / 3600 / 0.9

    def slow() -> StopSignal:
        return StopSignal(hours, screen, clock=lambda: float(next(ticks)))

    features = features_of(job, model, preprocessing, data, slow(), 3)
    assert features.views == 1
    assert features.train.shape[:2] == (len(data.train), 2)
    assert features.val.shape[:2] == (len(data.val), 1)
    assert "going on with 1 of 3 changed views" in screen.text
    # What there is counts the next time.
    assert features_of(job, model, preprocessing, data, slow(), 3).views == 3


def test_without_a_feature_of_every_photo_there_is_nothing_to_train_from(
    photos: Path, vit: Path, tmp_path: Path
) -> None:
    values = {"data": str(photos), "model": str(vit), "micro_batch": 1, "max_hours": 1e-9}
    with pytest.raises(StoppedEarly, match=f"{TIME_OVER}: .* features are missing"):
        run(start(tmp_path / "run", Spy(), values))
    assert list((tmp_path / "cache").rglob("features-*.npz"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused_before_anything_is_read(photos: Path, vit: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    told = refusal("precompute", "features", photos, "--model", vit, "--cache", cache, "--device", "cuda")
    assert told.startswith("--device=cuda: ")
    assert "no GPU" in told
    assert not cache.exists()


def test_an_empty_class_is_refused(vit: Path, tmp_path: Path) -> None:
    folder = fill(tmp_path / "photos", 3)
    for path in (folder / "roadwork").iterdir():
        path.write_bytes(b"no photo")
    told = refusal("train", folder, "--model", vit, "--out", tmp_path / "run", "--set", "threads=1")
    assert told.startswith(f"{folder / 'roadwork'} holds no photo")


def refusal(*arguments: object) -> str:
    """Give a command what it must refuse as a wrong configuration, and return what it says."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert isinstance(result.exception, ConfigurationError), result.output
    assert result.exception.exit_code == 2
    return str(result.exception)


def test_killed_after_its_last_epoch_it_trains_no_other_one(photos: Path, vit: Path, tmp_path: Path) -> None:
    settings = {"data": str(photos), "model": str(vit), "method": "full", "batch_size": 8, "epochs": 2}
    killed = Spy(line="exporting to ONNX")
    with pytest.raises(KilledError):
        run(start(tmp_path / "run", killed, settings))
    history = json.loads((tmp_path / "run" / "history.json").read_bytes())
    screen = Spy()
    results = run(start(tmp_path / "run", screen))
    assert json.loads((tmp_path / "run" / "history.json").read_bytes()) == history
    assert results["epochs"] == 2
    assert str(results["ended"]) in killed.text
    assert "resuming" not in screen.text


def test_killed_after_its_patience_had_ended_it_trains_no_other_epoch(photos: Path, vit: Path, tmp_path: Path) -> None:
    settings = {"data": str(photos), "model": str(vit), "method": "full", "batch_size": 8, "epochs": 9}
    ended = learn(tmp_path / "run", Spy(), settings | {"patience": 1, "learning_rate": 1e-12})
    screen = Spy()
    assert learn(tmp_path / "run", screen) == ended
    assert ended.epochs == 2
    assert ended.why.startswith("no better validation")
    assert "resuming" not in screen.text


def test_a_checkpoint_counts_once_every_file_of_it_is_on_the_disk(
    photos: Path, vit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[tuple[Path, bool]] = []
    fsync = os.fsync

    def note(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        flushed.append((path, (path.parent / COMPLETE_FILE).exists() or (path / COMPLETE_FILE).exists()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    values = {"data": str(photos), "model": str(vit), "method": "full", "epochs": 1}
    learn(tmp_path / "run", Spy(), values)
    (checkpoint,) = (tmp_path / "run" / "checkpoints").iterdir()
    files = {path for path in checkpoint.iterdir() if path.name != COMPLETE_FILE}
    assert {"model.safetensors", "optimizer.pt", "trainer_state.json"} <= {path.name for path in files}
    assert {(path, False) for path in files} <= set(flushed)
    assert [path for path, complete in flushed if complete] == [checkpoint]
    assert flushed[-1][0] == checkpoint.parent


def test_adapters_with_dropout_on_a_network_with_running_statistics_resume_exactly(
    photos: Path, resnet: Path, tmp_path: Path
) -> None:
    values = {
        "data": str(photos), "model": str(resnet), "method": "lora", "epochs": 3, "batch_size": 3,
        "checkpoint_minutes": 0,
    }  # fmt: skip
    whole = learn(tmp_path / "whole", Spy(), values)
    with pytest.raises(KilledError):
        learn(tmp_path / "killed", Spy(step=7), values)
    screen = Spy()
    resumed = learn(tmp_path / "killed", screen)
    assert "resuming at step 6 of 12" in screen.text
    assert _losses(resumed) == _losses(whole)
    best = [load_file(tmp_path / name / "best.safetensors") for name in ("whole", "killed")]
    assert any("running_mean" in name for name in best[0])
    assert all(torch.equal(best[0][name], best[1][name]) for name in best[0])


def test_a_run_with_an_average_under_its_old_names_resumes_exactly(photos: Path, vit: Path, tmp_path: Path) -> None:
    values = {
        "data": str(photos), "model": str(vit), "method": "full", "epochs": 3, "batch_size": 3, "average": 0.9,
        "checkpoint_minutes": 0,
    }  # fmt: skip
    whole = learn(tmp_path / "whole", Spy(), values)
    with pytest.raises(KilledError):
        learn(tmp_path / "killed", Spy(step=7), values)
    for path in [tmp_path / "killed" / "best.safetensors", *(tmp_path / "killed").rglob("model.safetensors")]:
        save_file(old_names(load_file(path)), path, metadata={"format": "pt"})
    screen = Spy()
    resumed = learn(tmp_path / "killed", screen)
    assert "resuming at step 6 of 12" in screen.text
    assert _losses(resumed) == _losses(whole)
    models = [load_file(tmp_path / name / "model" / "model.safetensors") for name in ("whole", "killed")]
    assert all(torch.equal(models[0][name], models[1][name]) for name in models[0])


def _losses(outcome: TrainingResult) -> list[tuple[float, float, float]]:
    return [(line["epoch"], line.get("loss", 0.0), line.get("eval_loss", 0.0)) for line in outcome.history]
