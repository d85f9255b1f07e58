"""Fetching a model: exactly its files, and a hub's refusal in its own words with what can be done."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.hub import COMMIT, Hub, Refusal, serving
from tests.process.daemon import PATIENCE, clean_environment
from tests.stored_vit import write_stored_vit

GATED = "Access to model someone/roadwork is restricted. You must have access to it and be authenticated."
REFUSALS = {
    "private, or not there": (Refusal(401, "RepoNotFound", "Repository not found"), "HF_TOKEN"),
    "not there": (Refusal(404, "RepoNotFound", "Repository not found"), "hf_repo"),
    "gated": (Refusal(403, "GatedRepo", GATED, gate=True), "terms at {url}/someone/roadwork"),
    "gated, without a token": (Refusal(401, "GatedRepo", GATED, gate=True), "terms at {url}"),
    "a token without the right": (Refusal(403, "", "Your token lacks the needed permissions"), "lacks the right"),
    "a wrong token": (Refusal(401, "", "Invalid credentials in Authorization header"), "a valid token"),
    "no such revision": (Refusal(404, "RevisionNotFound", "Invalid rev id: main"), "revision"),
}


def download(folder: Path, hub: Hub, *flags: str, **more: str) -> "subprocess.CompletedProcess[str]":
    yaml = folder / "hub.yaml"
    yaml.write_text("hf_repo: someone/roadwork\n")
    environment = clean_environment(
        HF_ENDPOINT=hub.url, HF_HOME=str(folder / "home"), HF_HUB_OFFLINE="0", MODELS_DIR=str(folder / "models"),
        STATE_DIR=str(folder / "state"), IMAGE_DETECTOR_CONFIG=str(yaml), IMAGE_DETECTOR="ViT", **more,
    )  # fmt: skip
    return subprocess.run(
        [sys.executable, "-m", "miner", "models", "download", *flags],
        env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("case", REFUSALS)
def test_a_refusal_is_told_in_the_hubs_words_with_what_can_be_done(tmp_path: Path, case: str) -> None:
    refusal, way_out = REFUSALS[case]
    with serving(Hub({"config.json": b"{}", "model.safetensors": b"w"}, refusal)) as hub:
        done = download(tmp_path, hub)
    assert done.returncode == 3, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert refusal.message.rstrip(".") in line
    assert str(refusal.status) in line
    assert way_out.format(url=hub.url) in line


def test_an_older_name_of_the_token_is_named(tmp_path: Path) -> None:
    with serving(Hub({}, REFUSALS["not there"][0])) as hub:
        assert "HUGGING_FACE_TOKEN" in download(tmp_path, hub, HUGGING_FACE_TOKEN="hf_x").stderr
        assert "HUGGING_FACE_TOKEN" not in download(tmp_path, hub, HUGGING_FACE_TOKEN="hf_x", HF_TOKEN="hf_y").stderr


def test_a_download_takes_the_models_files_and_no_other(tmp_path: Path) -> None:
    folder = write_stored_vit(tmp_path / "vit")
    own = {path.name: path.read_bytes() for path in folder.iterdir()}
    others = {
        "model_ema.safetensors",
        "checkpoint-5/model.safetensors",
        "checkpoint-5/config.json",
        "pytorch_model.bin",
    }
    with serving(Hub(own | dict.fromkeys(others, b"something else"))) as hub:
        done = download(tmp_path, hub)
    assert done.returncode == 0, done.stderr
    assert sorted(hub.fetched) == sorted(own)
    assert (tmp_path / "models" / "someone--roadwork" / COMMIT / "manifest.json").is_file()


def test_the_weights_that_config_json_names_are_fetched_and_read(tmp_path: Path) -> None:
    folder = write_stored_vit(tmp_path / "vit")
    own = {path.name: path.read_bytes() for path in folder.iterdir()}
    values = json.loads(own["config.json"]) | {"transformers_weights": "best.safetensors"}
    files = own | {"config.json": json.dumps(values).encode(), "best.safetensors": own["model.safetensors"]}
    broken = files | {"model.safetensors": b"not read"}
    with serving(Hub(broken)) as hub:
        done = download(tmp_path, hub)
    assert done.returncode == 0, done.stderr
    assert "best.safetensors" in hub.fetched


def test_a_repository_as_transformers_5_saves_a_processor_of_several_parts_is_fetched(tmp_path: Path) -> None:
    folder = write_stored_vit(tmp_path / "vit")
    own = {path.name: path.read_bytes() for path in folder.iterdir()}
    processor = json.loads(own.pop("preprocessor_config.json"))
    whole = {"image_processor": processor, "processor_class": "SomeProcessor"}
    with serving(Hub(own | {"processor_config.json": json.dumps(whole).encode()})) as hub:
        done = download(tmp_path, hub)
    assert done.returncode == 0, done.stderr
    assert sorted(hub.fetched) == sorted([*own, "processor_config.json"])
