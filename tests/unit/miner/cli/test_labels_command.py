"""`roadwork-miner labels`: wrong labels that were planted are found, and the sheet is safe to open anywhere."""

import csv
import json
import os
import re
import shutil
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from miner.cli import app
from miner.errors import ConfigurationError, CouldNotStart
from tests.photos import fill, patches
from tests.process.limits import small_disk

pytest.importorskip("torch")
pytest.importorskip("sklearn")

pytestmark = pytest.mark.slow
EACH = 24  # photos of a class
EVIL = '<img src=x onerror=alert(1)>&".jpg'


def labels(folder: Path, *arguments: object) -> Result:
    command = ["labels", str(folder / "photos"), "--model", "lite0", "--set", "threads=1", "--set", "workers=0"]
    command += ["--cache", str(folder / "cache"), "--out", str(folder / "sheet" / "doubts.html")]
    return CliRunner().invoke(app, [*command, *map(str, arguments)])


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, set[str]]:
    """Return a folder with photos, of which some lie in the wrong class, and those."""
    folder = tmp_path_factory.mktemp("labels")
    photos = fill(folder / "photos", EACH)
    for one in ("roadwork", "no_roadwork"):
        (photos / one / "0.jpg").rename(photos / one / "away")
    (photos / "roadwork" / "away").rename(photos / "no_roadwork" / EVIL)
    (photos / "no_roadwork" / "away").rename(photos / "roadwork" / os.fsdecode(b"\xff.jpg"))
    (photos / "roadwork" / "damaged.jpg").write_bytes(b"no photo")
    shutil.copyfile(photos / "roadwork" / "5.jpg", photos / "no_roadwork" / "copy.jpg")
    patches(2 * 7 + 1, cone=True).resize((200, 150)).save(photos / "roadwork" / "larger.png")  # which is 7.jpg
    return folder, {f"no_roadwork/{EVIL}", "roadwork/" + os.fsdecode(b"\xff.jpg")}


@pytest.fixture(scope="module")
def told(planted: tuple[Path, set[str]]) -> dict[str, Any]:
    done = labels(planted[0], "--json")
    assert done.exit_code == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def of(told: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [row for row in told["found"] if row["found"] == kind]


def test_what_lies_in_the_wrong_class_is_doubted_first(planted: tuple[Path, set[str]], told: dict[str, Any]) -> None:
    doubts = of(told, "doubt")
    assert {row["photo"] for row in doubts[:2]} == planted[1]
    sure = [row["roadwork"] if row["label"] == "roadwork" else 1 - row["roadwork"] for row in doubts]
    assert sure == sorted(sure)
    assert sure[-1] < 0.5


def test_a_file_in_both_classes_and_copies_are_paired(told: dict[str, Any]) -> None:
    (pair,) = of(told, "contradiction")
    assert {pair["photo"], pair["other"]} == {"roadwork/5.jpg", "no_roadwork/copy.jpg"}
    assert {pair["label"], pair["other_label"]} == {"roadwork", "no_roadwork"}
    (pair,) = of(told, "duplicate")
    assert {pair["photo"], pair["other"]} == {"roadwork/7.jpg", "roadwork/larger.png"}


def test_hard_negatives_are_roads_that_are_not_doubted(told: dict[str, Any]) -> None:
    hard = of(told, "hard_negative")
    assert {row["label"] for row in hard} == {"no_roadwork"}
    assert not {row["photo"] for row in hard} & {row["photo"] for row in of(told, "doubt")}
    assert [row["roadwork"] for row in hard] == sorted((row["roadwork"] for row in hard), reverse=True)


class Tags(HTMLParser):
    """The tags of a page, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_sheet_holds_its_photos_and_no_name_is_markup(planted: tuple[Path, set[str]], told: dict[str, Any]) -> None:
    page = Tags(Path(told["sheet"]).read_text(encoding="utf-8"))
    pictures = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(pictures) == len(told["found"]) + len(of(told, "contradiction")) + len(of(told, "duplicate"))
    assert all(str(one["src"]).startswith("data:image/jpeg;base64,") for one in pictures)
    assert not [attributes for _, attributes in page.tags if "onerror" in attributes]
    assert EVIL in page.text
    addresses = [value for _, attributes in page.tags for key, value in attributes.items() if key in ("src", "href")]
    assert not [one for one in addresses if not str(one).startswith("data:")]
    assert "script" not in {tag for tag, _ in page.tags}
    assert "damaged.jpg" in page.text


def test_the_table_has_the_same_rows(told: dict[str, Any]) -> None:
    with Path(told["table"]).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["found"] for row in rows] == [row["found"] for row in told["found"]]
    assert EVIL in {Path(row["photo"]).name for row in rows}


def test_what_a_stop_leaves_of_the_features_is_kept(planted: tuple[Path, set[str]], tmp_path: Path) -> None:
    shutil.copytree(planted[0] / "photos", tmp_path / "photos")
    stopped = labels(tmp_path, "--set", "max_hours=0.0000001", "--set", "micro_batch=4")
    assert isinstance(stopped.exception, CouldNotStart)
    assert not (tmp_path / "sheet").exists()
    again = labels(tmp_path, "--set", "micro_batch=4")
    assert again.exit_code == 0, again.stderr
    (kept,) = re.findall(r"features: (\d+) of \d+ are cached", again.stderr)
    assert int(kept) == 4


def test_a_full_disk_leaves_the_old_sheet_whole(
    planted: tuple[Path, set[str]], told: dict[str, Any], tmp_path: Path
) -> None:
    assert told["photos"]
    with small_disk(tmp_path / "disk", 40) as disk:
        sheet = disk / "doubts.html"
        sheet.write_text("the old one")
        done = labels(planted[0], "--out", sheet)
        assert isinstance(done.exception, CouldNotStart)
        assert f"--out={sheet}" in str(done.exception)
        assert sheet.read_text() == "the old one"


def test_what_does_not_count_is_refused(tmp_path: Path) -> None:
    done = labels(tmp_path, "--set", "detector=YOLOClassifier")
    assert isinstance(done.exception, ConfigurationError)
    assert "detector=YOLOClassifier" in str(done.exception)


def test_the_parts_of_a_folder_are_judged_together(tmp_path: Path) -> None:
    for part in ("train", "val"):
        fill(tmp_path / "photos" / part, 5, first_seed=0 if part == "train" else 4)
    done = labels(tmp_path, "--json")
    assert done.exit_code == 0, done.stderr
    told = json.loads(done.stdout)
    pairs = [{row["photo"], row["other"]} for row in of(told, "duplicate")]
    assert {"train/roadwork/2.jpg", "val/roadwork/0.jpg"} in pairs


@pytest.mark.parametrize(
    ("each", "arguments"), [(4, ()), (5, ("--out", "sheet.png")), (5, ("--set", "views=many"))], ids=str
)
def test_what_can_not_be_judged_or_written_is_refused(each: int, arguments: tuple[str, ...], tmp_path: Path) -> None:
    fill(tmp_path / "photos", each)
    done = labels(tmp_path, *arguments)
    assert isinstance(done.exception, ConfigurationError)
    assert not list(tmp_path.rglob("*.csv"))
