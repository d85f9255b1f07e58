"""`roadwork-miner bench`: real workers, real daemons. No test asserts how fast anything is."""

import json
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from detectors.models.manifest import Manifest
from miner.bench.client import Worker
from miner.bench.worker import BenchJob
from miner.errors import CouldNotStart
from tests.models import make_vit
from tests.process.daemon import PATIENCE, clean_environment, eventually

QUICK = ("--seconds", "1")


def bench(models: Path, *arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    run = subprocess.run(
        [sys.executable, "-m", "miner", "bench", "--set", f"MODELS_DIR={models}", *map(str, arguments)],
        capture_output=True, text=True, timeout=PATIENCE * 2, env=clean_environment(),
    )  # fmt: skip
    assert run.returncode == code, run.stderr
    assert "Traceback" not in run.stderr
    return run


def figures(run: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    found = json.loads(run.stdout)
    assert isinstance(found, dict)
    return found


@pytest.fixture(scope="session")
def own_vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small ViT with its original weights, named by a YAML file."""
    folder = tmp_path_factory.mktemp("bench")
    make_vit(folder / "vit")
    path = folder / "vit.yaml"
    path.write_text("hf_repo: vit\n")
    return path


def test_the_starter_model_is_measured_on_what_is_installed(tmp_path: Path) -> None:
    found = figures(bench(tmp_path, *QUICK, "--json"))
    names = [competitor["name"] for competitor in found["competitors"]]
    assert names[0] == "onnx fp32"
    assert not found["left_out"]
    assert found["verdict"]["name"] == "onnx fp32"
    assert found["verdict"]["met"] is True
    assert {"fp32", "int8"} <= set(found["least_seconds"])
    for competitor in found["competitors"]:
        assert [level["at_once"] for level in competitor["levels"]] == [1, 2, 4, 10]
        for level in competitor["levels"]:
            assert 0 < level["p50"] <= level["p95"] <= level["p99"]
            assert level["samples"] % level["at_once"] == 0
        assert set(competitor["alone"]) == {"224×224", "1920×1080"}
        assert 0 < competitor["warm_bytes"] <= competitor["peak_bytes"]
        assert 0 < competitor["load_seconds"] < competitor["first_seconds"]
        assert competitor["difference"] <= 1e-3
        fastest = min(alone["p50"] for alone in competitor["alone"].values())
        assert competitor["of_peak"] == pytest.approx(found["least_seconds"][competitor["precision"]] / fastest)
        assert competitor["slots"] * competitor["threads"] <= found["cores"]
        if competitor["backend"] == "onnx":
            assert competitor["imported"] == ["onnxruntime"], "nothing else that is large"


@pytest.mark.export
def test_the_library_itself_and_torch_are_measured_beside_us_and_answer_alike(tmp_path: Path, own_vit: Path) -> None:
    arguments = ("--config", own_vit, "--reference", "--backends", "onnx,torch", "--concurrency", 3)
    found = figures(bench(tmp_path, *QUICK, "--json", *arguments))
    assert not found["left_out"]
    reference, *ours = found["competitors"]
    assert (reference["name"], reference["kind"]) == ("transformers.pipeline", "reference")
    assert {"onnx fp32", "torch fp32"} <= {one["name"] for one in ours}
    for one in ours:
        assert one["kind"] == "ours"
        assert one["probabilities"] == pytest.approx(reference["probabilities"], abs=1e-3)
        assert one["difference"] <= 1e-3
        assert ("torch" in one["imported"]) is (one["backend"] == "torch")
    assert [level["at_once"] for level in reference["levels"]] == [1, 2, 3, 4, 10]
    assert found["verdict"]["at_once"] == 3


def test_a_worker_that_can_not_load_says_why_and_leaves(tmp_path: Path) -> None:
    job = BenchJob("ours", "ViT", "none.yaml", str(tmp_path), "onnx", "fp32", 1, 1, [])
    with pytest.raises(CouldNotStart, match=r"^onnx fp32: no detector configuration 'none.yaml'"):
        Worker(job, clean_environment())
    with pytest.raises(CouldNotStart, match=r"^onnx fp32: FileNotFoundError"):
        Worker(replace(job, pictures=[str(tmp_path / "none.jpg")]), clean_environment())
    starter = Path(__file__).resolve().parents[2] / "detectors" / "starter"
    model = Path(shutil.copytree(starter, tmp_path / "other", ignore=shutil.ignore_patterns("optimized")))
    Manifest.read(model).model_copy(update={"known_answer": 0.987}).write(model)
    (tmp_path / "other.yaml").write_text("model_folder: other\n")
    with pytest.raises(CouldNotStart, match=r"the known picture, not 0\.9870"):
        Worker(replace(job, config=str(tmp_path / "other.yaml")), clean_environment())


def test_tables_the_verdict_and_a_picture_are_for_people(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "bench.png"
    run = bench(tmp_path, "--rounds", 1, "--backends", "onnx", "--plot", path)
    assert "onnx fp32 serves up to " in run.stdout
    assert " validators at once" in run.stdout
    assert path.read_bytes().startswith(b"\x89PNG")


def test_an_ensemble_is_measured_as_make_bench_asks_for_it(tmp_path: Path) -> None:
    starter = Path(__file__).resolve().parents[2] / "detectors" / "starter"
    (tmp_path / "both.yaml").write_text(f"branches: {{a: {{model_folder: {starter}}}, b: {{model_folder: {starter}}}}}")
    arguments = ("--detector", "Ensemble", "--config", tmp_path / "both.yaml", "--backends", "onnx")
    run = bench(tmp_path / "models", *arguments, "--rounds", 1, "--reference-if-there")
    assert "the model's own library" in run.stderr
    assert "onnx fp32 serves up to " in run.stdout


def test_exit_code_1_when_the_deadline_is_missed(tmp_path: Path) -> None:
    run = bench(tmp_path, "--rounds", 1, "--backends", "onnx", "--set", "DEADLINE_CAP_SECONDS=0.5001", code=1)
    assert "too late" in run.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--reference",), "--reference: needs "),
        (("--backends", "tpu"), "--backends=tpu: known: onnx, "),
        (("--pictures", "."), "--pictures=.: no "),
        (("--daemon", "--reference"), "--daemon: "),
    ],
)
def test_what_can_not_be_measured_is_said_at_once(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "miner", "bench", *arguments], capture_output=True, text=True, timeout=PATIENCE,
        env=clean_environment(), cwd=tmp_path,
    )  # fmt: skip
    assert run.returncode == 2, run.stderr
    assert run.stderr.startswith(f"error: {message}")


def test_where_a_graphs_time_goes_is_told_by_operator(tmp_path: Path) -> None:
    found = figures(bench(tmp_path, "--profile", "--json"))
    (operators,) = found["operators"].values()
    assert sum(one["share"] for one in operators) == pytest.approx(1)
    assert operators[0]["name"] == "Conv", "the starter's products are convolutions"
    refused = bench(tmp_path, "--profile", "--reference", "--rounds", 2, code=2).stderr
    assert refused == "error: --profile: without --reference, --rounds\n"


def test_each_branch_of_an_ensemble_is_profiled(tmp_path: Path) -> None:
    starter = Path(__file__).resolve().parents[2] / "detectors" / "starter"
    (tmp_path / "both.yaml").write_text(f"branches: {{a: {{model_folder: {starter}}}, b: {{model_folder: {starter}}}}}")
    arguments = ("--detector", "Ensemble", "--config", tmp_path / "both.yaml", "--profile", "--json")
    found = figures(bench(tmp_path / "models", *arguments))["operators"]
    assert list(found) == ["a: onnx fp32", "b: onnx fp32"]
    assert [operators[0]["name"] for operators in found.values()] == ["Conv", "Conv"]


def test_a_whole_daemon_is_measured(tmp_path: Path) -> None:
    found = figures(bench(tmp_path, "--daemon", "--backends", "onnx", "--requests", 20, "--json"))
    (daemon,) = found["daemons"]
    assert daemon["name"] == "onnx fp32"
    assert daemon["requests"] == 20
    assert daemon["unanswered"] == 0
    assert 0 < daemon["overhead"] < daemon["latency"]
    assert 0 < daemon["resident_first"] <= daemon["peak"]
    assert daemon["first_answer"] > 0


@pytest.mark.parametrize("as_json", [False, True])
def test_what_was_measured_is_kept_when_a_bench_of_daemons_is_stopped(tmp_path: Path, as_json: bool) -> None:
    pytest.importorskip("openvino")
    out, err = tmp_path / "out.txt", tmp_path / "err.txt"
    command = [sys.executable, "-m", "miner", "bench", "--daemon", "--requests", "20", *(["--json"] if as_json else [])]
    environment = clean_environment(MODELS_DIR=str(tmp_path))
    with out.open("wb") as stdout, err.open("wb") as stderr:
        run = subprocess.Popen(command, stdout=stdout, stderr=stderr, stdin=subprocess.DEVNULL, env=environment)
    lines = err if as_json else out

    def second_daemon() -> psutil.Process | None:
        """Return the one that serves the second variant, once the first has its line in the file."""
        found = psutil.Process(run.pid).children() if "onnx fp32: first answer after" in lines.read_text() else []
        return next((one for one in found if "IMAGE_DETECTOR_BACKEND=openvino" in one.cmdline()), None)

    daemon = eventually(second_daemon)
    run.terminate()
    assert run.wait(PATIENCE) == 128 + signal.SIGTERM, err.read_text()
    assert not daemon.is_running()
    assert "Traceback" not in err.read_text()
    assert "not measured: openvino fp32" in lines.read_text()
    if as_json:
        told = json.loads(out.read_text())
        assert [one["name"] for one in told["daemons"]] == ["onnx fp32"]
        assert told["not_measured"] == ["openvino fp32"]
    else:
        assert "onnx fp32" in out.read_text().partition("the whole daemon")[2]


def test_the_ceiling_of_the_axon_is_measured_with_its_profile() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "tests.bench.axon", "--requests", "200", "--rounds", "1", "--json"],
        capture_output=True, text=True, timeout=PATIENCE, env=clean_environment(), check=True,
    )  # fmt: skip
    found = figures(run)
    assert found["rate"] > 0
    assert found["cpu_seconds"][0] > 0
    functions = [name for name, _ in found["profile"]]
    assert any("bittensor_core" in name for name in functions), "the signatures are real"
    assert 0 < sum(share for _, share in found["profile"]) <= 1


def test_the_memory_of_several_hotkeys_is_measured_beside_processes_of_their_own() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "tests.bench.keys", "--keys", "2", "--processes", "1", "--requests", "4", "--json"],
        capture_output=True, text=True, timeout=PATIENCE, env=clean_environment(), check=True,
    )  # fmt: skip
    together, apart = json.loads(run.stdout)
    assert (together["hotkeys"], together["processes"]) == (2, 1)
    assert (apart["hotkeys"], apart["processes"]) == (1, 1)  # one each; more of them would only take longer
    assert 0 < together["pss"] <= together["rss"]
    assert 0 < apart["pss"] <= apart["rss"]


def test_a_daemon_that_does_not_start_is_one_line_and_exit_code_3(tmp_path: Path) -> None:
    (tmp_path / "gone.yaml").write_text("model_folder: gone\n")
    run = subprocess.run(
        [sys.executable, "-m", "tests.bench.keys", "--keys", "1", "--processes", "0"], capture_output=True, text=True,
        timeout=PATIENCE, env=clean_environment(IMAGE_DETECTOR_CONFIG=str(tmp_path / "gone.yaml")),
    )  # fmt: skip
    assert run.returncode == 3, run.stderr
    (line,) = run.stderr.splitlines()
    assert line.startswith("error: the daemon ended")


def test_the_way_to_another_machine_is_measured_beside_the_graph_here(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.bench.hop", "--requests", "5", "--json"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, env=clean_environment(), check=True)
    found = figures(run)
    assert (found["model"], found["endpoints"], found["requests"]) == ("starter", [], 5)
    assert found["cost"] == pytest.approx(found["there"][0] - found["here"][0])
    nowhere = clean_environment(REMOTE_ENDPOINTS="http://me:hunter2pw@127.0.0.1:1")
    run = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, env=nowhere)
    assert run.returncode == 3, run.stderr
    last = run.stderr.splitlines()[-1]
    assert (last.startswith("error: "), "endpoint 0 (http://127.0.0.1:1)" in last) == (True, True)
