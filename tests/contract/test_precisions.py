"""Faster precisions: what the gate lets through, and what it does not."""

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper
from onnx.external_data_helper import set_external_data
from typer.testing import CliRunner

from detectors import registry
from detectors.base import RunOptions
from detectors.builders.half import widened
from detectors.console import Steps, Thing
from detectors.errors import DetectorConfigError, ModelError, NotPrepared
from detectors.load import load_detector
from detectors.machine import LOUD
from detectors.models import MODEL_FILE
from detectors.models.config import DetectorConfig
from detectors.models.manifest import Manifest, Precision
from detectors.photos.synthetic import many_pictures
from detectors.quantize import Inputs, Recipe
from detectors.quantize.gate import compare
from detectors.quantize.quantize import CalibrationPhotos, PrecisionRequest, make_faster, most_sensitive_layers
from detectors.quantize.recipes import cpu_has_bf16, dynamic
from miner.cli import app

STARTER = Path(__file__).resolve().parents[2] / "detectors" / "starter"
CONFIG = DetectorConfig(model_folder=STARTER, path=STARTER / "starter.yaml")
PHOTOS = CalibrationPhotos(many_pictures(24))
UNTIMED = {"seconds": 0, "seconds_fp32": 0, "others": None}


def with_recipes(backend: str, recipes: dict[str, str]) -> registry.BackendEntry:
    """Return a backend's entry with other ways to make its int8."""
    entry = registry.BACKENDS[backend]
    return replace(entry, recipes={**entry.recipes, "int8": recipes})


# Those with merged tokens are for networks that have some: test_token_merging.py.
WAYS = [
    key for key in registry.VARIANTS if key[0] not in registry.MERGED.values() and (key[0] != "bf16" or cpu_has_bf16())
]


@pytest.mark.parametrize(("precision", "backend"), WAYS)
def test_a_faster_graph_serves_with_what_was_measured_on_it(tmp_path: Path, precision: Precision, backend: str) -> None:
    # Made pictures are nothing that the starter knows, and one of them may well lie near its threshold.
    folder = make_faster(STARTER, PrecisionRequest(precision, backend, tmp_path, RunOptions(), PHOTOS, 0.1))
    manifest = Manifest.read(folder)
    assert (manifest.precision, manifest.backend) == (precision, backend)
    gate = manifest.gate
    assert gate is not None
    assert gate.pictures == 16  # the others were calibrated on
    assert 0 < gate.max_difference < 0.5
    assert gate.mean_difference <= gate.max_difference
    assert gate.flips <= 0.1
    assert gate.seconds > 0
    assert gate.others is not None
    assert (gate.speed is None) == (gate.others > LOUD)
    measured = compare(STARTER, {backend: folder}, RunOptions())
    assert Manifest.read(folder).gate == measured[backend]
    assert measured[backend].seconds_fp32 not in (0, gate.seconds_fp32)
    assert measured[backend].model_copy(update=UNTIMED) == gate.model_copy(update=UNTIMED)
    detector = load_detector("ViT", CONFIG, tmp_path, backend, RunOptions(), precision)
    assert detector.verify() > 0


class Counted(Steps):
    """Steps that write down how many things each of them went through."""

    def __init__(self) -> None:
        super().__init__(self._begin)
        self.counts: list[tuple[str, int]] = []

    def _begin(self, step: str) -> None:
        self.step = step

    def count(self, things: Sequence[Thing]) -> Iterator[Thing]:
        self.counts.append((self.step, len(things)))
        yield from super().count(things)


@pytest.mark.parametrize("backend", ["onnx", "openvino"])
def test_each_photo_that_is_calibrated_on_or_judged_moves_the_bar(tmp_path: Path, backend: str) -> None:
    steps = Counted()
    make_faster(STARTER, PrecisionRequest("int8", backend, tmp_path, RunOptions(), PHOTOS, 1.0, progress=steps))
    assert ("fp32 answers to 16 pictures", 16) in steps.counts
    recipes = registry.BACKENDS[backend].recipes["int8"]
    # Which some do not get to: of the starter every layer has weights.
    for count in (8, 16):
        assert {name for name, counted in steps.counts if counted == count} & recipes.keys(), count


