"""The cut of a graph before its last layer, which gives features."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from detectors.errors import ModelError
from detectors.export.features import FEATURES, cut
from detectors.models import MODEL_FILE
from tests.onnx_files import make_onnx

DATA = f"{MODEL_FILE}.data"
PICTURES = [np.random.default_rng(n).normal(0, 1, (1, 3, 64, 64)).astype(np.float32) for n in range(3)]


def said(path: Path, picture: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {session.get_inputs()[0].name: picture})[0])


def make(folder: Path, are_two: bool = False) -> Path:
    """Write a graph whose last layer is a Gemm, or MatMul and Add: exporters write either."""
    path = make_onnx(folder / MODEL_FILE)
    model = onnx.load(path)
    *_, flatten, gemm = model.graph.node
    flatten.output[0] = gemm.input[0] = "flat"
    if are_two:
        model.graph.node.pop()
        model.graph.node.append(helper.make_node("MatMul", gemm.input[:2], ["product"]))
        model.graph.node.append(helper.make_node("Add", ["product", gemm.input[2]], gemm.output))
    onnx.save_model(model, path)
    return path


@pytest.mark.parametrize("is_outside", [True, False])
@pytest.mark.parametrize("are_two", [True, False])
def test_features_with_the_last_layer_are_the_logits_and_weights_stay_where_they_are(
    tmp_path: Path, is_outside: bool, are_two: bool
) -> None:
    path = make(tmp_path, are_two)
    model = onnx.load(path)
    kernel, bias = (numpy_helper.to_array(one) for one in model.graph.initializer if one.name in ("head", "bias"))
    logits = [said(path, picture) for picture in PICTURES]
    if is_outside:
        onnx.save_model(model, path, save_as_external_data=True, location=DATA, size_threshold=0)
    cut(tmp_path, 8, PICTURES)
    assert sorted(one.name for one in tmp_path.iterdir()) == [MODEL_FILE, *[DATA] * is_outside]
    features = [said(path, picture) for picture in PICTURES]
    assert [one.shape for one in features] == [(1, 8)] * 3
    for given, expected in zip(features, logits, strict=True):
        assert given @ kernel + bias == pytest.approx(expected, abs=1e-5)
    (weight,) = onnx.load(path, load_external_data=False).graph.initializer
    assert bool(weight.external_data) == is_outside
    assert bool(weight.raw_data) != is_outside
    assert onnx.load(path).graph.output[0].name == FEATURES


def test_a_graph_of_another_width_stays_as_it_was(tmp_path: Path) -> None:
    path = make(tmp_path)
    onnx.save_model(onnx.load(path), path, save_as_external_data=True, location=DATA, size_threshold=0)
    before = path.read_bytes()
    with pytest.raises(ModelError, match="9 features"):
        cut(tmp_path, 9, PICTURES)
    assert path.read_bytes() == before
    assert sorted(one.name for one in tmp_path.iterdir()) == [MODEL_FILE, DATA]
