"""What serves: as set, as tuned, or by default."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from detectors.base import Way, ways_in_words
from detectors.load import PreparedModel
from detectors.models.config import read_config
from detectors.models.manifest import Gate, Manifest
from detectors.models.sources import variant_folder
from miner.errors import CouldNotStart
from miner.inference.plan import (
    Plan,
    choose,
    cpu_model,
    folders,
    key_of,
    plan_key,
    plan_of,
    read_plan,
    stored_plan,
    writable,
    write_plan,
)
from miner.settings.settings import Settings

STARTER = Path(__file__).resolve().parents[4] / "detectors" / "starter"
TUNED = Plan("openvino", "int8", 2, 1, True, "tuned: 0.20 of the time of onnx fp32")


MIX = replace(TUNED, slots=1, threads=2, branches={"a": Way("int8", "openvino", 1), "b": Way("int8", "onnx", 1)})


def starter(models_dir: Path) -> PreparedModel:
    return PreparedModel.find(read_config("starter.yaml"), models_dir)


@pytest.mark.parametrize(
    ("flags", "tuned", "served"),
    [
        ({}, None, ("onnx", "fp32", 1, 4)),
        ({}, TUNED, ("openvino", "int8", 2, 1)),
        ({"image_detector_backend": "onnx"}, TUNED, ("onnx", "fp32", 1, 4)),
        ({"image_detector_backend": "onnx", "image_detector_precision": "int8"}, TUNED, ("onnx", "int8", 1, 4)),
        ({"image_detector_precision": "int8"}, TUNED, ("openvino", "int8", 2, 1)),
        ({"image_detector_precision": "int8"}, None, ("onnx", "int8", 1, 4)),
        ({"image_detector_precision": "bf16"}, None, ("openvino", "bf16", 1, 4)),
        ({"inference_slots": "2"}, TUNED, ("openvino", "int8", 2, 2)),
        ({"inference_threads": "1"}, None, ("onnx", "fp32", 4, 1)),
    ],
)
def test_settings_beat_the_plan_and_the_plan_the_default(
    flags: dict[str, str], tuned: Plan | None, served: tuple[object, ...]
) -> None:
    plan = choose(Settings.load(**flags), 4, tuned)
    assert (plan.backend, plan.precision, plan.slots, plan.threads) == served
    assert plan.why


@pytest.mark.parametrize(
    ("flags", "tuned", "measured", "backend"),
    [
        ({"image_detector_precision": "int8"}, None, "openvino", "openvino"),
        ({"image_detector_precision": "int8"}, replace(TUNED, backend="onnx"), "openvino", "onnx"),
        ({"image_detector_precision": "int8", "image_detector_backend": "onnx"}, None, "openvino", "onnx"),
    ],
)
def test_untuned_the_backend_that_was_best_when_the_variants_were_made_serves(
    flags: dict[str, str], tuned: Plan | None, measured: str, backend: str
) -> None:
    plan = choose(Settings.load(**flags), 4, tuned, measured)
    assert (plan.backend, plan.precision) == (backend, "int8")
    assert ("the best int8" in plan.why) is (tuned is None and "image_detector_backend" not in flags)


def put_variant(models: Path, backend: str, seconds: float, mean: float, others: float | None = None) -> None:
    manifest = Manifest.read(STARTER)
    gate = Gate(
        recipe="x", kept_fp32=[], pictures=1, max_difference=0.1, mean_difference=mean, flips=0,
        seconds=seconds, seconds_fp32=1.0, others=others,
    )  # fmt: skip
    folder = variant_folder(manifest, models, "int8", backend)
    folder.mkdir(parents=True)
    manifest.model_copy(update={"precision": "int8", "backend": backend, "gate": gate}).write(folder)


@pytest.mark.parametrize(
    ("onnx", "openvino", "best"),
    [
        ((0.2, 1e-3), (0.15, 2e-3), "openvino"),
        ((0.16, 1e-3), (0.15, 2e-3), "onnx"),  # within a tenth: the more faithful one
        ((0.3, 1e-3), None, "onnx"),
        (None, (0.3, 1e-3), "openvino"),  # the other did not get through its gate
    ],
)
def test_what_an_export_has_measured_is_read(
    tmp_path: Path, onnx: tuple[float, float] | None, openvino: tuple[float, float] | None, best: str
) -> None:
    settings = Settings.load(models_dir=str(tmp_path), image_detector_precision="int8")
    assert plan_of(settings, starter(tmp_path), 1).backend == "onnx"
    for backend, measured in (("onnx", onnx), ("openvino", openvino)):
        if measured is not None:
            put_variant(tmp_path, backend, *measured)
    plan = plan_of(settings, starter(tmp_path), 1)
    assert plan.backend == best
    assert "the best int8 when it was made" in plan.why
    assert "best" not in plan_of(Settings.load(models_dir=str(tmp_path)), starter(tmp_path), 1).why


def test_the_model_whose_backends_could_not_be_compared_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    put_variant(tmp_path, "onnx", 0.3, 2e-3, others=0.9)
    put_variant(tmp_path, "openvino", 0.2, 1e-3)
    settings = Settings.load(models_dir=str(tmp_path), image_detector_precision="int8")
    assert plan_of(settings, starter(tmp_path), 1).backend == "openvino"
    (line,) = caplog.messages
    assert line.startswith(f"{Manifest.read(STARTER).name}: ")


@pytest.mark.parametrize(("set_", "slots"), [("0", 4), ("7", 7)])
def test_remote_endpoints_and_not_our_cores_give_the_slots(set_: str, slots: int) -> None:
    flags = {"image_detector_backend": "remote", "remote_endpoints": "http://a:8000,http://b:8000"}
    plan = choose(Settings.load(inference_slots=set_, **flags), 16, TUNED)
    assert (plan.backend, plan.precision, plan.slots, plan.threads) == ("remote", "fp32", slots, 1)
    assert plan.why == "2 remote endpoints"


def test_a_plan_is_stored_and_read(tmp_path: Path) -> None:
    write_plan(tmp_path, "abc", TUNED)
    assert read_plan([tmp_path], "abc") == TUNED
    assert read_plan([tmp_path], "other") is None


def test_a_plan_of_branches_is_stored_and_read_and_an_older_one_without_them_too(tmp_path: Path) -> None:
    path = write_plan(tmp_path, "abc", MIX)
    assert read_plan([tmp_path], "abc") == MIX
    assert MIX.runs_on == ways_in_words(MIX.branches)
    path.write_text(FULL)
    old = read_plan([tmp_path], "abc")
    assert old is not None
    assert (old.branches, old.runs_on) == ({}, "onnx fp32")


@pytest.mark.parametrize(
    ("flags", "backend", "threads"),
    [
        ({}, "openvino", [1, 1]),
        ({"image_detector_precision": "int8"}, "openvino", [1, 1]),
        ({"image_detector_precision": "fp32"}, "onnx", []),
        ({"image_detector_backend": "onnx"}, "onnx", []),  # one of the branches runs on another
        ({"inference_threads": "2"}, "openvino", [1, 1]),
        ({"inference_threads": "1"}, "openvino", [0, 0]),  # too few to run side by side
    ],
)
def test_settings_beat_a_plan_of_branches(flags: dict[str, str], backend: str, threads: list[int]) -> None:
    plan = choose(Settings.load(**flags), 2, MIX)
    assert plan.backend == backend
    assert [way.threads for way in plan.branches.values()] == threads


def test_of_two_plans_the_newer_is_read(tmp_path: Path) -> None:
    places = [tmp_path / "models", tmp_path / "state"]
    later = replace(TUNED, slots=4)
    os.utime(write_plan(places[1], "abc", TUNED), (1, 1))
    write_plan(places[0], "abc", later)
    assert read_plan(places, "abc") == later
    os.utime(write_plan(places[0], "abc", later), (0, 0))
    assert read_plan(places, "abc") == TUNED


def test_where_the_models_are_not_ours_a_plan_goes_with_the_state(tmp_path: Path) -> None:
    settings = Settings.load(models_dir=str(tmp_path / "models"), state_dir=str(tmp_path / "state"))
    assert writable(folders(settings)) == tmp_path / "models" / "plans"
    for name in ("models", "state"):
        shutil.rmtree(tmp_path / name, ignore_errors=True)
        (tmp_path / name).write_text("in the way, as a read-only disk is for any user")
        if name == "models":
            place = writable(folders(settings))
            assert place == tmp_path / "state" / "plans"
            write_plan(place, "abc", TUNED)
            assert read_plan(folders(settings), "abc") == TUNED
    with pytest.raises(CouldNotStart, match=r"a plan .*models.*state"):
        writable(folders(settings))
    with pytest.raises(CouldNotStart, match="can't be written: "):
        write_plan(tmp_path / "models" / "plans", "abc", TUNED)


FULL = '{"backend": "onnx", "precision": "fp32", "slots": 1, "threads": 2, "arena": null, "why": "tuned"}'


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", '{"backend": "onnx"}', FULL.replace('"slots": 1', '"slots": 0'),
        FULL.replace('"threads": 2', '"threads": NaN'), FULL.replace('"threads": 2', '"threads": "2"'),
        FULL.replace("onnx", "tpu"), FULL.replace("fp32", "fp4"), FULL.replace('"why"', '"reason"'),
        FULL.replace("}", ', "branches": {"a": {"precision": "int4", "backend": "onnx"}}}'),
    ],
)  # fmt: skip
def test_a_broken_plan_is_passed_over(tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture) -> None:
    write_plan(tmp_path, "abc", TUNED).write_text(text)
    assert read_plan([tmp_path], "abc") is None
    assert "is ignored" in caplog.text


def test_another_model_cpu_quota_or_library_is_another_plan() -> None:
    model, other = [("starter", [("model.onnx", "1" * 64)])], [("starter", [("model.onnx", "0" * 64)])]
    facts = [
        (model, 4, "EPYC", ["onnxruntime 1"]),
        (other, 4, "EPYC", ["onnxruntime 1"]),
        (model, 2, "EPYC", ["onnxruntime 1"]),
        (model, 4, "Xeon", ["onnxruntime 1"]),
        (model, 4, "EPYC", ["onnxruntime 2"]),
    ]
    assert len({plan_key(*fact) for fact in facts}) == len(facts)


def test_a_variant_made_after_the_tuning_or_made_anew_is_another_plan(tmp_path: Path) -> None:
    manifest = Manifest.read(STARTER)
    keys = [key_of(starter(tmp_path), 4)]
    folder = variant_folder(manifest, tmp_path, "int8", "onnx")
    folder.mkdir(parents=True)
    for version in "12":
        files = manifest.files | {"model.onnx": version * 64}
        manifest.model_copy(update={"precision": "int8", "files": files}).write(folder)
        keys.append(key_of(starter(tmp_path), 4))
    assert len(set(keys)) == 3
    assert keys[-1] == key_of(starter(tmp_path), 4)


def test_a_plan_whose_variant_is_gone_is_passed_over(tmp_path: Path) -> None:
    settings, manifest = Settings.load(models_dir=str(tmp_path)), Manifest.read(STARTER)
    folder = variant_folder(manifest, tmp_path, "int8", "openvino")
    folder.mkdir(parents=True)
    manifest.model_copy(update={"precision": "int8"}).write(folder)
    model = starter(tmp_path)
    write_plan(folders(settings)[0], key_of(model, 4), TUNED)
    assert stored_plan(settings, model, 4) == TUNED
    gone = replace(model, variants={})
    write_plan(folders(settings)[0], key_of(gone, 4), TUNED)
    assert stored_plan(settings, gone, 4) is None


def test_the_cpu_is_named_with_its_instruction_sets(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    cpuinfo = tmp_path / "proc" / "cpuinfo"
    names = set()
    for flags in ("sse avx2", "sse avx2 avx512_bf16"):
        cpuinfo.write_text(f"processor\t: 0\nmodel name\t: Some CPU\nflags\t\t: {flags}\n\n")
        names.add(cpu_model(tmp_path))
    assert len(names) == 2
    assert all(name.startswith("Some CPU ") for name in names)
    assert cpu_model(tmp_path / "nowhere") == "unknown"


def test_the_file_is_for_people_too(tmp_path: Path) -> None:
    assert json.loads(write_plan(tmp_path, "abc", TUNED).read_text())["precision"] == "int8"
