"""An adapter on a hub: its base is fetched at its commit, remembered and told; the next start needs no network."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from detectors.models.manifest import Manifest
from tests.hub import COMMIT, Hub, commit_of, serving
from tests.process.test_hub import download
from tests.stored_vit import SIZE, write_stored_vit

BASE = "someone/base"
LAYER = "base_model.model.vit.encoder.layer.0.attention.attention.query.lora_"


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def make_adapter(folder: Path, **values: object) -> dict[str, bytes]:
    folder.mkdir()
    draw = np.random.default_rng(1).standard_normal
    shapes = {"A": (2, SIZE), "B": (SIZE, 2)}
    weights = {f"{LAYER}{half}.weight": draw(shape).astype(np.float32) for half, shape in shapes.items()}
    save_file(weights, folder / "adapter_model.safetensors")
    keys = {"peft_type": "LORA", "base_model_name_or_path": BASE, "revision": None, "r": 2, "lora_alpha": 4}
    (folder / "adapter_config.json").write_text(json.dumps(keys | values))
    return files_of(folder)


def models(home: Path) -> list[Path]:
    return sorted(path.parent for path in (home / "models" / "someone--roadwork").glob("*/manifest.json"))


def test_an_adapter_is_merged_with_its_base_at_the_commit_of_now(tmp_path: Path) -> None:
    base, adapter = files_of(write_stored_vit(tmp_path / "vit")), make_adapter(tmp_path / "adapter")
    unused = {"pytorch_model.bin": b"", "adapter_model.bin": b"", "optimizer.pt": b""}
    with serving(Hub(adapter | unused, others={BASE: base | unused})) as hub:
        commit = commit_of(hub.others[BASE])
        done = download(tmp_path, hub)
    assert done.returncode == 0, done.stderr
    assert sorted(hub.fetched) == sorted([*adapter, *base])
    (folder,) = models(tmp_path)
    origin = Manifest.read(folder).source.origin
    assert origin == f"someone/roadwork@{COMMIT} on {BASE}@{commit}"
    told = [line for line in done.stderr.splitlines() if line.startswith("resolved ")]
    assert [COMMIT in line and BASE not in line for line in told] == [True, False]
    assert commit in told[1]
    assert any(commit in line and "adapter_config.json" in line for line in done.stderr.splitlines())
    again = download(tmp_path, hub)  # which is away
    assert again.returncode == 0, again.stderr
    assert [line for line in again.stderr.splitlines() if line.startswith("resolved ")] == told
    assert models(tmp_path) == [folder]


def test_a_pinned_base_is_taken_at_its_commit_and_another_one_is_another_model(tmp_path: Path) -> None:
    base = files_of(write_stored_vit(tmp_path / "vit"))
    adapter = make_adapter(tmp_path / "adapter", revision=commit_of(base))
    with serving(Hub(adapter, others={BASE: base})) as hub:
        done = download(tmp_path, hub)
        assert done.returncode == 0, done.stderr
        assert not [line for line in done.stderr.splitlines() if "resolved" in line and BASE in line]
        (first,) = models(tmp_path)
        hub.others[BASE] = base | {"config.json": base["config.json"] + b"\n"}
        hub.files = make_adapter(tmp_path / "second", revision=commit_of(hub.others[BASE]))
        hub.commits.append("another base")
        done = download(tmp_path, hub, "--force")
    assert done.returncode == 0, done.stderr
    assert len(models(tmp_path)) == 2
    assert first in models(tmp_path)


REFUSED = {
    "a base that is not there": ({"base_model_name_or_path": "someone/else"}, "someone/else"),
    "a revision that is not there": ({"revision": "v9"}, "v9"),
    "a base on a disk": ({"base_model_name_or_path": "/"}, "base model"),
    "an adapter of an adapter": ({"base_model_name_or_path": "someone/roadwork"}, "an adapter itself"),
    "DoRA": ({"use_dora": True}, "use_dora"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_can_not_be_merged_is_told_in_one_line(tmp_path: Path, case: str) -> None:
    values, named = REFUSED[case]
    base, adapter = files_of(write_stored_vit(tmp_path / "vit")), make_adapter(tmp_path / "adapter", **values)
    with serving(Hub(adapter, others={BASE: base})) as hub:
        done = download(tmp_path, hub)
    assert done.returncode in (2, 3), done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert named in line
    assert "Traceback" not in done.stderr
