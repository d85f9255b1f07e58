"""`models show` and `models remove`: real folders, a real daemon that serves one of them."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from detectors.files import is_in_use
from detectors.models import MANIFEST_FILE, MODEL_FILE
from detectors.models.manifest import Gate, Manifest
from miner.cli.common import ETC, MODELS
from miner.cli.model_removal import chosen
from miner.errors import ConfigurationError
from miner.settings.settings import Settings
from tests.process.conftest import StartDaemon
from tests.process.daemon import PATIENCE, Daemon, clean_environment, eventually

COMMIT, OLD = "0123456789abcdef0123456789abcdef01234567", "89abcdef0123456789abcdef0123456789abcdef"
STARTER = Path(__file__).resolve().parents[2] / "detectors" / "starter"
GATE = Gate(
    recipe="dynamic", kept_fp32=[], pictures=40, max_difference=0.01, mean_difference=0.001, flips=0.0, seconds=0.01,
    seconds_fp32=0.02,
)  # fmt: skip


def prepare(folder: Path, **changes: object) -> Path:
    """Put the starter there as a prepared model."""
    shutil.copytree(STARTER, folder, ignore=shutil.ignore_patterns("optimized"))
    update = {"name": folder.parent.name, "revision": folder.name.partition(".")[0]} | changes
    Manifest.read(folder).model_copy(update=update).write(folder)
    return folder


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """Models: the configured one with a variant, an older revision of it, another one."""
    own, other = tmp_path / "models" / "me--roadwork", tmp_path / "models" / "you--roadwork"
    prepare(own / COMMIT)
    prepare(own / f"{COMMIT}.int8-onnx", precision="int8", backend="onnx", gate=GATE)
    prepare(own / OLD)
    prepare(other / "main")
    for name, commit in (("main", COMMIT), ("old", OLD)):
        (own / "refs").mkdir(exist_ok=True)
        (own / "refs" / name).write_text(commit)
    (tmp_path / "own.yaml").write_text("hf_repo: me/roadwork\n")
    (tmp_path / "other.yaml").write_text("hf_repo: you/roadwork\n")
    return tmp_path / "models"


def command(models: Path, *arguments: str, code: int = 0, **settings: str) -> subprocess.CompletedProcess[str]:
    given = {
        "MODELS_DIR": str(models), "STATE_DIR": str(models.parent / "state"),
        "IMAGE_DETECTOR_CONFIG": str(models.parent / "own.yaml"),
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "miner", "models", *arguments], stdin=subprocess.DEVNULL, capture_output=True,
        text=True, timeout=PATIENCE, env=clean_environment(COLUMNS="80", **(given | settings)),
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    return done


def left(models: Path) -> set[str]:
    return {str(path.parent.relative_to(models)) for path in models.glob(f"*/*/{MANIFEST_FILE}")}


EVERY = {f"me--roadwork/{COMMIT}", f"me--roadwork/{COMMIT}.int8-onnx", f"me--roadwork/{OLD}", "you--roadwork/main"}


def shown(models: Path, *arguments: str, code: int = 0) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(command(models, "show", *arguments, "--json", code=code).stdout)
    return found


def test_the_configured_model_is_shown_with_its_variants(models: Path) -> None:
    (view,) = shown(models)
    assert (view["name"], view["revision"], view["detector"]) == ("me--roadwork", COMMIT, "ViT")
    assert view["architecture"] == "EfficientNetForImageClassification"
    assert view["labels"] == ["None", "Roadwork"]
    assert "class 1" in view["roadwork"]
    assert view["threshold"] == 0.5
    fp32, int8 = view["parts"]
    assert (fp32["precision"], fp32["backend"], fp32["fault"], fp32["files"]) == ("fp32", "any", "", 3)
    assert (int8["precision"], int8["backend"], int8["speed"]) == ("int8", "onnx", 0.5)
    files = [path for path in (models / "me--roadwork" / COMMIT).iterdir() if path.is_file()]
    assert fp32["bytes"] == sum(path.stat().st_size for path in files)
    lines = command(models, "show").stdout.splitlines()
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize("name", ["you--roadwork", "you--roadwork/main", "FOLDER", "YAML"])
def test_another_one_is_shown_by_any_name(name: str, models: Path) -> None:
    given = {"FOLDER": str(models / "you--roadwork" / "main"), "YAML": str(models.parent / "other.yaml")}
    assert shown(models, given.get(name, name))[0]["name"] == "you--roadwork"


def test_a_damaged_file_is_said_and_the_exit_code_tells(models: Path) -> None:
    with (models / "me--roadwork" / COMMIT / MODEL_FILE).open("ab") as file:
        file.write(b"x")
    (view,) = shown(models, code=1)
    assert [bool(part["fault"]) for part in view["parts"]] == [True, False]


def test_a_name_of_several_or_none_is_refused(models: Path) -> None:
    for name in ("me--roadwork", "nobody"):
        assert f"MODEL={name}: " in command(models, "show", name, code=2).stderr


def test_what_would_go_is_said_and_nothing_goes(models: Path) -> None:
    told = json.loads(command(models, "remove", "you--roadwork", "--dry-run", "--json").stdout)
    assert [row["model"] for row in told["models"]] == ["you--roadwork/main"]
    assert told["removed"] is False
    assert told["bytes"] > 2_000_000
    assert left(models) == EVERY


def test_one_revision_goes_with_its_branchs_name(models: Path) -> None:
    command(models, "remove", f"me--roadwork/{OLD[:8]}", "--yes")
    assert left(models) == EVERY - {f"me--roadwork/{OLD}"}
    assert [path.name for path in (models / "me--roadwork" / "refs").iterdir()] == ["main"]
    command(models, "remove", "you--roadwork", "--yes")
    assert not (models / "you--roadwork").exists()


def test_what_the_settings_name_stays_unless_forced(models: Path) -> None:
    variant = f"me--roadwork/{COMMIT}.int8-onnx"
    for name in ("me--roadwork", f"me--roadwork/{COMMIT}", variant):
        assert "--force" in command(models, "remove", name, "--yes", code=2).stderr
    shadow = str(models.parent / "other.yaml")
    command(models, "remove", "you--roadwork", "--yes", code=2, SHADOW_DETECTOR_CONFIG=shadow)
    assert left(models) == EVERY
    command(models, "remove", variant, "--yes", "--force")
    assert left(models) == EVERY - {variant}


def test_unused_ones_are_those_that_no_settings_name(models: Path) -> None:
    (models / "you--roadwork" / "next.partial").mkdir()  # being made just now
    done = command(models, "remove", "--unused", code=2)
    assert "--yes" in done.stderr, "nobody can be asked"
    assert left(models) == EVERY
    command(models, "remove", "--unused", "--yes")
    assert left(models) == {f"me--roadwork/{COMMIT}", f"me--roadwork/{COMMIT}.int8-onnx"}
    assert (models / "you--roadwork" / "next.partial").is_dir()
    command(models, "remove", "--unused", "me--roadwork", code=2)
    command(models, "remove", "nobody", "--yes", code=2)


def test_what_a_running_miner_serves_never_goes(models: Path, start_daemon: StartDaemon) -> None:
    daemon: Daemon = start_daemon(MODELS_DIR=models, IMAGE_DETECTOR_CONFIG=models.parent / "own.yaml").ready()
    running = {"STATE_DIR": str(daemon.state), "STATUS_PORT": str(daemon.status_port)}
    changed = running | {"IMAGE_DETECTOR_CONFIG": str(models.parent / "other.yaml")}
    done = command(models, "remove", f"me--roadwork/{COMMIT}", "--yes", "--force", code=2, **changed)
    assert "MODEL=me--roadwork" in done.stderr
    command(models, "remove", "--unused", "--yes", **changed)
    assert left(models) == EVERY - {f"me--roadwork/{OLD}"}
    daemon.stop()
    command(models, "remove", f"me--roadwork/{COMMIT}", "--yes", **changed)
    assert left(models) == {"you--roadwork/main"}


def test_what_is_served_under_another_state_folder_stays_too(models: Path, start_daemon: StartDaemon) -> None:
    """And its shadow: the kernel knows who reads a folder, whatever the settings say. A reload lets the old one go."""
    given = {"MODELS_DIR": models, "IMAGE_DETECTOR_CONFIG": models.parent / "other.yaml", "SHADOW_SAMPLE": 1}
    daemon: Daemon = start_daemon(**given, SHADOW_DETECTOR_CONFIG=models.parent / "own.yaml").ready()
    elsewhere = {"STATE_DIR": str(models.parent / "elsewhere"), "IMAGE_DETECTOR_CONFIG": "starter.yaml"}
    eventually(lambda: is_in_use(models / "me--roadwork" / COMMIT))
    for name in ("you--roadwork", f"me--roadwork/{COMMIT}"):
        done = command(models, "remove", name, "--yes", "--force", code=2, **elsewhere)
        assert f"MODEL={name}" in done.stderr
    command(models, "remove", "--unused", "--yes", **elsewhere)
    assert left(models) == EVERY - {f"me--roadwork/{OLD}"}
    (models.parent / "other.yaml").write_text("hf_repo: me/roadwork\n")
    daemon.signal(signal.SIGHUP)
    eventually(lambda: not is_in_use(models / "you--roadwork" / "main"))
    command(models, "remove", "you--roadwork", "--yes", **elsewhere)
    assert is_in_use(models / "me--roadwork" / COMMIT)
    daemon.stop()
    assert not is_in_use(models / "me--roadwork" / COMMIT)


def test_what_an_installed_service_names_stays_too(models: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / MODELS).parent.mkdir(parents=True)
    models.rename(root / MODELS)
    settings = Settings.load(models_dir=str(root / MODELS), image_detector_config=str(tmp_path / "own.yaml"))

    def going() -> set[str]:
        return {one.name for one in chosen(settings, None, unused=True, force=False, root=root)}

    assert going() == {f"me--roadwork/{OLD}", "you--roadwork/main"}
    (root / ETC).mkdir(parents=True)
    (root / ETC / "testnet.env").write_text(f"IMAGE_DETECTOR_CONFIG={tmp_path / 'other.yaml'}\n")
    assert going() == {f"me--roadwork/{OLD}"}
    with pytest.raises(ConfigurationError, match="service testnet"):
        chosen(settings, "you--roadwork", unused=False, force=False, root=root)
    (tmp_path / "branch.yaml").write_text("hf_repo: me/roadwork\nrevision: next\n")
    (root / ETC / "testnet.env").write_text(f"IMAGE_DETECTOR_CONFIG={tmp_path / 'branch.yaml'}\n")
    assert going() == {"you--roadwork/main"}, "any of them may be the branch's"
    (tmp_path / "broken.yaml").write_text("hf_repo: [me/roadwork\n")
    for name in ("broken.yaml", "gone.yaml"):
        (root / ETC / "testnet.env").write_text(f"IMAGE_DETECTOR_CONFIG={tmp_path / name}\n")
        with pytest.raises(ConfigurationError, match=rf"service testnet .*{name}"):
            going()
    (root / ETC / "testnet.env").write_text("NETUID=here\n")
    with pytest.raises(ConfigurationError, match="service testnet"):
        going()


def test_of_a_link_the_link_alone_goes(models: Path, tmp_path: Path) -> None:
    original = (models / "you--roadwork" / "main").rename(tmp_path / "original")
    (models / "you--roadwork" / "main").symlink_to(original)
    command(models, "remove", "you--roadwork", "--yes")
    assert left(models) == EVERY - {"you--roadwork/main"}
    assert (original / MANIFEST_FILE).is_file()
