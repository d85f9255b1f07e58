"""Photos keep their part for ever; what judges is never learnt from, whatever it is from."""

import hashlib
from pathlib import Path

import pytest

from miner.errors import ConfigurationError
from miner.feedback import is_sampled
from miner.feedback.improvement.partition import (
    SHARES,
    Part,
    PartPhoto,
    counts_of,
    lay_out,
    part_of,
    read_parts,
    refuse_too_few,
    unlabelled,
)
from miner.feedback.labels import Label, Labels, editing
from miner.feedback.traffic import RecordedPhoto

JPEG = b"\xff\xd8\xff"


def digest(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


def write(folder: Path, name: str, data: bytes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)
    return folder / name


def test_the_random_tenth_judges_and_the_others_fall_into_fixed_shares() -> None:
    digests = [digest(number) for number in range(20_000)]
    parts = [part_of(one) for one in digests]
    for part, share in SHARES.items():
        assert parts.count(part) / len(parts) == pytest.approx(share, abs=0.015)
    assert {part for one, part in zip(digests, parts, strict=True) if is_sampled(one)} == {"test"}
    # As they were when photos were first parted: another rule would learn from what has judged.
    assert [part_of(digest(number))[:2] for number in range(24)] == EXPECTED


EXPECTED = "tr tr va tr va tr va va tr tr tr te tr tr te tr tr va tr va tr tr tr va".split()  # noqa: SIM905


def test_each_content_is_in_one_part_under_its_sum_and_a_label_goes_before_an_own_folder(tmp_path: Path) -> None:
    own = tmp_path / "own"
    (own / "roadwork").mkdir(parents=True)
    contents = [JPEG + str(number).encode() for number in range(60)]
    for number, data in enumerate(contents[:40]):
        write(own / ("roadwork" if number % 2 else "no_roadwork"), f"{number}.JPG", data)
    write(own / "roadwork", "same.jpg", contents[0])  # of both classes: nobody knows
    with editing(tmp_path / "labels") as labels:
        for number, data in enumerate(contents[39:]):
            kind = "no_roadwork" if number == 0 else "roadwork"
            labels.put(Label(hashlib.sha256(data).hexdigest(), kind, number, "unsure"), data)  # type: ignore[arg-type]
    photos = lay_out(tmp_path / "photos", Labels(tmp_path / "labels"), [own])
    assert read_parts(tmp_path / "photos") == photos
    assert len(photos) == 59
    assert {one.digest for one in photos} == {hashlib.sha256(data).hexdigest() for data in contents[1:]}
    (both,) = (one for one in photos if one.digest == hashlib.sha256(contents[39]).hexdigest())
    assert (both.kind, both.source in ("random", "labelled")) == ("no_roadwork", True)
    for one in photos:
        (path,) = (tmp_path / "photos").rglob(f"{one.digest}.jpg")
        assert path.parent == tmp_path / "photos" / one.part / one.kind
        assert hashlib.sha256(path.read_bytes()).hexdigest() == one.digest
        assert (one.source == "random") == (is_sampled(one.digest) and one.name.startswith(one.digest))
    assert lay_out(tmp_path / "photos", Labels(tmp_path / "labels"), [own]) == photos  # again, as after a kill


def test_a_teacher_is_shown_nothing_that_has_a_label_or_would_judge_with_one(tmp_path: Path) -> None:
    images = tmp_path / "images"
    contents = {hashlib.sha256(data).hexdigest(): data for data in (str(number).encode() for number in range(100))}
    traffic = {one: RecordedPhoto(one, write(images, f"{one}.jpg", data)) for one, data in contents.items()}
    train = [one for one in contents if part_of(one) == "train"]
    with editing(tmp_path / "labels") as labels:
        labels.put(Label(train[0], "skip", 0.0, "unsure"), JPEG)
    gone = traffic[train[1]].path
    gone.unlink()  # the recorder has removed it
    assert unlabelled(tmp_path / "unlabelled", Labels(tmp_path / "labels"), traffic) == len(train) - 2
    assert {path.stem for path in (tmp_path / "unlabelled").iterdir()} == set(train[2:])


def test_too_few_photos_name_the_class_and_about_how_many_more(tmp_path: Path) -> None:
    def photos(kind: str, train: int, val: int, test: int) -> list[PartPhoto]:
        parts: list[Part] = ["train"] * train + ["val"] * val + ["test"] * test
        return [PartPhoto(f"{kind}{number}", kind, part, "own", "") for number, part in enumerate(parts)]

    enough = photos("roadwork", 4, 2, 4)
    refuse_too_few([*enough, *photos("no_roadwork", 4, 2, 4)])
    with pytest.raises(ConfigurationError) as raised:
        refuse_too_few([*enough, *photos("no_roadwork", 9, 2, 1)])
    (line,) = str(raised.value).splitlines()
    assert "'no_roadwork'" in line
    assert "16 more" in line  # three of a fifth
    assert counts_of(enough)["val"] == {"no_roadwork": 0, "roadwork": 2}
    with pytest.raises(ConfigurationError):
        lay_out(tmp_path / "photos", Labels(tmp_path / "labels"), [tmp_path / "nowhere"])