def test_labelled_photos_put_accuracy_and_reward_into_the_manifest(tmp_path: Path) -> None:
    photos = CalibrationPhotos(PHOTOS.data, [number % 2 == 0 for number in range(24)])
    gate = Manifest.read(
        make_faster(STARTER, PrecisionRequest("int8", "onnx", tmp_path, RunOptions(), photos, 0.1))
    ).gate
    assert gate is not None
    assert gate.labelled is not None
    assert gate.labelled.pictures == 16
    assert abs(gate.labelled.accuracy - gate.labelled.accuracy_fp32) <= 3 / 16


def damage(fp32: Path, folder: Path, inputs: Inputs, keep: Sequence[str]) -> None:
    """Write a graph whose layers have lost half of their weights, but for those to be kept."""
    graph = onnx.load(fp32 / MODEL_FILE)
    spared = {node.input[1] for node in graph.graph.node if node.name in keep}
    for tensor in graph.graph.initializer:
        value = numpy_helper.to_array(tensor)
        if value.ndim >= 2 and tensor.name not in spared:
            halved = np.where(np.arange(value.size).reshape(value.shape) % 2, 0, value).astype(value.dtype)
            tensor.CopyFrom(numpy_helper.from_array(halved, tensor.name))
    onnx.save_model(graph, folder / MODEL_FILE)


damaged = Recipe(damage)


def test_a_damaged_graph_is_refused_after_keeping_layers_was_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(registry.BACKENDS, "onnx", with_recipes("onnx", {"damaged": f"{__name__}:damaged"}))
    steps: list[str] = []
    with pytest.raises(ModelError, match="no int8 graph for onnx") as caught:
        make_faster(
            STARTER, PrecisionRequest("int8", "onnx", tmp_path, RunOptions(), PHOTOS, progress=Steps(steps.append))
        )
    assert "damaged, 2 layers in fp32" in steps
    assert "damaged with 16 layers in fp32" in str(caught.value)
    assert not list(tmp_path.rglob("manifest.json"))
    assert not list(tmp_path.rglob("*.partial"))


def fail(fp32: Path, folder: Path, inputs: Inputs, keep: Sequence[str]) -> None:
    raise RuntimeError("Check 'false' failed at src/plugins/intel_cpu/src/node.cpp:1\n[CPU] no such kernel")


failing = Recipe(fail)


