"""A label check that is stopped in the middle keeps its features; its sheet is legible on a desk and on a phone."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from detectors.photos.labelled import read_photos
from tests.photos import fill
from tests.process.browser import Browser
from tests.process.daemon import PATIENCE, clean_environment
from tests.process.test_page import FAINT, OUTSIDE

pytest.importorskip("torch")
pytest.importorskip("sklearn")

from detectors.training.label_check import JudgedPhoto, LabelReport, NearPair
from miner.cli.label_sheet import render

pytestmark = pytest.mark.slow
CACHED = re.compile(r"features: (\d+) of (\d+) are cached")


def start(folder: Path) -> "subprocess.Popen[str]":
    arguments = ["labels", "photos", "--model", "lite2", "--cache", "cache"]
    settings = ["threads=1", "workers=0", "micro_batch=1"]
    return subprocess.Popen(
        [sys.executable, "-m", "miner", *arguments, *(word for one in settings for word in ("--set", one))],
        cwd=folder, stderr=subprocess.PIPE, text=True,
        env=clean_environment(PYTHONPATH=str(Path(__file__).parents[2])),
    )  # fmt: skip


def test_features_outlive_a_stop(tmp_path: Path) -> None:
    fill(tmp_path / "photos", 100)  # seconds of work, also where the signal comes late
    with start(tmp_path) as stopped:
        assert stopped.stderr is not None
        for line in stopped.stderr:
            if line.startswith("estimate: "):  # from here on it computes, and looks behind each photo
                stopped.send_signal(signal.SIGTERM)
        assert stopped.wait(PATIENCE) == 3
    again = start(tmp_path)
    _, told = again.communicate(timeout=PATIENCE)
    assert again.returncode == 0, told
    (found,) = CACHED.findall(told)
    kept, of = map(int, found)
    assert 0 < kept < of
    assert (tmp_path / "doubts.html").is_file()


def test_the_sheet_is_legible_wide_and_narrow_by_day_and_by_night(tmp_path: Path) -> None:
    folder = fill(tmp_path / "photos", 4)
    (folder / "roadwork" / "3.jpg").rename(folder / "roadwork" / f"{'a-long-name-' * 12}.jpg")
    photos = read_photos(folder).photos
    clear, works = ([photo for photo in photos if photo.label == label] for label in (0, 1))
    report = LabelReport(
        "lite2", 8, [JudgedPhoto(photo, 0.004) for photo in works],
        [NearPair(works[0], clear[0], 0.99), *(NearPair(works[0], one, 1.0) for one in works[1:])],
        [JudgedPhoto(photo, 0.31) for photo in clear], [f"roadwork/{'x' * 90}.jpg: the image can't be decoded"],
    )  # fmt: skip
    sheet = tmp_path / "sheet.html"
    sheet.write_bytes(render(report, str(folder)))
    with Browser(tmp_path) as browser:
        for width, scheme in ((1280, "light"), (1280, "dark"), (390, "light"), (320, "dark")):
            browser.look(width, 844, phone=width < 500, scheme=scheme)
            browser.open(sheet.as_uri())
            assert browser.run("return document.documentElement.scrollWidth") <= width
            assert browser.run(OUTSIDE) == []
            assert browser.run(FAINT) == []
        drawn = "return Promise.all([...document.images].map(one => one.decode())).then(all => all.length)"
        assert browser.run(drawn) == 4 + 2 + 6 + 4
        assert browser.complaints() == []
