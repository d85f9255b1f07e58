"""An ONNX file of one's own: served as it is, on every backend, or refused with the reason."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto
from PIL import Image

from detectors.backends.torch import ensure_torchvision
from detectors.base import RunOptions
from detectors.errors import DetectorConfigError, DetectorError, ModelError, NotPrepared
from detectors.export.export import prepare
from detectors.load import PreparedModel, load_detector
from detectors.models.config import data_files, read_config
from detectors.models.manifest import NO_REFERENCE, Manifest, is_outdated
from detectors.models.sources import model_folder
from detectors.photos.image import decode
from detectors.photos.synthetic import many_pictures, parity_pictures
from detectors.quantize.quantize import CalibrationPhotos, PrecisionRequest, make_faster
from tests.onnx_files import YAML, make_onnx

ensure_torchvision()
from torchvision import transforms  # noqa: E402 - beside a CPU torch it needs the above first

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def own(folder: Path, text: str = YAML, **values: Any) -> str:
    make_onnx(folder / "mine.onnx", **values)
    (folder / "mine.yaml").write_text(f"onnx_path: mine.onnx\n{text}")
    return str(folder / "mine.yaml")


def served(yaml: str, models: Path, backend: str = "onnx", precision: str = "fp32") -> Any:
    detector = load_detector("ViT", read_config(yaml), models, backend, RunOptions(), precision)
    detector.verify()
    return detector


def expected(path: Path, picture: Image.Image, *steps: Any) -> Any:
    """Return the file's own outputs for torchvision's preprocessing."""
    tensor = transforms.Compose([*steps, transforms.ToTensor(), transforms.Normalize(MEAN, STD)])(picture)
    session = onnxruntime.InferenceSession(str(path))
    (given,) = session.get_inputs()
    array = tensor.numpy()[None].astype(np.float16 if "16" in given.type else np.float32)
    if given.shape[-1] == 3:
        array = array.transpose(0, 2, 3, 1)
    return np.asarray(session.run(None, {given.name: array})[-1], np.float64).reshape(-1)


def softmax(logits: Any) -> float:
    return float(1 / (1 + np.exp(logits[0] - logits[1])))


SQUEEZED = transforms.Resize((64, 64))
SHAPES: dict[str, dict[str, Any]] = {
    "any batch": {},
    "one picture": {"shape": (1, 3, 64, 64)},
    "any size": {"shape": ("n", 3, "h", "w")},
    "nothing said": {"shape": (None, None, None, None)},
    "channels last": {"shape": ("n", 64, 64, 3)},
    "16 bits": {"kind": TensorProto.FLOAT16},
    "weights beside it": {"separate": "mine.onnx.data"},
    "another output": {"more": True},
    "four dimensions": {"row": (-1, 2, 1, 1)},
    "64 bits": {"double": True},
    "four dimensions in 64 bits": {"row": (-1, 2, 1, 1), "double": True},
}


@pytest.mark.parametrize("backend", ["onnx", "openvino"])
@pytest.mark.parametrize("shape", SHAPES)
def test_it_answers_as_the_file_does_on_every_backend(tmp_path: Path, shape: str, backend: str) -> None:
    yaml = own(tmp_path, YAML + "input_size: 64\n", **SHAPES[shape])
    prepare("ViT", read_config(yaml), tmp_path / "models")
    detector = served(yaml, tmp_path / "models", backend)
    for data in parity_pictures()[:4]:
        wanted = softmax(expected(tmp_path / "mine.onnx", decode(data), SQUEEZED))
        assert detector.predict(data).probability == pytest.approx(wanted, abs=1e-2 if shape == "16 bits" else 1e-4)
    manifest = detector.manifest
    folder = model_folder(read_config(yaml), tmp_path / "models")
    assert (manifest.parity.reference, is_outdated(manifest, folder)) == (NO_REFERENCE, False)
    graph = onnx.load(folder / "model.onnx").graph
    shapes = [[side.dim_value for side in one.type.tensor_type.shape.dim] for one in (graph.input[0], graph.output[0])]
    assert shapes == [[1, 3, 64, 64], [1, 2]]


CROPS = [
    ("crop: none\n", (SQUEEZED,)),
    ("crop: center\n", (transforms.Resize(64), transforms.CenterCrop(64))),
    ("crop: 0.875\n", (transforms.Resize(73), transforms.CenterCrop(64))),
    ("crop: 80\n", (transforms.Resize(80), transforms.CenterCrop(64))),
    ("resample: bicubic\n", (transforms.Resize((64, 64), transforms.InterpolationMode.BICUBIC),)),
    ("resample: lanczos\n", (transforms.Resize((64, 64), transforms.InterpolationMode.LANCZOS),)),
]


@pytest.mark.parametrize(("key", "steps"), CROPS)
def test_its_pictures_are_prepared_as_torchvision_does(tmp_path: Path, key: str, steps: Any) -> None:
    yaml = own(tmp_path, YAML + key)
    prepare("ViT", read_config(yaml), tmp_path / "models")
    detector = served(yaml, tmp_path / "models")
    for data in parity_pictures():
        wanted = softmax(expected(tmp_path / "mine.onnx", decode(data), *steps))
        assert detector.predict(data).probability == pytest.approx(wanted, abs=1e-5)


def test_mean_and_deviation_may_be_of_255(tmp_path: Path) -> None:
    said = []
    for name, mean, std in (("one", "0.5", "0.25"), ("white", "127.5", "[63.75, 63.75, 63.75]")):
        text = f"mean: {mean}\nstd: {std}\nlabels: [no_roadwork, roadwork]\noutput: logits\n"
        yaml = own(tmp_path / name, text)
        prepare("ViT", read_config(yaml), tmp_path / name / "models")
        said.append(served(yaml, tmp_path / name / "models").predict(parity_pictures()[0]).probability)
    assert said[0] == pytest.approx(said[1], abs=1e-6)


ONE = YAML.replace("[no_roadwork, roadwork]", "[roadwork]")
OUTPUTS: dict[str, tuple[str, dict[str, Any], str]] = {
    "softmax": (YAML.replace("logits", "probability"), {"last": "Softmax"}, "none"),
    "one logit": (ONE, {"classes": 1}, "sigmoid"),
    "one probability": (ONE.replace("logits", "probability"), {"classes": 1, "last": "Sigmoid"}, "probability"),
    "squeezed": (ONE.replace("logits", "probability"), {"classes": 1, "last": "Sigmoid", "row": (-1,)}, "probability"),
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_its_output_may_be_logits_or_probabilities_of_one_class_or_more(tmp_path: Path, name: str) -> None:
    text, values, activation = OUTPUTS[name]
    yaml = own(tmp_path, text, **values)
    prepare("ViT", read_config(yaml), tmp_path / "models")
    detector = served(yaml, tmp_path / "models")
    assert detector.manifest.output.activation == activation
    data = parity_pictures()[0]
    value = expected(tmp_path / "mine.onnx", decode(data), SQUEEZED)[-1]
    wanted = 1 / (1 + np.exp(-value)) if name == "one logit" else value
    assert detector.predict(data).probability == pytest.approx(wanted, abs=1e-5)


def within(path: Path) -> None:
    """Let a network of one output say numbers between 0 and 1, by chance."""
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        if tensor.name in ("head", "bias"):
            value = np.full(tensor.dims, 0.5 if tensor.name == "bias" else 1e-3, np.float32)
            tensor.CopyFrom(onnx.numpy_helper.from_array(value, tensor.name))
    onnx.save(model, path)


def test_one_logit_that_happens_to_lie_between_0_and_1_is_a_logit_by_the_graphs_end(tmp_path: Path) -> None:
    config = read_config(own(tmp_path, ONE, classes=1, row=(-1,)))
    within(tmp_path / "mine.onnx")
    prepare("ViT", config, tmp_path / "models")
    data = parity_pictures()[0]
    value = expected(tmp_path / "mine.onnx", decode(data), SQUEEZED)[-1]
    assert 0 < value < 1
    said = served(str(config.path), tmp_path / "models").predict(data).probability
    assert said == pytest.approx(1 / (1 + np.exp(-value)), abs=1e-5)
    with pytest.raises(DetectorConfigError, match=r"ends in Gemm.*output: logits is right"):
        prepare("ViT", config.model_copy(update={"output": "probability"}), tmp_path / "models")
    unsure = read_config(own(tmp_path / "unsure", ONE, classes=1, last="Clip"))
    within(tmp_path / "unsure" / "mine.onnx")
    with pytest.raises(DetectorConfigError, match=r"Clip.*Sigmoid"):
        prepare("ViT", unsure, tmp_path / "models")


def test_a_weighted_sum_of_sigmoids_is_a_probability(tmp_path: Path) -> None:
    """As of two networks, or of a picture and its mirror image: it ends in a sum, and yet in no layer's bias."""
    config = read_config(own(tmp_path, ONE.replace("logits", "probability"), classes=1, last="Sigmoid"))
    model = onnx.load(tmp_path / "mine.onnx")
    graph, said = model.graph, model.graph.output[0].name
    graph.initializer.append(onnx.numpy_helper.from_array(np.float32([0.5]), "half"))
    graph.node.append(onnx.helper.make_node("Mul", [said, "half"], ["part"]))
    graph.node.append(onnx.helper.make_node("Add", ["part", "part"], ["sum"]))
    graph.output[0].name = "sum"
    onnx.save(model, tmp_path / "mine.onnx")
    prepare("ViT", config, tmp_path / "models")
    with pytest.raises(DetectorConfigError, match=r"ends in Add.*probability"):
        prepare("ViT", config.model_copy(update={"output": "logits"}), tmp_path / "models")


REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "a size beside the graph's": (YAML + "input_size: 32\n", {}, r"input_size=\[32, 32\]"),
    "no size at all": (YAML, {"shape": ("n", 3, "h", "w")}, "input_size is needed"),
    "eight pictures": (YAML, {"shape": (8, 3, 64, 64)}, r"\[8, 3, 64, 64\]: one picture"),
    "one channel": (YAML, {"shape": (1, 1, 64, 64), "last": ""}, "channel|onnxruntime"),
    "bytes": (YAML, {"kind": TensorProto.UINT8}, r"tensor\(uint8\).*float32"),
    "an operator of its own": (YAML, {"last": "Judge", "domain": "acme"}, "acme:Judge"),
    "an opset to come": (YAML, {"opset": 99}, "opset"),
    "three outputs for two labels": (YAML, {"classes": 3}, "no outputs of mine.onnx have 2 numbers"),
    "two such outputs": (YAML.replace("no_", "a, b, c, d, e, f, no_"), {"classes": 8, "more": True}, "2 outputs"),
    "logits that are called probabilities": (YAML.replace("logits", "probability"), {}, "output: logits"),
    "probabilities that are called logits": (YAML, {"last": "Softmax"}, "output: probability"),
    "sigmoids that are called probabilities": (
        YAML.replace("logits", "probability").replace("no_", "cat, no_"), {"last": "Sigmoid", "classes": 3}, "add up",
    ),
    "a softmax over one class": (ONE.replace("logits", "probability"), {"classes": 1, "last": "Softmax"}, "one class"),
    "no label for roadwork": (YAML.replace("roadwork", "cat"), {}, "roadwork_label"),
    "units that differ": (YAML.replace("0.485", "123.7"), {}, "from 0 to 255"),
    "a crop larger than the picture": (YAML + "crop: 32\n", {}, "crop=32"),
    "a crop of next to nothing": (YAML + "crop: 0.0001\n", {}, r"crop=0\.0001: .* 640000 pixels .* 0\.0156 to 1"),
    "a map for each picture": (YAML.replace("logits", "probability"), {"last": "ZipMap"}, r"seq\(map\(.*zipmap.*False"),
    "one sigmoid that is called a logit": (ONE, {"classes": 1, "last": "Sigmoid"}, "Sigmoid: output: probability"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_can_not_be_served_is_refused_with_the_reason(tmp_path: Path, name: str) -> None:
    text, values, reason = REFUSED[name]
    yaml = own(tmp_path, text, **values)
    with pytest.raises(DetectorError, match=reason) as caught:
        prepare("ViT", read_config(yaml), tmp_path / "models")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"nothing at all", b"\x08\x08", b"version https://git-lfs.github.com/spec"])