def test_what_a_library_raises_is_the_reason_why_there_is_no_such_graph(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The caller goes on with the next backend."""
    monkeypatch.setitem(registry.BACKENDS, "openvino", with_recipes("openvino", {"failing": f"{__name__}:failing"}))
    with pytest.raises(ModelError, match=r"failing: .*openvino.*no such kernel") as caught:
        make_faster(STARTER, PrecisionRequest("int8", "openvino", tmp_path, RunOptions(), PHOTOS))
    assert len(str(caught.value).splitlines()) == 1


def spoil_source(fp32: Path, folder: Path, inputs: Inputs, keep: Sequence[str]) -> None:
    shutil.copyfile(fp32 / MODEL_FILE, folder / MODEL_FILE)
    (fp32 / MODEL_FILE).write_bytes(b"no graph")


spoiling = Recipe(spoil_source)


def test_a_graph_whose_layers_can_not_be_ranked_is_left_to_the_next_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(STARTER, tmp_path / "model", ignore=shutil.ignore_patterns("optimized")))
    ways = {"first": f"{__name__}:spoiling", "second": f"{__name__}:failing"}
    monkeypatch.setitem(registry.BACKENDS, "onnx", with_recipes("onnx", ways))
    request = PrecisionRequest("int8", "onnx", tmp_path, RunOptions(), PHOTOS, max_flips=-1)  # the first is refused
    with pytest.raises(ModelError, match=r"first: .*second: .*no such kernel") as caught:
        make_faster(folder, request)
    assert len(str(caught.value).splitlines()) == 1


def test_the_layers_of_a_graph_above_2_gb_are_ranked_as_well(tmp_path: Path) -> None:
    wide = widened(STARTER, MODEL_FILE, tmp_path / "wide")
    graph = onnx.load(wide / MODEL_FILE)
    inputs = [np.random.default_rng(0).standard_normal((1, 3, *_size(graph)), dtype=np.float32) * 0.3]
    expected = most_sensitive_layers(wide / MODEL_FILE, inputs)
    path = tmp_path / MODEL_FILE
    onnx.save_model(graph, path, save_as_external_data=True, location="weights", size_threshold=100)  # shapes stay
    graph = onnx.load(path, load_external_data=False)
    unused = graph.graph.initializer.add(name="unused", data_type=TensorProto.FLOAT, dims=[2**29 + 1], raw_data=b"")
    size = (tmp_path / "weights").stat().st_size
    set_external_data(unused, "weights", offset=size, length=4 * unused.dims[0])
    unused.ClearField("raw_data")
    path.write_bytes(graph.SerializeToString())
    os.truncate(tmp_path / "weights", size + 4 * unused.dims[0])  # sparse: it takes no space
    assert most_sensitive_layers(path, inputs) == expected


def test_the_most_sensitive_layers_are_those_that_eight_bits_hurt(tmp_path: Path) -> None:
    folder = widened(STARTER, MODEL_FILE, tmp_path / "wide")
    graph = onnx.load(folder / MODEL_FILE)
    inputs = [np.random.default_rng(0).standard_normal((1, 3, *_size(graph)), dtype=np.float32) * 0.3]
    least = most_sensitive_layers(folder / MODEL_FILE, inputs)[-1]
    (victim,) = (node for node in graph.graph.node if node.name == least)
    (tensor,) = (tensor for tensor in graph.graph.initializer if tensor.name == victim.input[1])
    value = numpy_helper.to_array(tensor).copy()
    value[0] = 100 * np.abs(value).max()  # outliers, which leave few steps for the rest
    tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    onnx.save_model(graph, folder / MODEL_FILE)
    assert least in most_sensitive_layers(folder / MODEL_FILE, inputs)[:4]
    # What a recipe does not round can't be spared it.
    kinds = {node.name: node.op_type for node in graph.graph.node}
    ranked = most_sensitive_layers(folder / MODEL_FILE, inputs, dynamic.layers)
    assert ranked
    assert {kinds[name] for name in ranked} <= {"Gemm", "MatMul"}


def _size(graph: onnx.ModelProto) -> tuple[int, int]:
    shape = graph.graph.input[0].type.tensor_type.shape.dim
    return shape[2].dim_value, shape[3].dim_value


def test_a_precision_that_was_not_made_says_so(tmp_path: Path) -> None:
    with pytest.raises(NotPrepared):
        load_detector("ViT", CONFIG, tmp_path, "onnx", RunOptions(), "int8")


def test_a_precision_that_a_backend_does_not_have_says_so(tmp_path: Path) -> None:
    with pytest.raises(DetectorConfigError, match="the backend 'torch' has no int8"):
        load_detector("ViT", CONFIG, tmp_path, "torch", RunOptions(), "int8")


@pytest.mark.parametrize(("flags", "has"), [("avx2", False), ("avx512_bf16", True), ("amx_bf16 amx_tile", True)])
def test_bf16_is_for_cpus_that_have_it(tmp_path: Path, flags: str, has: bool) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "cpuinfo").write_text(f"flags : fpu {flags}\n")
    assert cpu_has_bf16(tmp_path) is has


def test_what_photos_have_judged_is_made_anew_by_photos_alone(tmp_path: Path) -> None:
    order = PrecisionRequest("int8", "onnx", tmp_path, RunOptions(), PHOTOS, 0.5)
    path = make_faster(STARTER, order) / "manifest.json"
    kept = path.read_bytes()
    yaml = tmp_path / "mine.yaml"
    yaml.write_text(f"model_folder: {STARTER}\n")
    flags = ["--config", str(yaml), "--set", f"MODELS_DIR={tmp_path}", "--set", "IMAGE_DETECTOR_PRECISION=int8"]
    done = CliRunner().invoke(app, ["models", "download", *flags])
    assert done.exit_code == 0, done.output
    assert [folder.name for folder in path.parent.parent.iterdir()] == [path.parent.name], "nothing for OpenVINO either"
    steps: list[str] = []
    make_faster(STARTER, replace(order, photos=CalibrationPhotos.by_arithmetic(), progress=Steps(steps.append)))
    assert [step for step in steps if "--pictures FOLDER" in step] == steps
    assert path.read_bytes() == kept

    def doubts() -> list[str]:
        shown = CliRunner().invoke(app, ["models", "show", "--json", *flags])
        found: list[str] = json.loads(shown.stdout)[0]["doubts"]
        return [doubt for doubt in found if "judged at the threshold 0.500" in doubt]

    assert not doubts()
    yaml.write_text(f"model_folder: {STARTER}\nthreshold: 0.35\n")
    assert len(doubts()) == 1
    make_faster(STARTER, replace(order, threshold=0.35, max_flips=1.0))
    assert path.read_bytes() != kept
    assert not doubts()
