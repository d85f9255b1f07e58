"""A student that learns from a model that serves: targets, photos without labels, and what a run remembers of it."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

pytest.importorskip("torch")

import torch

from detectors.base import RunOptions
from detectors.errors import DetectorConfigError, ModelError
from detectors.evaluation.evaluate import ask
from detectors.export.export import prepare
from detectors.load import load_detector
from detectors.models.config import DetectorConfig
from detectors.photos.labelled import UNLABELLED, Photo, read_photos, read_unlabelled
from detectors.training.batching import TargetLoss, WeightedLoss, make_loss
from detectors.training.config import TrainConfig
from detectors.training.data import fingerprint, open_dataset
from detectors.training.dataset import PARTS, DataSet
from detectors.training.hf import train
from detectors.training.job import StoppedEarly, StopSignal, TrainingResult
from detectors.training.run import run
from detectors.training.teacher import PHOTOS, RECORD_FILE, target, taught
from tests.models import make_vit
from tests.photos import fill, patches
from tests.unit.detectors.training.test_runs import KilledError, Spy, _losses, refusal, start

pytestmark = [
    pytest.mark.usefixtures("imports_are_not_garbage"),
    pytest.mark.export,
    pytest.mark.filterwarnings("ignore"),
]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fill(tmp_path_factory.mktemp("photos") / "photos", 8)


@pytest.fixture(scope="module")
def hidden(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of photos without labels, as a recorder keeps them."""
    folder = tmp_path_factory.mktemp("recorder")
    fill(folder / "both", 6, first_seed=500)
    (folder / "images").mkdir()
    for number, path in enumerate(sorted((folder / "both").rglob("*.jpg"))):
        path.rename(folder / "images" / f"{number}.jpg")
    shutil.rmtree(folder / "both")
    (folder / "requests-1.jsonl").write_text("{}\n")
    (folder / "images" / "1.bin").write_bytes(b"of no known format")
    return folder


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_vit(tmp_path_factory.mktemp("vit") / "tiny-vit", hidden_size=16, num_hidden_layers=1)


