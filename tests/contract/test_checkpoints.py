"""Which weights become the model, and which are refused with what is wrong: real files of tiny networks."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from detectors.builders.architecture import numpy_reference
from detectors.builders.vit import PlainViT
from detectors.errors import ModelError, ModelFileError
from detectors.export.export import prepare
from detectors.export.hf import ViTExporter
from detectors.models.checkpoint import WEIGHTS_FILE, Weights, weight_files
from detectors.models.config import DetectorConfig
from detectors.models.manifest import Manifest
from detectors.models.sources import model_folder
from detectors.network import ViT
from detectors.photos.synthetic import parity_pictures
from tests.models import make_resnet, make_vit, photo

Tensors = dict[str, torch.Tensor]
MAKERS = {"vit": make_vit, "resnet": make_resnet}  # our own graph, and the exporter's


@pytest.fixture(scope="module", params=MAKERS)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return MAKERS[request.param](tmp_path_factory.mktemp("made") / str(request.param))


@pytest.fixture
def model(made: Path, tmp_path: Path) -> Path:
    """A folder of its own for each test."""
    return Path(shutil.copytree(made, tmp_path / "model"))


def config_of(folder: Path) -> DetectorConfig:
    return DetectorConfig(hf_repo=str(folder), path=folder / "x.yaml")


def export(folder: Path) -> Manifest:
    return Manifest.read(prepare("ViT", config_of(folder), folder.parent / "models"))


def rewrite(folder: Path, change: Callable[[Tensors], Tensors], name: str = WEIGHTS_FILE) -> None:
    save_file(change(load_file(folder / WEIGHTS_FILE)), folder / name, metadata={"format": "pt"})


def settle(folder: Path, **values: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def shift(tensors: Tensors) -> Tensors:
    """Return other weights, with other answers."""
    return {name: -value if "classifier" in name else value for name, value in tensors.items()}


def head(tensors: Mapping[str, torch.Tensor]) -> list[str]:
    return [name for name in tensors if name.startswith("classifier")]


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_weights_of_16_bits_are_compared_and_served_in_fp32(model: Path, kind: torch.dtype) -> None:
    """The same numbers in fp32 are the same model, to the last bits of the graph."""
    rewrite(model, lambda all_: {name: value.to(kind) for name, value in all_.items()})
    settle(model, dtype=str(kind).removeprefix("torch."))
    narrow = export(model)
    rewrite(model, lambda all_: {name: value.float() for name, value in all_.items()})
    settle(model, dtype="float32")
    wide = export(model)
    assert narrow.parity.max_difference < 1e-5
    assert narrow.known_answer == pytest.approx(wide.known_answer, abs=1e-6)


@pytest.mark.parametrize("key", ["dtype", "torch_dtype"])
def test_weights_of_32_bits_are_so_whatever_config_json_says(model: Path, key: str) -> None:
    settle(model, **{"dtype": None, "torch_dtype": None, key: "bfloat16"})
    assert export(model).parity.max_difference < 1e-5


def test_without_torch_16_bits_are_read_as_torch_reads_them(tmp_path: Path) -> None:
    folder = make_vit(tmp_path / "vit")
    rewrite(folder, lambda all_: {name: value.bfloat16() for name, value in all_.items()})
    ours = numpy_reference(PlainViT(folder), ViT.read_preprocessing(folder), 1, multiple=False)
    torchs = ViTExporter(folder, config_of(folder)).reference()
    assert ours(photo(320, 240)) == pytest.approx(torchs(photo(320, 240)), abs=1e-5)


@pytest.mark.parametrize("other", ["model_ema.safetensors", "a.safetensors", "zz.safetensors"])
def test_other_weights_beside_the_models_are_named_and_change_nothing(
    model: Path, other: str, caplog: pytest.LogCaptureFixture
) -> None:
    before, revision = export(model), model_folder(config_of(model), model.parent / "models")
    assert other not in caplog.text
    rewrite(model, shift, other)
    assert model_folder(config_of(model), model.parent / "models") == revision
    assert export(model).known_answer == before.known_answer
    assert other in caplog.text
    rewrite(model, shift)
    assert export(model).known_answer != before.known_answer


@pytest.mark.parametrize("other", ["a.safetensors", "zz.safetensors"])
def test_without_torch_the_same_file_is_read(tmp_path: Path, other: str) -> None:
    folder = make_vit(tmp_path / "vit")
    before = dict(Weights(folder))
    rewrite(folder, shift, other)
    assert all(np.array_equal(value, before[name]) for name, value in Weights(folder).items())


def shard(folder: Path) -> list[str]:
    """Put a folder's weights into two shards and an index; return the shards' names."""
    tensors = load_file(folder / WEIGHTS_FILE)
    names = sorted(tensors)
    files = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    for file, part in zip(files, (names[::2], names[1::2]), strict=True):
        save_file({name: tensors[name] for name in part}, folder / file, metadata={"format": "pt"})
    places = {name: files[number % 2] for number, name in enumerate(names)}
    index = {"metadata": {"total_size": 1}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return files


def test_shards_are_read_by_their_index(model: Path) -> None:
    before = export(model)
    shard(model)
    rewrite(model, shift, "model-00003-of-00002.safetensors")  # left over from another run
    (model / WEIGHTS_FILE).unlink()
    assert export(model).known_answer == before.known_answer


def test_a_single_file_wins_over_an_index_as_with_transformers(model: Path) -> None:
    shard(model)
    rewrite(model, shift)
    sharded = export(model)
    for path in [model / "model.safetensors.index.json", *model.glob("model-*")]:
        path.unlink()
    assert export(model).known_answer == sharded.known_answer


def test_a_shard_that_is_not_there_is_named(model: Path) -> None:
    first, _ = shard(model)
    for name in (WEIGHTS_FILE, first):
        (model / name).unlink()
    with pytest.raises(ModelError, match=f"holds no {first}, which model.safetensors.index.json names"):
        export(model)


def test_a_folder_with_other_weights_alone_is_refused_with_their_names(model: Path) -> None:
    (model / WEIGHTS_FILE).rename(model / "model_ema.safetensors")
    with pytest.raises(ModelError, match=r"holds no model\.safetensors .*model_ema\.safetensors"):
        export(model)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "_orig_mod.module."])
def test_what_a_wrapper_has_put_before_the_names_is_taken_off_and_said(
    model: Path, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    before = export(model)
    assert prefix not in caplog.text
    rewrite(model, lambda all_: {prefix + name: value for name, value in all_.items()})
    assert export(model).known_answer == pytest.approx(before.known_answer, abs=1e-7)
    assert prefix in caplog.text


def point(path: Path) -> None:
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4665a5ea\nsize 343223968\n")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:50])


DAMAGES = {"a git-LFS pointer": point, "no whole safetensors": cut, "fetch it again": cut_short}


@pytest.mark.parametrize("words", DAMAGES)
def test_a_file_that_is_no_weights_is_named_for_what_it_is(model: Path, words: str) -> None:
    DAMAGES[words](model / WEIGHTS_FILE)
    with pytest.raises(ModelError, match=f"model.safetensors .*{words}"):
        export(model)


def test_weights_in_8_bits_are_named_for_what_they_are(model: Path) -> None:
    rewrite(model, lambda all_: {n: v.to(torch.float8_e4m3fn) if v.ndim > 1 else v for n, v in all_.items()})
    with pytest.raises(ModelError, match=r"F8_E4M3 \(8-bit floats\)"):
        export(model)


def test_a_quantised_checkpoint_is_named_for_what_it_is(model: Path) -> None:
    settle(model, quantization_config={"quant_method": "bitsandbytes", "load_in_8bit": True})
    with pytest.raises(ModelError, match="quantization_config"):
        export(model)


def test_weights_without_a_head_are_refused(model: Path) -> None:
    """transformers would draw one at random, and another one for each side of the comparison."""
    rewrite(model, lambda all_: {name: value for name, value in all_.items() if name not in head(all_)})
    with pytest.raises(ModelError, match=r"hold no classifier.*weight"):
        export(model)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused_by_their_names(model: Path, value: float) -> None:
    rewrite(model, lambda all_: {n: torch.full_like(v, value) if n in head(all_) else v for n, v in all_.items()})
    with pytest.raises(ModelError, match=r"infinity in classifier"):
        export(model)


def test_a_network_whose_sums_overflow_is_refused(model: Path) -> None:
    """Every weight is a number, and the answers are none."""
    rewrite(model, lambda all_: {n: v * 1e38 if v.is_floating_point() else v for n, v in all_.items()})
    with pytest.raises(ModelError, match=r"has no (answer to|number for) a picture"):
        export(model)


@pytest.mark.parametrize("count", [2, 6, 11])
def test_any_number_of_labels_is_compared(tmp_path: Path, count: int) -> None:
    """Of more than five the reference shows five, unless it is asked for all."""
    labels = {0: "Roadwork"} | {number: f"other {number}" for number in range(1, count)}
    folder = make_vit(tmp_path / "vit", labels=labels)
    manifest = export(folder)
    assert len(manifest.output.labels) == count
    assert manifest.parity.max_difference < 1e-5


def test_whatever_the_library_raises_becomes_one_line_with_the_models_type(model: Path) -> None:
    """A value that its own reader of config.json allows, and its network can't be made of."""
    path = model / "config.json"
    kind = json.loads(path.read_text())["model_type"]
    settle(model, architectures=["Unknown"], hidden_act="no such function", layer_norm_eps="small")
    with pytest.raises(ModelError) as caught:
        export(model)
    assert kind in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_the_made_pictures_of_every_shape_are_part_of_every_comparison(tmp_path: Path) -> None:
    folder = make_vit(tmp_path / "vit")
    own = [photo(64, 64)]
    made = prepare("ViT", config_of(folder), tmp_path / "models", pictures=own)
    assert Manifest.read(made).parity.pictures == len(parity_pictures()) + len(own)


def test_the_file_that_config_json_names_is_read_or_missed(model: Path) -> None:
    rewrite(model, shift, "best.safetensors")
    settle(model, transformers_weights="best.safetensors")
    assert Path("best.safetensors") in [path.relative_to(model) for path in weight_files(model)]
    named = export(model)
    settle(model, transformers_weights=WEIGHTS_FILE)
    assert export(model).known_answer != pytest.approx(named.known_answer, abs=1e-4)
    settle(model, transformers_weights="gone.safetensors")
    with pytest.raises(ModelError, match=r"holds no gone\.safetensors"):
        weight_files(model)


@pytest.mark.parametrize("name", ["../x.safetensors", "/x.safetensors", "model.bin", "x" * 300 + ".safetensors", 3])
def test_a_name_that_is_no_file_of_the_folder_is_refused(model: Path, name: object) -> None:
    settle(model, transformers_weights=name)
    with pytest.raises(ModelFileError, match="transformers_weights="):
        weight_files(model)
    settle(model, transformers_weights=None)
    (model / WEIGHTS_FILE).unlink()
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": str(name)}}))
    if str(name) not in ("model.bin", "3"):  # there none is missing, it is not there
        with pytest.raises(ModelError, match="of its own folder"):
            weight_files(model)
