"""Photos a second, measured with tiny networks: of each method, and taken by the run."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

pytest.importorskip("ultralytics")

from torch import nn

from detectors.console import Screen
from detectors.training import probe, throughput
from detectors.training.budget import GB, Machine, MachineReading
from detectors.training.config import TrainConfig
from detectors.training.data import open_dataset
from detectors.training.job import Job
from miner.cli import app
from tests.models import make_resnet, make_vit
from tests.photos import fill

pytestmark = [pytest.mark.usefixtures("imports_are_not_garbage"), pytest.mark.export]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fill(tmp_path_factory.mktemp("photos") / "photos", 6)


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_vit(tmp_path_factory.mktemp("vit") / "tiny", hidden_size=16, num_hidden_layers=1)


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "PROBE_SECONDS", 0.01)
    monkeypatch.setattr(probe, "LONGEST", 1e6)


def job(folder: Path, photos: Path, available: float = 12 * GB, **values: object) -> Job:
    config = TrainConfig.make({"data": str(photos), "batch_size": 8} | values)
    machine = Machine(2, None, 16 * GB, available, "a CPU", frozenset({"avx512_bf16"}))
    reading = MachineReading(1 * GB, available, 16 * GB)
    return Job(config, folder, folder / "cache", machine, lambda: reading, Screen(Console(file=io.StringIO())))


@pytest.mark.parametrize("method", ["full", "lora", "head"])
def test_each_method_is_measured_as_it_trains(method: str, photos: Path, vit: Path, tmp_path: Path) -> None:
    asked = job(tmp_path, photos, model=str(vit), method=method, threads=1, micro_batch=4)
    rows = throughput.compare(asked, open_dataset(asked.config, tmp_path, asked.screen, 1))
    assert [row.setting.workers for row in rows][:3] == [0, 1, 2]
    assert {row.setting.precision for row in rows} == ({"fp32"} if method == "head" else {"fp32", "bf16"})
    assert all(row.rate > 0 for row in rows)
    assert all(row.memory >= GB for row in rows)


def test_a_yolo_is_measured(photos: Path, tmp_path: Path) -> None:
    fixed = {"threads": 1, "workers": 0, "micro_batch": 4, "precision": "fp32"}
    asked = job(tmp_path, photos, detector="YOLOClassifier", model="yolo11n-cls.yaml", **fixed)
    (row,) = throughput.compare(asked, open_dataset(asked.config, tmp_path, asked.screen, 1))
    assert row.rate > 0


def test_the_measured_network_learns_nothing_of_its_batches(photos: Path, tmp_path: Path) -> None:
    """The run begins with weights and statistics as they were."""
    resnet = make_resnet(tmp_path / "resnet")
    asked = job(tmp_path, photos, model=str(resnet), method="full", workers=0)
    before = (resnet / "model.safetensors").read_bytes()
    data = open_dataset(asked.config, tmp_path, asked.screen, 1)
    chosen = throughput.with_best(asked, data)
    assert (resnet / "model.safetensors").read_bytes() == before
    assert chosen.config == TrainConfig.read(tmp_path / "config.yaml")
    assert None not in (chosen.config.threads, chosen.config.micro_batch)
    assert chosen.config.workers == 0


def test_statistics_that_are_kept_are_kept_here_too(photos: Path, tmp_path: Path) -> None:
    asked = job(tmp_path, photos, model=str(make_resnet(tmp_path / "resnet")), method="full", workers=0, threads=1)
    modes = []

    def keep(network: nn.Module, *_: object) -> None:
        modes.append({type(module).__name__: module.training for module in network.modules()})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(throughput, "train_step", keep)
        throughput.compare(asked, open_dataset(asked.config, tmp_path, asked.screen, 1))
    assert {mode["BatchNorm2d"] for mode in modes} == {False}
    assert {mode["ResNetForImageClassification"] for mode in modes} == {True}


def test_a_larger_micro_batch_that_would_not_fit_is_not_tried(photos: Path, vit: Path, tmp_path: Path) -> None:
    readings = iter([GB, *[15.9 * GB] * 10_000])
    asked = job(tmp_path, photos, model=str(vit), method="full", threads=1, workers=0)
    starved = MachineReading(1 * GB, 12 * GB, 16 * GB)

    def read() -> MachineReading:
        return MachineReading(next(readings), starved.available, starved.memory)

    probed = Job(asked.config, asked.run, asked.cache, asked.machine, read, asked.screen)
    rows = throughput.compare(probed, open_dataset(asked.config, tmp_path, asked.screen, 1))
    sizes = {row.setting.micro_batch: row.rate for row in rows if row.setting.precision == "fp32"}
    assert sizes[8] == 0.0
    assert sizes[4] > 0


def test_the_command_compares_alone_or_before_a_run(photos: Path, vit: Path, tmp_path: Path) -> None:
    command = ["train", str(photos), "--model", str(vit), "--cache", str(tmp_path / "cache"), "--probe", "--json"]
    command += ["--set", "threads=1", "--epochs", "1", "--set", "views=0"]
    done = CliRunner().invoke(app, command, catch_exceptions=False)
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["best"] in found["rows"]
    assert "photos a second" in done.stderr
    assert "--set workers=" in done.stderr
    run = tmp_path / "run"
    done = CliRunner().invoke(app, [*command, "--out", str(run)], catch_exceptions=False)
    assert done.exit_code == 0, done.stderr
    config = TrainConfig.read(run / "config.yaml")
    assert (config.threads, config.workers is None, config.micro_batch is None) == (1, False, False)
    refused = CliRunner().invoke(app, ["train", "--resume", str(run), "--probe"])
    assert refused.exception is not None