def test_a_file_that_is_no_onnx_is_refused(tmp_path: Path, content: bytes) -> None:
    yaml = own(tmp_path)
    (tmp_path / "mine.onnx").write_bytes(content)
    with pytest.raises(ModelError, match=r"no ONNX file|git-LFS"):
        prepare("ViT", read_config(yaml), tmp_path / "models")


def test_a_file_of_more_than_2_gb_is_refused_before_it_is_read(tmp_path: Path) -> None:
    yaml = own(tmp_path)
    os.truncate(tmp_path / "mine.onnx", 2**31 + 1)  # sparse: it takes no space
    with pytest.raises(ModelError, match="2 GB"):
        prepare("ViT", read_config(yaml), tmp_path / "models")


def test_weights_beside_it_travel_along_and_are_part_of_the_revision(tmp_path: Path) -> None:
    yaml, data = own(tmp_path, separate="weights.bin"), tmp_path / "weights.bin"
    assert data_files(tmp_path / "mine.onnx") == [data]
    folder = prepare("ViT", read_config(yaml), tmp_path / "models")
    assert folder == model_folder(read_config(yaml), tmp_path / "models")
    os.utime(data, (1, 1))
    assert folder != model_folder(read_config(yaml), tmp_path / "models")
    data.unlink()
    Manifest.read(folder).verify(folder)
    with pytest.raises(ModelError, match=r"weights\.bin.*not beside it"):
        prepare("ViT", read_config(yaml), tmp_path / "models")


