"""Repositories of other servers, as those servers read them."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import onnxruntime
import pytest
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import TYPE_FP32, ModelConfig, ModelInstanceGroup

from detectors.errors import ModelError
from detectors.export.serving_repos import write_layout
from detectors.models import MODEL_FILE
from detectors.models.manifest import NAME, Manifest, sha256

STARTER = Path(__file__).resolve().parents[4] / "detectors" / "starter"
SUM = Manifest.read(STARTER).files[MODEL_FILE]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model folder that a test may change."""
    return Path(shutil.copytree(STARTER, tmp_path / "model", ignore=shutil.ignore_patterns("optimized", "*.md")))


def change(folder: Path, **values: object) -> None:
    path = folder / NAME
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_triton_reads_what_the_graph_is(folder: Path, tmp_path: Path) -> None:
    target = write_layout("triton", folder, tmp_path / "repository", threads=3)
    assert target == tmp_path / "repository" / "starter"
    assert sorted(str(path.relative_to(target)) for path in target.rglob("*") if path.is_file()) == [
        "1/model.onnx", "config.pbtxt", "labels.txt",
    ]  # fmt: skip
    assert sha256(target / "1" / MODEL_FILE) == SUM
    config = text_format.Parse((target / "config.pbtxt").read_text(), ModelConfig())
    assert (config.name, config.backend, config.max_batch_size) == ("starter", "onnxruntime", 0)
    session = onnxruntime.InferenceSession(target / "1" / MODEL_FILE, providers=["CPUExecutionProvider"])
    for told, node in ((config.input, session.get_inputs()), (config.output, session.get_outputs())):
        assert [(one.name, list(one.dims), one.data_type) for one in told] == [
            (one.name, one.shape, TYPE_FP32) for one in node
        ]
    assert [group.kind for group in config.instance_group] == [ModelInstanceGroup.KIND_CPU]
    assert config.parameters["intra_op_thread_count"].string_value == "3"
    (warmup,) = config.model_warmup
    assert list(warmup.inputs) == ["pixel_values"]
    assert (target / config.output[0].label_filename).read_text().split() == ["None", "Roadwork"]


def test_openvino_model_server_lists_each_model_once(folder: Path, tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    write_layout("ovms", folder, repository, threads=2)
    change(folder, name="other", precision="bf16")
    write_layout("ovms", folder, repository, threads=2)
    write_layout("ovms", folder, repository, threads=4)
    listed = {one["config"]["name"]: one["config"] for one in json.loads((repository / "config.json").read_text())[
        "model_config_list"
    ]}  # fmt: skip
    assert list(listed) == ["starter", "other"]
    assert {name: one["base_path"] for name, one in listed.items()} == {
        "starter": "/models/starter", "other": "/models/other",
    }  # fmt: skip
    assert listed["starter"]["plugin_config"]["INFERENCE_PRECISION_HINT"] == "f32"
    assert listed["other"]["plugin_config"] == {
        "INFERENCE_NUM_THREADS": 4, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "bf16",
    }  # fmt: skip
    for name in listed:
        assert sha256(repository / name / "1" / MODEL_FILE) == SUM


def test_an_older_copy_is_replaced_as_a_whole(folder: Path, tmp_path: Path) -> None:
    stale = write_layout("triton", folder, tmp_path, threads=1) / "1" / "model.onnx.data"
    stale.write_bytes(b"weights of before")
    write_layout("triton", folder, tmp_path, threads=1)
    assert not stale.exists()
    assert not list(tmp_path.glob("*.partial"))


def test_a_damaged_model_goes_nowhere(folder: Path, tmp_path: Path) -> None:
    (folder / MODEL_FILE).write_bytes(b"")
    with pytest.raises(ModelError, match=r"model\.onnx .* sum"):
        write_layout("ovms", folder, tmp_path / "repository", threads=1)
    assert not (tmp_path / "repository").exists()


def test_a_graph_of_openvino_is_none_of_tritons(folder: Path, tmp_path: Path) -> None:
    (folder / MODEL_FILE).rename(folder / "model.xml")
    change(folder, files={"model.xml": SUM})
    with pytest.raises(ModelError, match=r"model\.xml, .*Triton"):
        write_layout("triton", folder, tmp_path, threads=1)
    assert (write_layout("ovms", folder, tmp_path, threads=1) / "1" / "model.xml").is_file()


def test_a_folder_without_a_graph_is_refused(folder: Path, tmp_path: Path) -> None:
    change(folder, files={})
    with pytest.raises(ModelError, match="holds no graph"):
        write_layout("ovms", folder, tmp_path / "repository", threads=1)


def test_another_config_json_is_left_as_it_is(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match=r"config\.json.*OpenVINO Model Server"):
        write_layout("ovms", folder, tmp_path, threads=1)
    assert (tmp_path / "config.json").read_text() == "{}"


def export(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    settings = {"MODELS_DIR": str(folder / "models"), "PATH": "/usr/bin:/bin", "HOME": str(folder)}
    command = [sys.executable, "-m", "miner", "export", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=settings, timeout=120)


def test_the_command_writes_it_and_says_where(tmp_path: Path) -> None:
    done = export("--layout", "triton", "--out", str(tmp_path / "repository"), folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(tmp_path / "repository" / "starter")
    assert (tmp_path / "repository" / "starter" / "config.pbtxt").is_file()


def test_the_command_needs_a_place(tmp_path: Path) -> None:
    done = export("--layout", "ovms", folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: --layout=ovms: needs --out")


def test_a_place_that_can_not_be_written_is_one_line(tmp_path: Path) -> None:
    done = export("--layout", "triton", "--out", "/dev/null/repository", folder=tmp_path)
    assert done.returncode == 3
    assert done.stderr.startswith("error: /dev/null/repository/starter ")
    assert done.stderr.endswith(": Not a directory\n")
