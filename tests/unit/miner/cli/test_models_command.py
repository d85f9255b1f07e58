"""What `roadwork-miner models` says of models that are on this disk."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from detectors.models import MANIFEST_FILE
from detectors.models.manifest import MAKE_ANEW, NUMPY, PLAIN_VIT_BUILDER, Manifest
from detectors.models.sources import variant_folder
from tests.process.test_model_removal import GATE

COMMIT = "0123456789abcdef0123456789abcdef01234567"
STARTER = Path(__file__).resolve().parents[4] / "detectors" / "starter"


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    """A repository's branch that was prepared here before, on a machine without torch."""
    name = tmp_path / "models" / "someone--roadwork"
    shutil.copytree(STARTER, name / COMMIT)
    made = Manifest.read(name / COMMIT)
    update = {"parity": made.parity.model_copy(update={"reference": NUMPY})}
    (name / COMMIT / MANIFEST_FILE).write_text(made.model_copy(update=update).model_dump_json())
    (name / "refs").mkdir()
    (name / "refs" / "main").write_text(COMMIT)
    (tmp_path / "own.yaml").write_text("hf_repo: someone/roadwork\n")
    return tmp_path


def models(folder: Path, *arguments: str, **others: str) -> subprocess.CompletedProcess[str]:
    settings = {"MODELS_DIR": str(folder / "models"), "IMAGE_DETECTOR_CONFIG": str(folder / "own.yaml")}
    command = [sys.executable, "-m", "miner", "models", *arguments]
    environment = os.environ | settings | {"COLUMNS": "300"} | others
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=True)


def test_download_tells_the_commit_and_how_to_pin_it(prepared: Path) -> None:
    told = models(prepared, "download").stderr.splitlines()
    assert f"resolved main to {COMMIT}; put revision: {COMMIT} into {prepared / 'own.yaml'}" in told


def test_download_and_show_say_what_an_older_exporter_made_and_what_makes_it_anew(prepared: Path) -> None:
    folder = prepared / "models" / "someone--roadwork" / COMMIT
    made = Manifest.read(folder)
    (folder / MANIFEST_FILE).write_text(
        made.model_copy(update={"made_with": made.made_with | {PLAIN_VIT_BUILDER: "1"}}).model_dump_json()
    )
    assert MAKE_ANEW in models(prepared, "download").stderr
    assert models(prepared, "show").stdout.count(MAKE_ANEW) == 1
    variant = Path(shutil.copytree(STARTER, variant_folder(made, prepared / "models", "int8", "onnx")))
    update = {"made_with": {PLAIN_VIT_BUILDER: "1"}, "precision": "int8", "backend": "onnx", "gate": GATE}
    (variant / MANIFEST_FILE).write_text(made.model_copy(update=update).model_dump_json())
    (folder / MANIFEST_FILE).write_text(made.model_dump_json())
    assert "older exporter" not in models(prepared, "download").stderr
    told = models(prepared, "download", IMAGE_DETECTOR_PRECISION="int8").stderr
    assert "roadwork-miner export --precision int8 --pictures FOLDER" in told, "what `auto` serves"


def test_list_says_which_class_counts_and_what_speaks_against_it(prepared: Path) -> None:
    folder = prepared / "models" / "someone--roadwork" / COMMIT
    made = Manifest.read(folder)
    output = made.output.model_copy(update={"index": 0, "labels": ["safe", "works"]})
    (folder / MANIFEST_FILE).write_text(made.model_copy(update={"output": output}).model_dump_json())
    starter, own = (line for line in models(prepared, "list").stdout.splitlines() if "pictures" in line)
    assert "class 1 'Roadwork' of 'None', 'Roadwork'" in starter
    assert "class 0 'safe' of 'safe', 'works'; class 0 is called 'safe'" in own


def test_list_counts_all_that_is_on_the_disk_and_leaves_out_what_is_half(prepared: Path) -> None:
    name = prepared / "models" / "someone--roadwork"
    shutil.copytree(name / COMMIT, name / f"{COMMIT}.int8-onnx.partial")
    (name / COMMIT / "of-another").write_bytes(bytes(10**6))
    _, own = json.loads(models(prepared, "list", "--json").stdout)
    (shown,) = json.loads(models(prepared, "show", f"someone--roadwork/{COMMIT}", "--json").stdout)
    assert own["folder"] == str(name / COMMIT)
    assert own["bytes"] == shown["parts"][0]["bytes"] > 10**6


def test_list_says_what_a_comparison_could_not_show(prepared: Path) -> None:
    starter, own = (line for line in models(prepared, "list").stdout.splitlines() if "pictures" in line)
    assert "numpy only" in own
    assert "numpy" not in starter


def test_list_names_models_as_remove_takes_them_however_narrow_the_terminal(prepared: Path) -> None:
    name = prepared / "models" / "someone--roadwork"
    for backend in ("onnx", "openvino"):
        folder = Path(shutil.copytree(name / COMMIT, name / f"{COMMIT}.int8-merged-{backend}"))
        made = Manifest.read(folder).model_copy(update={"precision": "int8-merged", "backend": backend})
        (folder / MANIFEST_FILE).write_text(made.model_dump_json())
    lines = models(prepared, "list", COLUMNS="80").stdout.splitlines()
    place = next(number for number, line in enumerate(lines) if "someone--roadwork/" in line)
    words = ["".join(line.split("│")[1:2]).strip() for line in lines[place : place + 2]]
    going = models(prepared, "remove", "".join(words), "--dry-run", "--force").stdout
    assert f"someone--roadwork/{COMMIT}.int8-merged-onnx" in going
    listed = "\n".join(lines)
    assert "int8-merged onnx: " in listed
    assert "int8-merged openvino: " in listed


def test_list_has_the_variants_of_models_that_lie_elsewhere(prepared: Path) -> None:
    """The starter's, and those of a `model_folder`."""
    made = Manifest.read(STARTER)
    for name, revision in ((made.name, made.revision), ("elsewhere", "v1")):
        folder = Path(shutil.copytree(STARTER, prepared / "models" / name / f"{revision}.int8-onnx"))
        update = {"name": name, "revision": revision, "precision": "int8", "backend": "onnx"}
        (folder / MANIFEST_FILE).write_text(made.model_copy(update=update).model_dump_json())
    listed = models(prepared, "list").stdout
    assert listed.count("int8 onnx: ") == 2
    assert listed.count(f"{made.name}/") == 1
    assert "elsewhere/" in listed