@pytest.mark.parametrize("name", ["../secret.bin", "/etc/hostname", "sub/../../secret.bin"])
def test_weights_outside_its_folder_are_not_read(tmp_path: Path, name: str) -> None:
    yaml = own(tmp_path / "own", separate="weights.bin")
    (tmp_path / "own" / "weights.bin").rename(tmp_path / "secret.bin")
    path = tmp_path / "own" / "mine.onnx"
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        tensor.external_data[0].value = name
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match="its own folder"):
        prepare("ViT", read_config(yaml), tmp_path / "models")


def in_cache(folder: Path) -> Path:
    """Lay a file and its weights down as a hub's cache has them; return the snapshot's."""
    made = make_onnx(folder / "made" / "model.onnx", separate="model.onnx.data")
    blobs, snapshot = folder / "repo" / "blobs", folder / "repo" / "snapshots" / "a1b2"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for number, name in enumerate((made.name, f"{made.name}.data")):
        (made.parent / name).rename(blobs / f"{number:064x}")
        (snapshot / name).symlink_to(f"../../blobs/{number:064x}")
    return snapshot / made.name


def beside_link(folder: Path) -> Path:
    """Make a link to a file beside which its weights lie."""
    (folder / "mine.onnx").symlink_to(make_onnx(folder / "made" / "model.onnx", separate="model.onnx.data"))
    return folder / "mine.onnx"


def linked_weights(folder: Path) -> Path:
    made = make_onnx(folder / "mine.onnx", separate="weights.bin")
    (folder / "weights.bin").rename(folder / "real.bin")
    (folder / "weights.bin").symlink_to("real.bin")
    return made


