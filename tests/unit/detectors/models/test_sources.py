"""Where weights are found: local folders, and a real hub cache without a network."""

import hashlib
from pathlib import Path

import pytest

from detectors.errors import DetectorConfigError, ModelError
from detectors.models.config import SHIPPED, DetectorConfig
from detectors.models.sources import find_original, model_folder, pins, remember_revision

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPO = "someone/roadwork"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache of the hub as huggingface_hub lays it out, holding one repository at one commit."""
    import huggingface_hub.constants

    cache = tmp_path / "hub"
    repo = cache / "models--someone--roadwork"
    snapshot = repo / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (repo / "blobs").mkdir()
    for name, content in {
        "config.json": b"{}",
        "preprocessor_config.json": b"{}",
        "model.safetensors": b"w" * 99,
    }.items():
        blob = repo / "blobs" / hashlib.sha256(content).hexdigest()
        blob.write_bytes(content)
        (snapshot / name).symlink_to(blob)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(COMMIT)
    # What HF_HOME and HF_HUB_OFFLINE set; read by the library at its import, which is long past here.
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return repo


def config(**values: object) -> DetectorConfig:
    return DetectorConfig(**({"hf_repo": REPO, "path": Path("mine.yaml")} | values))  # type: ignore[arg-type]


@pytest.mark.parametrize("revision", ["main", COMMIT])
def test_a_repository_in_the_cache_needs_no_network(hub: Path, revision: str) -> None:
    original = find_original(config(revision=revision))
    assert original.revision == COMMIT
    assert original.origin == REPO
    assert (original.path / "model.safetensors").read_bytes() == b"w" * 99


def test_a_subfolder_of_a_repository_is_a_model_of_its_own(hub: Path, tmp_path: Path) -> None:
    snapshot = hub / "snapshots" / COMMIT
    (snapshot / "second").mkdir()
    (snapshot / "model.safetensors").rename(snapshot / "second" / "model.safetensors")
    original = find_original(config(subfolder="second"))
    assert (original.path, original.revision) == (snapshot / "second", COMMIT)
    assert original.origin == f"{REPO}/second"
    first, second = (model_folder(config(subfolder=name), tmp_path) for name in ("first", "second"))
    assert (first.parent.name, second.parent.name) == ("someone--roadwork--first", "someone--roadwork--second")
    with pytest.raises(ModelError, match=r"has no folder 'first' \(subfolder\)"):
        find_original(config(subfolder="first"))


@pytest.mark.usefixtures("hub")
def test_a_revision_that_is_not_there_is_named() -> None:
    with pytest.raises(ModelError, match="someone/roadwork at revision v9 "):
        find_original(config(revision="v9"))


def test_a_damaged_download_is_found(hub: Path) -> None:
    (hub / "snapshots" / COMMIT / "model.safetensors").resolve().write_bytes(b"x" * 99)
    with pytest.raises(ModelError, match="damaged"):
        find_original(config())


def test_a_branch_is_the_commit_it_last_resolved_to(tmp_path: Path) -> None:
    assert model_folder(config(), tmp_path) == tmp_path / "someone--roadwork" / "main"
    remember_revision(config(), tmp_path, COMMIT)
    assert model_folder(config(), tmp_path) == tmp_path / "someone--roadwork" / COMMIT
    assert model_folder(config(revision=COMMIT), tmp_path) == tmp_path / "someone--roadwork" / COMMIT


def test_what_a_branch_resolved_to_is_told_with_what_pins_it(tmp_path: Path) -> None:
    assert pins(config(), tmp_path) == []  # nobody knows yet
    remember_revision(config(), tmp_path, COMMIT)
    told = f"resolved main to {COMMIT}; put revision: {COMMIT} into mine.yaml"
    assert pins(config(), tmp_path) == [told]
    assert pins(config(revision=COMMIT), tmp_path) == []
    pair = config(hf_repo=None, branches={"first": config(), "second": config(revision=COMMIT)})
    assert pins(pair, tmp_path) == [told]
    remember_revision(config(path=SHIPPED / "ViT_roadwork.yaml"), tmp_path, COMMIT)
    (shipped,) = pins(config(path=SHIPPED / "ViT_roadwork.yaml"), tmp_path)
    assert shipped.endswith("copy of ViT_roadwork.yaml")


def test_changed_local_weights_are_another_revision(tmp_path: Path) -> None:
    path = tmp_path / "best.pt"
    path.write_bytes(b"one")
    local = config(hf_repo=None, weights_path=path)
    before = model_folder(local, tmp_path / "models")
    assert before.parent.name == "best"
    assert model_folder(local, tmp_path / "models") == before
    path.write_bytes(b"another")
    assert model_folder(local, tmp_path / "models") != before


def test_missing_local_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(DetectorConfigError, match=r"best.pt does not exist"):
        model_folder(config(hf_repo=None, weights_path=tmp_path / "best.pt"), tmp_path)
