"""The optimised graph is served for the model, library and CPU it was made for, and for no other."""

import json
import os
import shlex
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from detectors.backends import ort_cache
from detectors.base import RunOptions
from detectors.load import load_detector
from detectors.models import MODEL_FILE
from detectors.models.config import DetectorConfig
from detectors.models.manifest import Manifest
from detectors.models.store import LARGE_GRAPH_BYTES

WEIGHTS = f"{MODEL_FILE}.data"
STARTER = Path(__file__).resolve().parents[2] / "detectors" / "starter"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(STARTER, tmp_path / "model", ignore=shutil.ignore_patterns("optimized")))


def caches(folder: Path) -> list[Path]:
    return [path.parent for path in folder.glob(f"{ort_cache.FOLDER}/*/{ort_cache.SUMS}")]


def test_the_first_load_makes_it_and_the_second_serves_it(folder: Path) -> None:
    config = DetectorConfig(model_folder=folder, path=folder / "x.yaml")
    load_detector("ViT", config, folder, "onnx", RunOptions()).verify()
    (cache,) = caches(folder)
    made = (cache / MODEL_FILE).stat().st_mtime_ns
    # With it there, the graph it was made from is not read any more.
    (folder / MODEL_FILE).unlink()
    load_detector("ViT", config, folder, "onnx", RunOptions()).verify()
    assert (cache / MODEL_FILE).stat().st_mtime_ns == made


def test_a_changed_cache_is_thrown_away_and_made_again(folder: Path) -> None:
    manifest = Manifest.read(folder)
    ort_cache.make_graph(folder, manifest)
    (cache,) = caches(folder)
    (cache / MODEL_FILE).write_bytes(b"another graph")
    assert ort_cache.cached_graph(folder, manifest) is None
    assert not cache.exists()
    assert ort_cache.ensure_graph(folder, manifest) == cache / MODEL_FILE


@pytest.mark.parametrize("left", [0, 1000, -1])  # bytes; -1: all of them, one of which is another
def test_weights_that_turn_out_damaged_while_they_are_loaded_serve_nothing(folder: Path, left: int) -> None:
    config = DetectorConfig(model_folder=folder, path=folder / "x.yaml")
    load_detector("ViT", config, folder, "onnx", RunOptions())
    (cache,) = caches(folder)
    whole = (cache / WEIGHTS).read_bytes()
    damaged = whole[:left] if left >= 0 else bytes([whole[0] ^ 1]) + whole[1:]
    (cache / WEIGHTS).unlink()  # mapped by the detector above, perhaps
    (cache / WEIGHTS).write_bytes(damaged)
    load_detector("ViT", config, folder, "onnx", RunOptions()).verify()
    assert (cache / WEIGHTS).read_bytes() == whole


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", "7"])
def test_a_cache_without_good_sums_is_not_served(folder: Path, text: str) -> None:
    manifest = Manifest.read(folder)
    ort_cache.make_graph(folder, manifest)
    (cache,) = caches(folder)
    (cache / ort_cache.SUMS).write_text(text)
    assert ort_cache.cached_graph(folder, manifest) is None


def test_a_changed_model_is_not_served_from_it(folder: Path) -> None:
    manifest = Manifest.read(folder)
    ort_cache.make_graph(folder, manifest)
    values = json.loads((folder / "manifest.json").read_text())
    values["files"][MODEL_FILE] = "0" * 64
    (folder / "manifest.json").write_text(json.dumps(values))
    assert ort_cache.cached_graph(folder, Manifest.read(folder)) is None


def test_another_library_version_or_cpu_has_another_key(tmp_path: Path) -> None:
    manifest = Manifest.read(STARTER)
    keys = {ort_cache.key(manifest), ort_cache.key(manifest, version="0.0.0")}
    for number, flags in enumerate(("sse", "sse avx512_vnni")):
        cpuinfo = tmp_path / str(number) / "proc" / "cpuinfo"
        cpuinfo.parent.mkdir(parents=True)
        cpuinfo.write_text(f"flags : {flags}\n")
        keys.add(ort_cache.key(manifest, root=tmp_path / str(number)))
    assert len(keys) == 4


@pytest.mark.parametrize(("days", "stays"), [(1, True), (40, False)])
def test_another_releases_graph_stays_until_it_was_not_served_for_weeks(
    folder: Path, days: int, *, stays: bool
) -> None:
    old = folder / ort_cache.FOLDER / "0123456789abcdef"
    old.mkdir(parents=True)
    (old / ort_cache.SUMS).write_text("{}")
    os.utime(old, (time.time() - days * ort_cache.DAY,) * 2)
    ort_cache.make_graph(folder, Manifest.read(folder))
    assert old.exists() is stays


def test_a_graph_that_is_served_counts_as_used(folder: Path) -> None:
    manifest = Manifest.read(folder)
    ort_cache.make_graph(folder, manifest)
    (cache,) = caches(folder)
    os.utime(cache, (0, 0))
    assert ort_cache.cached_graph(folder, manifest) is not None
    assert cache.stat().st_mtime > time.time() - ort_cache.DAY


def test_of_two_that_start_together_the_second_leaves_the_graph_that_the_first_may_be_loading(folder: Path) -> None:
    manifest = Manifest.read(folder)
    ort_cache.make_graph(folder, manifest)
    (cache,) = caches(folder)
    first = (cache / MODEL_FILE).stat().st_ino
    ort_cache.make_graph(folder, manifest)
    assert (cache / MODEL_FILE).stat().st_ino == first
    assert [path.name for path in cache.parent.iterdir()] == [cache.name]


def test_a_folder_that_can_not_be_written_serves_without_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort_cache.os, "access", lambda path, mode: False)  # root may write anywhere
    assert ort_cache.ensure_graph(folder, Manifest.read(folder)) is None


def test_a_large_model_that_is_served_without_it_says_how_to_make_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(ort_cache.os, "access", lambda path, mode: False)
    with (folder / f"{MODEL_FILE}.data").open("wb") as weights:
        weights.truncate(LARGE_GRAPH_BYTES)
    assert ort_cache.ensure_graph(folder, Manifest.read(folder)) is None
    (record,) = caplog.records
    command = record.getMessage().split("`")[1]
    subprocess.run(shlex.split(command), check=True)
    assert ort_cache.cached_graph(folder, Manifest.read(folder)) is not None


def test_what_a_killed_process_left_half_done_is_removed_and_what_another_makes_is_not(folder: Path) -> None:
    left, at_work = (folder / ort_cache.FOLDER / f"abc.{pid}.partial" for pid in (2**22 + 1, os.getppid()))
    for path in (left, at_work):
        path.mkdir(parents=True)
    ort_cache.make_graph(folder, Manifest.read(folder))
    assert not left.exists()
    assert at_work.exists()
    assert len(caches(folder)) == 1