@pytest.mark.parametrize("make", [in_cache, beside_link, linked_weights])
def test_links_to_it_and_to_its_weights_are_followed(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    (tmp_path / "mine.yaml").write_text(f"onnx_path: {make(tmp_path)}\n{YAML}")
    yaml = str(tmp_path / "mine.yaml")
    folder = prepare("ViT", read_config(yaml), tmp_path / "models")
    assert folder == model_folder(read_config(yaml), tmp_path / "models")
    assert folder.parent.name in ("model", "mine")
    plain = make_onnx(tmp_path / "plain.onnx")
    data = parity_pictures()[0]
    wanted = softmax(expected(plain, decode(data), SQUEEZED))
    assert served(yaml, tmp_path / "models").predict(data).probability == pytest.approx(wanted, abs=1e-4)


@pytest.mark.parametrize("names", [["weights\0.bin"], ["w" * 300], ["weights.bin", "weights.bin"], []])
def test_a_name_of_weights_that_can_be_none_is_refused(tmp_path: Path, names: list[str]) -> None:
    yaml = own(tmp_path, separate="weights.bin")
    path = tmp_path / "mine.onnx"
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        del tensor.external_data[:]
        tensor.external_data.add(key="offset", value="0")
        for name in names:
            tensor.external_data.add(key="location", value=name)
    path.write_bytes(model.SerializeToString())
    with pytest.raises(DetectorError, match=r"mine\.onnx .*weights in '") as caught:
        prepare("ViT", read_config(yaml), tmp_path / "models")
    assert "\n" not in str(caught.value)


def test_a_link_to_weights_outside_its_folder_is_not_followed(tmp_path: Path) -> None:
    yaml = own(tmp_path / "own", separate="weights.bin")
    (tmp_path / "own" / "weights.bin").rename(tmp_path / "secret.bin")
    (tmp_path / "own" / "weights.bin").symlink_to("../secret.bin")
    with pytest.raises(ModelError, match="its own folder"):
        prepare("ViT", read_config(yaml), tmp_path / "models")


def test_what_the_yaml_says_of_it_is_part_of_the_model(tmp_path: Path) -> None:
    yaml = own(tmp_path)
    prepare("ViT", read_config(yaml), tmp_path / "models")
    Path(yaml).write_text(Path(yaml).read_text() + "resample: bicubic\n")
    with pytest.raises(NotPrepared):
        served(yaml, tmp_path / "models")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("onnx_path: m.onnx\nmean: 0.5\nstd: 0.5\n", "labels, output"),
        ("hf_repo: a/b\nmean: 0.5\ncrop: center\n", "mean, crop"),
        (f"onnx_path: m.onnx\nresample: cubic\n{YAML}", "resample='cubic'.*bicubic"),
        (f"onnx_path: m.onnx\ncrop: 1.5\n{YAML}", "crop=1.5"),
        (f"onnx_path: m.onnx\ninput_size: 0\n{YAML}", "input_size=0"),
        (f"onnx_path: m.onnx\ninput_size: [1, 2, 3]\n{YAML}", "input_size="),
        (f"onnx_path: m.onnx\n{YAML}letterbox: true\ncrop: center\n", "letterbox"),
        (f"onnx_path: m.onnx\n{YAML.replace('logits', 'softmax')}", "output='softmax'"),
        (f"onnx_path: m.onnx\n{YAML.replace('[no_roadwork, roadwork]', '[]')}", "labels="),
    ],
)
def test_keys_that_can_not_be_meant_are_refused_by_name(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(DetectorConfigError, match=reason):
        read_config(str(tmp_path / "a.yaml"))


def test_an_int8_variant_is_made_of_it_and_another_threshold_needs_none(tmp_path: Path) -> None:
    yaml, models = own(tmp_path, YAML + "threshold: 0.3\n"), tmp_path / "models"
    config = read_config(yaml)
    prepare("ViT", config, models)
    photos = CalibrationPhotos(many_pictures(9))
    order = PrecisionRequest("int8", "onnx", models, RunOptions(), photos, 1.0, threshold=config.threshold)
    made = make_faster(PreparedModel.find(config, models).folder, order)
    assert not is_outdated(Manifest.read(made), made)
    data = parity_pictures()[0]
    raw = served(yaml, models, precision="int8").judge(decode(data)).probability
    for threshold in (0.3, 0.6):
        Path(yaml).write_text(Path(yaml).read_text().partition("threshold")[0] + f"threshold: {threshold}\n")
        assert (served(yaml, models, precision="int8").predict(data).probability > 0.5) == (raw > threshold)


def test_the_torch_backend_has_nothing_to_run(tmp_path: Path) -> None:
    yaml = own(tmp_path)
    prepare("ViT", read_config(yaml), tmp_path / "models")
    with pytest.raises(ModelError, match="ONNX file"):
        served(yaml, tmp_path / "models", "torch")
