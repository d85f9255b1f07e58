"""A head that learns on several views of a photo, from its training to what serves."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

import onnx
import torch

from detectors.backends.torch import load_model
from detectors.base import RunOptions
from detectors.console import Steps
from detectors.errors import DetectorConfigError, ModelError
from detectors.export.export import prepare
from detectors.export.serving_repos import write_layout
from detectors.load import load_detector
from detectors.models import MODEL_FILE
from detectors.models.config import DetectorConfig, read_config
from detectors.models.manifest import Manifest
from detectors.network import ViT
from detectors.photos.image import decode
from detectors.photos.view_head import HEAD_FILE, ViewHead
from detectors.quantize.quantize import CalibrationPhotos, PrecisionRequest, make_faster
from detectors.quantize.token_axes import read_tokens
from detectors.registry import DEFAULT
from detectors.remote.server import OpenInference
from detectors.training import hf_model
from detectors.training.config import TrainConfig
from detectors.training.run import run
from tests.models import make_vit
from tests.photos import fill
from tests.unit.detectors.training.test_runs import KilledError, Spy, start

pytestmark = [
    pytest.mark.usefixtures("imports_are_not_garbage"),
    pytest.mark.export,
    pytest.mark.filterwarnings("ignore"),
]

VIEWS = "whole,tiles:1x2"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("views")
    fill(folder / "photos", 8)
    make_vit(folder / "tiny-vit", hidden_size=16, num_hidden_layers=2)
    return folder


def values(folder: Path, **more: object) -> dict[str, object]:
    given = {"data": str(folder / "photos"), "model": str(folder / "tiny-vit"), "served_views": VIEWS, "views": 1}
    return given | {"epochs": 3} | more


@pytest.fixture(scope="module")
def trained(folder: Path) -> Path:
    run(start(folder / "run", Spy(), values(folder)))
    return folder / "run"


def test_what_serves_is_the_head_on_the_networks_own_features(trained: Path) -> None:
    head = ViewHead.read(trained / "model")
    assert head is not None
    detector = load_detector("ViT", read_config(str(trained / "detector.yaml")), trained, DEFAULT, RunOptions())
    assert detector.verify() > 0
    assert detector.view_words == "whole + tiles 1x2, head"
    model, seen = load_model(trained / "model"), list[torch.Tensor]()
    hf_model.head_of(model).register_forward_hook(lambda _module, inputs, _output: seen.append(inputs[0]))
    preprocessing = ViT.read_preprocessing(trained / "model")
    for path in sorted((trained.parent / "photos" / "roadwork").iterdir())[:3]:
        picture = decode(path.read_bytes())
        seen.clear()
        with torch.no_grad():
            for array in head.views.arrays(picture, preprocessing, preprocessing.boxed):
                model(torch.from_numpy(array))
        logits = head([features.numpy() for features in seen])[0]
        expected = 1 / (1 + np.exp(float(logits[0] - logits[1])))
        assert detector.judge(picture).probability == pytest.approx(expected, abs=1e-5)
    detector.close()


def test_the_card_and_the_manifest_say_which_views(trained: Path) -> None:
    manifest = Manifest.read(trained / "served")
    assert manifest.head == "whole + tiles 1x2, head"
    assert HEAD_FILE in manifest.files
    assert manifest.parity.max_difference < 1e-4
    assert manifest.head in (trained / "README.md").read_text()
    graph = onnx.load(trained / "served" / MODEL_FILE).graph
    assert [axis.dim_value for axis in graph.output[0].type.tensor_type.shape.dim] == [1, 16]


def test_a_kill_among_the_features_or_the_steps_changes_nothing(folder: Path, trained: Path) -> None:
    for number, spy in enumerate((Spy(line="estimate: at most"), Spy(step=3))):
        again = folder / f"again{number}" / "run"
        with pytest.raises(KilledError):
            run(start(again, spy, values(folder)))
        run(start(again, Spy()))
        for name in (HEAD_FILE, "model.safetensors"):
            assert (again / "model" / name).read_bytes() == (trained / "model" / name).read_bytes()


def test_faster_precisions_are_judged_with_the_head(trained: Path, folder: Path) -> None:
    pictures = [path.read_bytes() for path in sorted((folder / "photos").rglob("*.jpg"))]
    order = PrecisionRequest(
        "int8", "onnx", folder / "models", RunOptions(), CalibrationPhotos(pictures), max_flips=1.0
    )
    target = make_faster(trained / "served", order)
    made = Manifest.read(target)
    assert made.gate is not None
    assert made.head == "whole + tiles 1x2, head"
    assert (target / HEAD_FILE).read_bytes() == (trained / "served" / HEAD_FILE).read_bytes()
    config = read_config(str(trained / "detector.yaml"))
    plain, faster = (
        load_detector("ViT", config, folder / "models", "onnx", RunOptions(), kind) for kind in ("fp32", "int8")
    )
    assert faster.verify() > 0
    far = [abs(plain.predict(data).probability - faster.predict(data).probability) for data in pictures]
    assert 0 < max(far) < 0.2
    for detector in (plain, faster):
        detector.close()


def test_the_weights_with_their_head_are_exported_anew_elsewhere(trained: Path, folder: Path) -> None:
    source = DetectorConfig(hf_repo=str(trained / "model"), path=folder / "x.yaml")
    made = prepare("ViT", source, folder / "anew")
    first, second = Manifest.read(trained / "served"), Manifest.read(made)
    assert (first.known_answer, first.head) == (pytest.approx(second.known_answer, abs=1e-6), second.head)
    told: list[str] = []
    with pytest.raises(DetectorConfigError, match="letterbox"):
        prepare("ViT", source.model_copy(update={"letterbox": True}), folder / "anew", progress=Steps(told.append))
    assert not any("ONNX" in line for line in told)  # refused before the work
    with pytest.raises(ModelError, match="torch"):
        load_detector("ViT", source, folder / "anew", "torch", RunOptions())


def test_a_head_of_other_classes_is_refused_before_any_comparison(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained / "model", tmp_path / "model")
    head = ViewHead.read(tmp_path / "model")
    assert head is not None
    ViewHead(head.views, np.zeros((3, head.width), np.float32), np.zeros(3, np.float32)).write(tmp_path / "model")
    told: list[str] = []
    source = DetectorConfig(hf_repo=str(tmp_path / "model"), path=tmp_path / "x.yaml")
    with pytest.raises(ModelError, match=r"3 outputs.* 2 labels"):
        prepare("ViT", source, tmp_path / "models", progress=Steps(told.append))
    assert not any("comparing" in line for line in told)


def test_weights_beside_the_graph_stay_there_and_the_answers_are_the_same(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("detectors.models.store.LARGE_GRAPH_BYTES", 0)
    source = DetectorConfig(hf_repo=str(trained / "model"), path=tmp_path / "x.yaml")
    made = prepare("ViT", source, tmp_path / "models")
    assert (made / f"{MODEL_FILE}.data").is_file()
    assert Manifest.read(made).known_answer == pytest.approx(Manifest.read(trained / "served").known_answer, abs=1e-6)
    detector = load_detector("ViT", source, tmp_path / "models", DEFAULT, RunOptions())
    assert detector.verify() > 0
    detector.close()


def test_a_machine_that_gives_scores_alone_does_not_serve_it(trained: Path, tmp_path: Path) -> None:
    detector = load_detector("ViT", read_config(str(trained / "detector.yaml")), trained, DEFAULT, RunOptions())
    assert isinstance(detector, ViT)
    for serve in (lambda: OpenInference(detector), lambda: write_layout("ovms", trained / "served", tmp_path, 1)):
        with pytest.raises(ModelError, match="tiles 1x2"):
            serve()
    detector.close()


def test_tokens_are_found_in_a_graph_without_its_last_layer(trained: Path) -> None:
    tokens = read_tokens(trained / "served" / MODEL_FILE)
    assert len(tokens.merging) == 1


@pytest.mark.parametrize("views", ["views: [whole, {tiles: 2x2}]\npool: head\n", "views: [whole, {tiles: 1x2}]\n"])
def test_other_views_than_those_of_the_head_are_refused(trained: Path, views: str, tmp_path: Path) -> None:
    path = tmp_path / "other.yaml"
    path.write_text(f"model_folder: {trained / 'served'}\n{views}")
    with pytest.raises(DetectorConfigError, match=r"tiles 1x2, head"):
        load_detector("ViT", read_config(str(path)), tmp_path, DEFAULT, RunOptions())
    path.write_text(f"model_folder: {trained / 'served'}\nviews: [whole, {{tiles: 1x2}}]\npool: head\n")
    load_detector("ViT", read_config(str(path)), tmp_path, DEFAULT, RunOptions()).close()


def test_only_a_head_learns_on_views() -> None:
    for more in ({"method": "full"}, {"detector": "YOLOClassifier"}, {"served_views": "whole"}):
        with pytest.raises(DetectorConfigError, match="views"):
            TrainConfig.make({"data": ".", "served_views": VIEWS} | more)


def test_a_head_of_another_width_is_refused(trained: Path, tmp_path: Path) -> None:
    import shutil

    from detectors.export.export import prepare

    folder = Path(shutil.copytree(trained / "model", tmp_path / "model"))
    head = ViewHead.read(folder)
    assert head is not None
    replace(head, weight=head.weight[:, :8]).write(folder)
    with pytest.raises(ModelError, match="8 features"):
        prepare("ViT", DetectorConfig(hf_repo=str(folder), path=tmp_path / "x.yaml"), tmp_path / "models")