@pytest.fixture(scope="module")
def teacher(vit: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("teacher")
    source = DetectorConfig.model_validate({"hf_repo": str(vit), "path": folder / "t.yaml"})
    return prepare("ViT", source, folder, out=folder / "served")


@pytest.fixture(scope="module")
def pair(teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the YAML file of an ensemble of the teacher and of itself in other views."""
    path = tmp_path_factory.mktemp("pair") / "ensemble.yaml"
    one = {"model_folder": str(teacher)}
    path.write_text(yaml.safe_dump({"branches": {"plain": one, "two": {**one, "views": ["whole", "flip"]}}}))
    return path


def learn(folder: Path, screen: Spy, values: dict[str, object] | None = None) -> tuple[TrainingResult, DataSet]:
    """Train with a teacher, and export nothing."""
    job = start(folder, screen, values)
    stopping = StopSignal(None, screen)
    data, _ = taught(job, open_dataset(job.config, folder, screen, 1), stopping)
    return train(job, data, fingerprint(data), stopping), data


def answers(teacher: Path, photos: list[Photo]) -> list[float]:
    config = DetectorConfig.model_validate({"model_folder": str(teacher), "path": teacher / "manifest.json"})
    detector = load_detector("ViT", config, teacher, "onnx", RunOptions(1, 1))
    return ask(detector, photos)[0].tolist()


def a_photo(label: int) -> Photo:
    return Photo(Path("a.jpg"), "a.jpg", label, "a", np.zeros((24, 24, 3), np.uint8))


@pytest.mark.parametrize(
    ("label", "share", "wanted"),
    [
        (1, 0.5, 0.5 * 0.95 + 0.5 * 0.2),
        (0, 0.5, 0.5 * 0.05 + 0.5 * 0.2),
        (1, 0.0, 0.95),
        (1, 1.0, 0.2),
        (UNLABELLED, 0.5, 0.2),
        (UNLABELLED, 0.0, 0.2),
    ],
)
def test_a_target_is_a_mix_of_label_and_teacher(label: int, share: float, wanted: float) -> None:
    config = TrainConfig.make({"data": "photos", "teacher": "t.yaml", "teacher_share": share, "label_smoothing": 0.1})
    assert target(a_photo(label), {"a": 0.2}, config) == pytest.approx(wanted)


def test_targets_of_0_and_1_are_labels_and_parts_add_up() -> None:
    torch.manual_seed(0)
    logits, labels, weights = torch.randn(7, 2), torch.tensor([0, 1, 1, 0, 0, 1, 0]), torch.tensor([0.6, 2.0])
    plain = WeightedLoss(weights, 0.0).share(logits, labels, labels)
    loss, targets = TargetLoss(weights, 0.0), labels.float()
    assert torch.allclose(loss.share(logits, targets, targets), plain)
    parts = [loss.share(logits[part], targets[part], targets) for part in (slice(0, 3), slice(3, 7))]
    assert torch.allclose(sum(parts), plain)


def test_an_unsure_teacher_is_not_moved_by_a_rare_class() -> None:
    wanted = np.array([0.05] * 19 + [0.5], dtype=np.float32)
    loss = make_loss(wanted, TrainConfig.make({"data": "photos"}))
    assert isinstance(loss, TargetLoss)
    targets = torch.from_numpy(wanted)
    logits = torch.stack([torch.zeros(20), torch.logit(targets)], dim=1).requires_grad_()
    loss.share(logits, targets, targets).backward()
    assert logits.grad is not None
    assert logits.grad.abs().max() < 1e-6  # its own answers are the best
    both = torch.zeros(20, 2, requires_grad=True)
    loss.share(both, targets, targets).backward()
    assert both.grad is not None
    assert both.grad[0].abs().max() > both.grad[-1].abs().max()


def test_photos_are_read_once_by_content_from_any_folder(hidden: Path, photos: Path, tmp_path: Path) -> None:
    shutil.copy(hidden / "images" / "3.jpg", tmp_path / "copy.jpg")
    (tmp_path / "damaged.jpg").write_bytes(b"no photo")
    found = read_unlabelled([hidden, photos, tmp_path])
    assert len(found.photos) == 12 + 16
    assert {photo.label for photo in found.photos} == {UNLABELLED}
    assert [line.partition(":")[0] for line in found.skipped] == ["damaged.jpg"]
    (tmp_path / "copy.jpg").unlink()
    with pytest.raises(DetectorConfigError, match="holds no photo"):
        read_unlabelled([hidden, tmp_path])


def test_what_is_alike_to_photos_kept_back_or_there_already_is_left_out(
    photos: Path, teacher: Path, tmp_path: Path
) -> None:
    values = {"data": str(photos), "model": str(teacher), "teacher": str(teacher)}
    plain = open_dataset(TrainConfig.make({"seed": 3, **values}), tmp_path, Spy(), 1)
    flat = tmp_path / "flat"
    flat.mkdir()
    for number, photo in enumerate((plain.val[0], plain.test[0])):
        Image.open(photo.path).convert("RGB").transpose(Image.Transpose.FLIP_LEFT_RIGHT).resize((80, 60)).save(
            flat / f"alike{number}.jpg", quality=70
        )
    for number, photo in enumerate((plain.train[0], plain.val[1], plain.test[1])):
        shutil.copy(photo.path, flat / f"same{number}.jpg")
    patches(900, cone=True).save(flat / "new.jpg")
    screen = Spy()
    job = start(tmp_path / "run", screen, values | {"unlabelled": [str(flat)]})
    data, record = taught(job, plain, StopSignal(None, screen))
    (new,) = [photo for photo in data.train if photo.label == UNLABELLED]
    assert new.name == "new.jpg"
    assert "unlabelled: 1 photos; left out: 3 " in screen.text
    assert (len(data.alike), record.labelled, record.unlabelled) == (2, len(plain.train), 1)
    assert (data.val, data.test, data.counts()) == (plain.val, plain.test, plain.counts())


def test_of_photos_without_a_label_only_those_are_learnt_that_the_teacher_is_sure_of(
    photos: Path, hidden: Path, teacher: Path, tmp_path: Path
) -> None:
    values = {"data": str(photos), "model": str(teacher), "teacher": str(teacher), "unlabelled": [str(hidden)]}
    plain = open_dataset(TrainConfig.make({"seed": 3, **values}), tmp_path, Spy(), 1)
    every, _ = taught(start(tmp_path / "all", Spy(), values), plain, StopSignal(None, Spy()))
    alone = {photo.digest: every.targets[photo.digest] for photo in every.train if photo.label == UNLABELLED}
    confidence = sorted(max(value, 1 - value) for value in alone.values())[len(alone) // 2]
    job = start(tmp_path / "sure", Spy(), values | {"teacher_confidence": confidence})
    data, record = taught(job, plain, StopSignal(None, Spy()))
    kept = {photo.digest for photo in data.train if photo.label == UNLABELLED}
    assert kept == {digest for digest, value in alone.items() if max(value, 1 - value) >= confidence}
    assert 0 < len(kept) < len(alone)
    assert (record.labelled, record.unlabelled) == (len(plain.train), len(kept))
    assert json.loads((tmp_path / "sure" / RECORD_FILE).read_bytes())["unlabelled"] == len(kept)


def test_a_student_comes_to_answer_as_its_teacher_and_names_it(
    photos: Path, hidden: Path, vit: Path, teacher: Path, tmp_path: Path
) -> None:
    values = {
        "data": str(photos), "model": str(vit), "teacher": str(teacher), "unlabelled": [str(hidden)], "views": 2,
        "epochs": 60, "patience": 60, "batch_size": 8, "learning_rate": 0.05, "label_smoothing": 0,
    }  # fmt: skip
    screen = Spy()
    results = run(start(tmp_path / "run", screen, values | {"teacher_share": 1.0}))
    assert "teacher: 0 of 24 photos are judged already" in screen.text
    told = results["teacher"]
    assert isinstance(told, dict)
    assert (told["name"], told["share"], told["labelled"], told["unlabelled"]) == ("served", 1.0, 12, 12)
    assert f"- teacher: served ({told['revision'][:12]})" in (tmp_path / "run" / "README.md").read_text()
    unseen = read_photos(fill(tmp_path / "unseen", 12, first_seed=900)).photos
    taught_by = answers(teacher, unseen)
    student = answers(tmp_path / "run" / "served", unseen)
    screen = Spy()
    alone = run(start(tmp_path / "alone", screen, {**values, "teacher": None, "unlabelled": []}))
    assert alone["teacher"] is None
    by_labels = answers(tmp_path / "alone" / "served", unseen)
    far = [float(np.abs(np.array(said) - taught_by).mean()) for said in (student, by_labels)]
    assert far[0] < 0.6 * far[1], far


def test_what_the_teacher_said_is_kept_through_a_kill_and_for_the_next_run(
    photos: Path, hidden: Path, vit: Path, pair: Path, tmp_path: Path
) -> None:
    class Kills(Spy):
        def bar(self, what: str, total: int = 0, done: int = 0):  # type: ignore[no-untyped-def]
            return super().bar("training" if what == "teacher" else what, total, done)  # which kills at a step

    values = {"data": str(photos), "model": str(vit), "teacher": str(pair), "unlabelled": [str(hidden)], "views": 0}
    with pytest.raises(KilledError):
        run(start(tmp_path / "run", Kills(step=5), values))
    mine = tmp_path / "moving"
    shutil.copytree(hidden, mine)
    screen = Spy()
    learn(tmp_path / "run", screen)
    assert "teacher: 5 of 24 photos are judged already" in screen.text
    screen = Spy()
    learn(tmp_path / "second", screen, values | {"unlabelled": [str(mine)], "method": "full", "epochs": 1})
    assert "teacher: 24 of 24 photos are judged already" in screen.text


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_run_goes_on_exactly_after_the_recorder_has_removed_the_photos(
    photos: Path, hidden: Path, vit: Path, teacher: Path, tmp_path: Path, method: str
) -> None:
    folder = tmp_path / "recorder"
    shutil.copytree(hidden, folder)
    values = {
        "data": str(photos), "model": str(vit), "teacher": str(teacher), "unlabelled": [str(folder)],
        "method": method, "epochs": 2, "batch_size": 8, "checkpoint_minutes": 0,
    }  # fmt: skip
    whole, data = learn(tmp_path / "whole", Spy(), values)
    assert len(data.train) == len(data.targets) == 24
    with pytest.raises(KilledError):
        learn(tmp_path / "killed", Spy(step=5), values)
    shutil.rmtree(folder)
    screen = Spy()
    resumed, again = learn(tmp_path / "killed", screen)
    assert "resuming at step 4 of 6" in screen.text
    assert _losses(resumed) == _losses(whole)
    assert fingerprint(again) == fingerprint(data)
    assert all(photo.path.parent == tmp_path / "killed" / PHOTOS for photo in again.train if photo.label == UNLABELLED)
    assert {part: [photo.label for photo in getattr(again, part)] for part in PARTS[1:]} == {
        part: [photo.label for photo in getattr(data, part)] for part in PARTS[1:]
    }


def test_another_teacher_is_seen(photos: Path, vit: Path, teacher: Path, tmp_path: Path) -> None:
    path = tmp_path / "teacher.yaml"
    path.write_text(yaml.safe_dump({"model_folder": str(teacher)}))
    values = {"data": str(photos), "model": str(vit), "teacher": str(path), "views": 0}
    learn(tmp_path / "run", Spy(), values)
    kept = json.loads((tmp_path / "run" / RECORD_FILE).read_bytes())["revision"]
    path.write_text(yaml.safe_dump({"model_folder": str(teacher), "threshold": 0.3}))
    with pytest.raises(DetectorConfigError, match=f"teacher={path}: .* when {tmp_path / 'run'} was started"):
        learn(tmp_path / "run", Spy())
    moved = tmp_path / "elsewhere"
    shutil.copytree(teacher, moved)
    path.write_text(yaml.safe_dump({"model_folder": str(moved)}))
    learn(tmp_path / "run", Spy())  # the same model in another place
    assert json.loads((tmp_path / "run" / RECORD_FILE).read_bytes())["revision"] == kept


def test_time_that_is_over_keeps_what_was_said(photos: Path, vit: Path, teacher: Path, tmp_path: Path) -> None:
    screen = Spy()
    job = start(tmp_path / "run", screen, {"data": str(photos), "model": str(vit), "teacher": str(teacher)})
    data = open_dataset(job.config, tmp_path, screen, 1)
    with pytest.raises(StoppedEarly, match="has not judged 11 photos"):
        taught(job, data, StopSignal(1e-9, screen))
    taught(job, data, StopSignal(None, screen))
    assert "teacher: 1 of 12 photos are judged already" in screen.text


def test_a_damaged_teacher_is_named(photos: Path, vit: Path, teacher: Path, tmp_path: Path) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(teacher, folder)
    (folder / "preprocessor_config.json").write_bytes(b"damaged")
    job = start(tmp_path / "run", Spy(), {"data": str(photos), "model": str(vit), "teacher": str(folder)})
    data = open_dataset(job.config, tmp_path, Spy(), 1)
    with pytest.raises(ModelError, match=f"teacher={folder}: .*preprocessor_config.json"):
        taught(job, data, StopSignal(None, Spy()))


def test_what_can_not_teach_is_refused_in_one_line(photos: Path, vit: Path, teacher: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.yaml").write_text("hf_repo: [")
    start = ["train", photos, "--model", vit, "--out", tmp_path / "run"]
    for arguments, words in [
        (["--teacher", tmp_path / "none.yaml"], ["teacher=", "none.yaml"]),
        (["--teacher", tmp_path / "broken.yaml"], ["teacher=", "broken.yaml"]),
        (["--teacher", tmp_path / "empty"], ["teacher=", "empty"]),
        (["--teacher", teacher, "--unlabelled", tmp_path / "empty"], ["unlabelled=", "holds no photo"]),
        (["--teacher", teacher, "--unlabelled", tmp_path / "nowhere"], ["unlabelled=", "no such folder"]),
        (["--unlabelled", tmp_path / "empty"], ["unlabelled=", "teacher is needed"]),
    ]:
        told = refusal(*start, *arguments)
        assert "\n" not in told
        assert all(word in told for word in words), told
        assert not (tmp_path / "run").exists()


def test_a_yolo_learns_from_a_teacher(photos: Path, hidden: Path, teacher: Path, tmp_path: Path) -> None:
    yolo = pytest.importorskip("detectors.training.yolo")
    values = {
        "data": str(photos), "detector": "YOLOClassifier", "model": "yolo11n-cls.yaml", "epochs": 1, "batch_size": 8,
        "micro_batch": 4, "teacher": str(teacher), "unlabelled": [str(hidden)], "teacher_share": 1.0,
    }  # fmt: skip
    losses = []
    for name, changed in (("taught", {}), ("alone", {"teacher": None, "unlabelled": []})):
        job = start(tmp_path / name, Spy(), values | changed)
        data, stopping = open_dataset(job.config, tmp_path, Spy(), 1), StopSignal(None, Spy())
        if job.config.teacher is not None:
            data, _ = taught(job, data, stopping)
        result = yolo.train(job, data, fingerprint(data), stopping)
        losses.append(result.history[0]["loss"])
        assert 0 <= result.history[-1]["eval_accuracy"] <= 1
    assert losses[0] != losses[1]
