"""What of a folder becomes a repository, and what never does; cards and versions."""

import json
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file, save_file

from detectors.photos.view_head import ViewHead, head_views
from miner.errors import ConfigurationError
from miner.natix.publication import MADE_BY, find_model, natix_card, next_version, read_card, readme
from tests.stored_vit import write_stored_vit

HOTKEY = "5GQUUNo4EWYX3s8xzVH2W7gWfhge7UGnQHCrHLoCvJtzYErW"
FIGURES = {
    "val": {"photos": 46, "accuracy": {"value": 0.9, "low": 0.8, "high": 0.95}, "mcc": 0.8, "auc": None, "brier": 0.1},
    "test": {"photos": 78, "accuracy": {"value": 0.97, "low": 0.9, "high": 0.99}, "mcc": 0.94, "auc": 0.99,
             "brier": 0.03, "reward": {"value": 0.8, "low": 0.6, "high": 0.9}},
}  # fmt: skip
HEAD = ViewHead(head_views("whole,tiles:1x2"), np.ones((2, 4), np.float32), np.zeros(2, np.float32))
PIECES = {"config.json", "preprocessor_config.json", "model.safetensors"}
Deed = Callable[[Path], object]


def write_run(run: Path, base: str = "/home/me/models/vit") -> Path:
    """Write what a training leaves, with all that is not to be given away."""
    write_stored_vit(run / "model")
    (run / "results.json").write_text(json.dumps({"figures": FIGURES, "served": str(run / "served")}))
    (run / "config.yaml").write_text(yaml.safe_dump({"data": "/home/me/photos", "model": base, "detector": "ViT"}))
    (run / "README.md").write_text("trained from /home/me/models/vit")
    (run / "resources.csv").write_text("seconds\n")
    (run / "model" / "street.jpg").write_bytes(b"a photo")
    (run / "model" / "predictions.npz").write_bytes(b"predictions")
    (run / "model" / ".env").write_text("HF_TOKEN=hf_secret")
    (run / "model" / "optimizer.pt").write_bytes(b"state")
    return run


