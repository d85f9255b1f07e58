"""What `export` and `models download` say of precisions that they can't make: by the flag or setting that was given."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from detectors.photos.synthetic import many_pictures
from detectors.quantize.quantize import CalibrationPhotos
from detectors.quantize.schedule import LEAST_JUDGED, LEAST_PHOTOS, why_too_few
from miner.cli import app
from miner.errors import ConfigurationError

EXPORT = ("export", "--config", "starter.yaml", "--backend", "onnx")


def fault(*words: str, folder: Path) -> str:
    """Return the one error that a command ends with."""
    done = CliRunner().invoke(app, [*words, "--set", f"MODELS_DIR={folder / 'models'}"])
    assert isinstance(done.exception, ConfigurationError), done.output
    return str(done.exception)


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (("--merge", "13"), "--merge=13"),
        (("--merge", "auto", "--precision", "int8"), "--merge=auto"),
        (("--precision", "int8-merged"), "--precision=int8-merged"),
    ],
)
def test_too_few_photos_to_merge_by_are_told_by_the_flag_that_was_given(
    words: tuple[str, ...], name: str, tmp_path: Path
) -> None:
    said = fault(*EXPORT, *words, folder=tmp_path)
    assert said.startswith(f"{name}: ")
    assert f"at least {LEAST_PHOTOS} of your photos" in said
    assert "and 0 are given" in said
    assert "--pictures FOLDER" in said
    photos = tmp_path / "photos"
    photos.mkdir()
    for number, data in enumerate(many_pictures(3)):
        (photos / f"{number}.jpg").write_bytes(data)
    said = fault(*EXPORT, *words, "--pictures", str(photos), folder=tmp_path)
    assert said.startswith(f"{name}: ")
    assert "and 3 are given" in said


@pytest.mark.parametrize("precision", ["merged", "int8-merged"])
def test_a_setting_that_takes_photos_is_named_with_the_command_that_makes_it(precision: str, tmp_path: Path) -> None:
    said = fault(
        "models", "download", "--config", "starter.yaml", "--set", f"IMAGE_DETECTOR_PRECISION={precision}",
        folder=tmp_path,
    )  # fmt: skip
    assert said.startswith(f"IMAGE_DETECTOR_PRECISION={precision}: ")
    assert f"`roadwork-miner export --precision {precision} --pictures FOLDER`" in said
    assert "--precision=" not in said


def test_as_many_photos_are_judged_as_are_asked_for() -> None:
    for given in (LEAST_PHOTOS, LEAST_PHOTOS + 1, 400, 5000):
        calibration, judged = CalibrationPhotos([bytes([number % 251]) for number in range(given)]).split()
        assert len(judged.data) >= LEAST_JUDGED
        assert len(judged.data) + len(calibration.data) == given
        assert not why_too_few(given, made=False)
    _, judged = CalibrationPhotos([b"photo"] * (LEAST_PHOTOS - 1)).split()
    assert len(judged.data) < LEAST_JUDGED
    for lack in (why_too_few(LEAST_PHOTOS - 1, made=False), why_too_few(LEAST_PHOTOS, made=True)):
        assert f"{LEAST_PHOTOS} of your photos" in lack
        assert f"{LEAST_JUDGED} to be judged on" in lack