def write_yolo(path: Path, objects: object) -> Path:
    """Write a .pt file as torch does: an archive with a pickle."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/data.pkl", pickle.dumps(objects))
        archive.writestr("model/data/0", b"\0" * 100)
    return path


def change(file: Path, **values: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def test_a_run_gives_its_model_and_nothing_else(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    found = find_model(run)
    assert {*found.documents, *found.weights} == PIECES
    assert (found.is_yolo, found.figures, found.base) == (False, FIGURES, "")
    whole = b"".join(found.documents.values()) + readme(found, card(), "mit").encode()
    assert b"/home" not in whole
    assert str(tmp_path).encode() not in whole


def test_the_notice_of_the_weights_goes_with_them_unless_it_says_what_is_private(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    (run / "model" / "NOTICE").write_text("of the weights that it began with")
    assert find_model(run).documents["NOTICE"] == b"of the weights that it began with"
    (run / "model" / "NOTICE").write_text(f"at {tmp_path}")
    with pytest.raises(ConfigurationError, match="NOTICE"):
        find_model(run)


def test_a_head_on_views_goes_with_the_weights_and_is_told(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    assert "views" not in readme(find_model(run), card(), None)
    HEAD.write(run / "model")
    found = find_model(run)
    assert {*found.documents, *found.weights} == {*PIECES, "view_head.json"}
    assert found.documents["view_head.json"] == (run / "model" / "view_head.json").read_bytes()
    assert "whole + tiles 1x2, head" in readme(found, card(), None)
    (run / "model" / "view_head.json").write_text("{}")
    with pytest.raises(ConfigurationError, match="view_head"):
        find_model(run)


def test_a_repository_that_it_learnt_from_is_named(tmp_path: Path) -> None:
    assert find_model(write_run(tmp_path / "run", "google/vit-base-patch16-224")).base == "google/vit-base-patch16-224"
    assert find_model(write_run(tmp_path / "local", "../vit")).base == ""


def test_a_model_folder_with_shards(tmp_path: Path) -> None:
    folder = write_stored_vit(tmp_path / "vit")
    weights = load_file(folder / "model.safetensors")
    names = sorted(weights)
    parts = {"model-00001-of-00002.safetensors": names[:5], "model-00002-of-00002.safetensors": names[5:]}
    for file, part in parts.items():
        save_file({name: weights[name] for name in part}, folder / file)
    index = {"weight_map": {name: file for file, part in parts.items() for name in part}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model.safetensors").unlink()
    found = find_model(folder)
    assert set(found.weights) == {*parts, "model.safetensors.index.json"}


def test_where_it_was_loaded_from_is_left_out(tmp_path: Path) -> None:
    folder = write_stored_vit(tmp_path / "vit")
    change(folder / "config.json", _name_or_path="/home/me/models/vit", _commit_hash="abc")
    config = json.loads(find_model(folder).documents["config.json"])
    assert not {"_name_or_path", "_commit_hash"} & set(config)
    assert config["model_type"] == "vit"


def with_escape(folder: Path) -> None:
    """Write a path into the header of the weights, each slash as its number."""
    file = folder / "model.safetensors"
    whole = file.read_bytes()
    size = int.from_bytes(whole[:8], "little")
    header = json.dumps(json.loads(whole[8 : 8 + size]) | {"__metadata__": {"made": "/home/me/x"}})
    text = header.replace("/", "\\u002f").encode()
    text += b" " * (-len(text) % 8)
    file.write_bytes(len(text).to_bytes(8, "little") + text + whole[8 + size :])


def with_metadata(text: str) -> Deed:
    def write(folder: Path) -> None:
        file = folder / "model.safetensors"
        save_file(load_file(file), file, metadata={"made": text})

    return write


PRIVATE: dict[str, tuple[Deed, str]] = {
    "a home in config.json": (lambda f: change(f / "config.json", data="/home/me/photos"), "/home/me/photos"),
    "its own folder": (lambda f: change(f / "config.json", data=str(f)), "config.json"),
    "a home in the preprocessing": (
        lambda f: change(f / "preprocessor_config.json", note="/Users/me/x"), "preprocessor_config.json"),
    "a home in the weights' header": (with_metadata("/home/me/train.py"), "model.safetensors"),
    "a token": (lambda f: change(f / "config.json", note="hf_" + "a" * 34), "token"),
    "a token of another kind": (lambda f: change(f / "config.json", note="sk-" + "a1" * 20), "token"),
    "a token of GitHub": (lambda f: change(f / "config.json", x={"y": ["github_pat_11AAAA"]}), "token"),
    "a disk": (lambda f: change(f / "config.json", data="/mnt/data/me/photos"), "/mnt/data/me/photos"),
    "a key's name": (lambda f: change(f / "config.json", wandb={"apiKey": "short"}), "wandb.apiKey"),
    "a secret below its name": (lambda f: change(f / "config.json", hub_token={"value": "x"}), "hub_token.value"),
    "a key in the header": (with_metadata("key " + "0123456789abcdef" * 2 + "01234567"), "40 digits"),
    "a path in numbers": (with_escape, "/home/me/x"),
}  # fmt: skip


def test_what_a_configuration_has_of_its_own_is_no_secret(tmp_path: Path) -> None:
    folder = write_stored_vit(tmp_path / "vit")
    change(folder / "config.json", pad_token_id=0, use_mask_token=False, tokenizer_class="BertTokenizer", token=None,
           backbone_config={"_commit_hash": "0123456789" * 4, "depth": 3})  # fmt: skip
    assert json.loads(find_model(folder).documents["config.json"])["backbone_config"] == {"depth": 3}


@pytest.mark.parametrize("case", PRIVATE)
def test_what_tells_of_this_machine_is_refused(tmp_path: Path, case: str) -> None:
    plant, named = PRIVATE[case]
    folder = write_stored_vit(tmp_path / "vit")
    plant(folder)
    with pytest.raises(ConfigurationError) as told:
        find_model(folder)
    assert named in str(told.value)


def test_a_yolo_is_its_file(tmp_path: Path) -> None:
    run = tmp_path / "run"
    write_yolo(run / "model.pt", {"train_args": {"model": "yolo11n-cls.pt"}})
    (run / "config.yaml").write_text("model: tiny\n")
    (run / "results.json").write_text(json.dumps({"figures": FIGURES}))
    found = find_model(run)
    assert (found.is_yolo, dict(found.weights), found.documents) == (True, {"model.pt": run / "model.pt"}, {})
    assert find_model(run / "model.pt").weights == found.weights
    text = readme(found, card(), None)
    assert "pickle" in text
    assert yaml.safe_load(text.split("---")[1])["library_name"] == "ultralytics"
    write_yolo(run / "model.pt", {"train_args": {"project": "/home/me/runs"}})
    with pytest.raises(ConfigurationError, match="/home/me/runs"):
        find_model(run)


@pytest.mark.parametrize(
    ("members", "named"),
    [
        ({}, "data.pkl"),
        ({"a/notes.txt": b"x"}, "data.pkl"),
        ({"a/data.pkl": b"x", "b/data.pkl": b"x"}, "data.pkl"),
        ({"a/data.pkl": b"x", "a/notes.txt": b"/home/me/x"}, "/home/me/x"),
        ({"a/data.pkl": b"x", "a/data/0.txt": b"hf_" + b"a" * 34}, "token"),
        ({"a/data.pkl": b"x", "home/me/x": b""}, ""),
    ],
)
def test_an_archive_that_is_no_network_or_holds_more(tmp_path: Path, members: dict[str, bytes], named: str) -> None:
    file = tmp_path / "model.pt"
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    if not named:
        assert find_model(file).is_yolo
        return
    with pytest.raises(ConfigurationError, match=named):
        find_model(file)
    with file.open("r+b") as half:
        half.truncate(file.stat().st_size - 10)
    with pytest.raises(ConfigurationError, match="torch"):
        find_model(file)


WRONG: dict[str, tuple[Deed, str]] = {
    "nothing": (shutil.rmtree, "is needed"),
    "an empty folder": (lambda f: [path.unlink() for path in f.iterdir()], "config.json"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "model.safetensors"),
    "no preprocessing": (lambda f: (f / "preprocessor_config.json").unlink(), "preprocessor_config.json"),
    "a pickle": (lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"), "pickle"),
    "half of the weights": (lambda f: (f / "model.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{"), "cut short"),
    "a pointer": (
        lambda f: (f / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n"), "git-LFS"),
    "no JSON": (lambda f: (f / "config.json").write_text("{"), "config.json"),
    "a shard elsewhere": (
        lambda f: change(f / "config.json", transformers_weights="../../secret.safetensors"), "transformers_weights"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_model_is_refused_by_name(tmp_path: Path, case: str) -> None:
    plant, named = WRONG[case]
    folder = write_stored_vit(tmp_path / "vit")
    plant(folder)
    with pytest.raises(ConfigurationError) as told:
        find_model(folder)
    assert named in str(told.value)
    assert str(folder) in str(told.value)


def test_a_training_that_has_not_ended_and_an_exported_folder(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    (run / "results.json").unlink()
    with pytest.raises(ConfigurationError, match="--resume"):
        find_model(run)
    with pytest.raises(ConfigurationError, match="exported"):
        find_model(Path(__file__).parents[4] / "detectors" / "starter")
    (tmp_path / "broken.pt").write_bytes(b"\x80\x04")
    with pytest.raises(ConfigurationError, match=r"broken\.pt"):
        find_model(tmp_path / "broken.pt")


@pytest.mark.parametrize("text", [b"model: [a\n", b"\xff\xfe", b"- a\n"])
def test_a_training_with_a_broken_configuration(tmp_path: Path, text: bytes) -> None:
    run = write_run(tmp_path / "run")
    (run / "config.yaml").write_bytes(text)
    with pytest.raises(ConfigurationError, match=r"config\.yaml"):
        find_model(run)


@pytest.mark.parametrize("figures", [5, {"test": 5}, {"test": {"accuracy": {"value": 1, "low": "x"}, "photos": None}}])
def test_figures_that_are_none(tmp_path: Path, figures: object) -> None:
    run = write_run(tmp_path / "run")
    (run / "results.json").write_text(json.dumps({"figures": figures}))
    assert HOTKEY in readme(find_model(run), card(), None)  # type: ignore[arg-type]


def card(version: str = "1.2.3") -> object:
    return natix_card("roadwork", "Finds roadwork.", version, HOTKEY, now=1_800_000_000.9)


def test_the_card_is_what_natix_asks_for() -> None:
    text = card().model_dump_json()  # type: ignore[attr-defined]
    assert json.loads(text) == {
        "model_name": "roadwork", "description": "Finds roadwork.", "version": "1.2.3", "submitted_by": HOTKEY,
        "submission_time": 1_800_000_000,
    }  # fmt: skip
    assert read_card(text.encode()) == card()


def test_the_readme_has_the_hubs_front_matter_and_the_figures(tmp_path: Path) -> None:
    found = find_model(write_run(tmp_path / "run", "google/vit-base-patch16-224"))
    text = readme(found, card(), "mit")  # type: ignore[arg-type]
    front = yaml.safe_load(text.split("---")[1])
    assert front == {
        "license": "mit", "library_name": "transformers", "pipeline_tag": "image-classification",
        "base_model": "google/vit-base-patch16-224", "tags": ["roadwork", "streetvision", "natix", "bittensor"],
        "metrics": ["accuracy"],
    }  # fmt: skip
    rows = [line for line in text.splitlines() if line.startswith("| ") and "0." in line]
    assert [row.split(" | ")[1:] for row in rows] == [
        ["46", "0.900 (0.800 to 0.950)", "0.800", "–", "0.100", "– |"],
        ["78", "0.970 (0.900 to 0.990)", "0.940", "0.990", "0.030", "0.800 (0.600 to 0.900) |"],
    ]
    assert MADE_BY in text
    assert HOTKEY in text
    assert "license" not in readme(found, card(), None).split("---")[1]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (b"", "JSON"), (b"<html>", "JSON"), (b"[]", "object"), (b"[" * 99_999, "JSON"), (b"{}", "model_name"),
        (json.dumps({"model_name": "a", "description": "b", "version": "1.0", "submitted_by": HOTKEY,
                     "submission_time": 5}).encode(), "version"),
        (json.dumps({"model_name": "a", "description": "b", "version": "1.0.0", "submission_time": 5}).encode(),
         "submitted_by"),
    ],
)  # fmt: skip
def test_what_is_no_card_says_why(text: bytes, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        read_card(text)


@pytest.mark.parametrize(
    ("last", "given", "version"),
    [(None, None, "1.0.0"), ("1.0.0", None, "1.0.1"), ("1.2.9", None, "1.2.10"), ("1.2.9", "1.2.10", "1.2.10"),
     ("9.9.9", "10.0.0", "10.0.0"), (None, "0.0.1", "0.0.1")],
)  # fmt: skip
def test_the_next_version(last: str | None, given: str | None, version: str) -> None:
    assert next_version(last, given) == version


@pytest.mark.parametrize(
    ("last", "given"), [("1.2.10", "1.2.9"), ("1.2.3", "1.2.3"), (None, "1.2"), (None, "v1.2.3"), (None, "1.2.03")]
)
def test_a_version_that_is_lower_or_none_is_refused(last: str | None, given: str) -> None:
    with pytest.raises(ConfigurationError, match=f"--version={given}"):
        next_version(last, given)


def test_no_patch_follows_the_last_number() -> None:
    with pytest.raises(ConfigurationError, match=r"1\.0\.999999999"):
        next_version("1.0.999999999", None)
    assert next_version("1.0.999999999", "1.1.0") == "1.1.0"
