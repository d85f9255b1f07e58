"""The operator's labels: what lies on the disk is what counts, whatever comes between."""

import csv
import errno
import os
import shutil
import signal
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from detectors.photos.labelled import read_photos
from miner.errors import ConfigurationError, CouldNotStart
from miner.feedback import labels as module
from miner.feedback.labels import KINDS, TABLE, UNDECIDED, Kind, Label, Labels, editing, write_copy
from tests.feedback import BEGAN, digest_of, jpeg
from tests.photos import fill
from tests.process.limits import fill as fill_disk
from tests.process.limits import small_disk

PHOTO, OTHER = jpeg(1), jpeg(2)
DIGEST = digest_of(PHOTO)


def label(kind: Kind, photo: bytes = PHOTO, at: float = BEGAN) -> Label:
    return Label(digest_of(photo), kind, at, "unsure", 0.75)


def files(folder: Path) -> dict[str, bytes]:
    """Return what lies in a folder of labels, but for the table."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.glob("*/*"))}


def kinds(folder: Path) -> dict[str, Kind]:
    return {one.digest: one.kind for one in Labels(folder)}


def test_a_label_is_the_folder_of_its_photo_and_a_row(tmp_path: Path) -> None:
    Labels(tmp_path).put(label("roadwork"), PHOTO)
    assert files(tmp_path) == {f"roadwork/{DIGEST}.jpg": PHOTO}
    assert list(Labels(tmp_path)) == [label("roadwork")]
    assert Labels(tmp_path).path_of(DIGEST).read_bytes() == PHOTO
    for path in tmp_path.rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path


@pytest.mark.parametrize("first", ["roadwork", "no_roadwork", "skip"])
@pytest.mark.parametrize("second", ["roadwork", "no_roadwork", "skip"])
def test_a_label_can_be_changed_and_no_photo_is_lost(first: Kind, second: Kind, tmp_path: Path) -> None:
    labels = Labels(tmp_path)
    labels.put(label("no_roadwork", OTHER), OTHER)
    labels.put(label(first), PHOTO)
    labels.put(label(second), PHOTO)
    assert labels.get(DIGEST) == Labels(tmp_path).get(DIGEST) == label(second)
    there = {name for name in files(tmp_path) if DIGEST in name}
    if second in KINDS:
        assert there == {f"{second}/{DIGEST}.jpg"}
    else:
        assert there == ({f"{UNDECIDED}/{DIGEST}.jpg"} if first in KINDS else set())
    assert Labels(tmp_path).undecided() == {}


def test_a_label_that_was_taken_back_leaves_its_photo_undecided_and_can_be_given_again(tmp_path: Path) -> None:
    labels = Labels(tmp_path)
    labels.put(label("roadwork"), PHOTO)
    assert labels.take_back(DIGEST) == label("roadwork")
    for seen in (labels, Labels(tmp_path)):
        assert DIGEST not in seen
        assert list(seen.undecided()) == [DIGEST]
    labels.put(label("no_roadwork"))  # without the photo, which is here
    assert files(tmp_path) == {f"no_roadwork/{DIGEST}.jpg": PHOTO}
    assert kinds(tmp_path) == {DIGEST: "no_roadwork"}


def test_files_that_were_moved_by_hand_count_as_they_lie(tmp_path: Path) -> None:
    labels = Labels(tmp_path)
    labels.put(label("roadwork"), PHOTO)
    labels.put(label("roadwork", OTHER, BEGAN + 1), OTHER)
    shutil.move(labels.path_of(DIGEST), tmp_path / "elsewhere.jpg")
    (tmp_path / "no_roadwork").mkdir()
    shutil.move(labels.path_of(digest_of(OTHER)), tmp_path / "no_roadwork")
    third = jpeg(3)
    (tmp_path / "no_roadwork" / f"{digest_of(third)}.jpg").write_bytes(third)
    (tmp_path / "no_roadwork" / "holiday.jpg").write_bytes(third)
    assert kinds(tmp_path) == {digest_of(OTHER): "no_roadwork", digest_of(third): "no_roadwork"}
    assert Labels(tmp_path).get(digest_of(OTHER)) == label("no_roadwork", OTHER, BEGAN + 1)
    assert Labels(tmp_path).get(digest_of(third)) == Label(digest_of(third), "no_roadwork", 0.0, "import")


@pytest.mark.parametrize("kind", KINDS)
def test_of_a_photo_in_both_folders_the_row_counts(kind: Kind, tmp_path: Path) -> None:
    Labels(tmp_path).put(label(kind), PHOTO)
    (other,) = set(KINDS) - {kind}
    (tmp_path / other).mkdir()
    shutil.copy(tmp_path / kind / f"{DIGEST}.jpg", tmp_path / other)
    assert kinds(tmp_path) == {DIGEST: kind}
    with editing(tmp_path):
        assert files(tmp_path) == {f"{kind}/{DIGEST}.jpg": PHOTO}
    assert len(read_photos(tmp_path, one_will_do=True).photos) == 1


def test_a_photo_in_both_folders_without_a_row_is_undecided(tmp_path: Path) -> None:
    for kind in KINDS:
        (tmp_path / kind).mkdir()
        (tmp_path / kind / f"{DIGEST}.jpg").write_bytes(PHOTO)
    assert list(Labels(tmp_path).undecided()) == [DIGEST]
    with editing(tmp_path) as labels:
        assert len(labels) == 0
        assert files(tmp_path) == {f"{UNDECIDED}/{DIGEST}.jpg": PHOTO}
        labels.put(label("roadwork"))
    assert kinds(tmp_path) == {DIGEST: "roadwork"}


@contextmanager
def cut_off(step: int, fail: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Have the call of this number to the disk fail, before anything is done; yield how many there were."""
    count = [0]

    def around(real: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **more: object) -> object:
            count[0] += 1
            if count[0] == step:
                fail()
            return real(*arguments, **more)

        return call

    with monkeypatch.context() as patched:
        for name in ("replace", "unlink", "mkdir"):
            patched.setattr(Path, name, around(getattr(Path, name)))
        for name in ("fsync", "open"):
            patched.setattr(os, name, around(getattr(os, name)))
        yield count


def killed_at(step: int, deed: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> bool:
    """Do it in a process that SIGKILL ends at this call to the disk; return whether it came so far."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside pytest's own threads
        child = os.fork()
    if child == 0:
        with cut_off(step, lambda: os.kill(os.getpid(), signal.SIGKILL), monkeypatch):
            deed()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert status in (0, signal.SIGKILL)
    return status == signal.SIGKILL


def no_space() -> None:
    raise OSError(errno.ENOSPC, "no space")


def changes() -> Iterator[tuple[str, Callable[[Labels], object], set[Kind | None], Kind | None]]:
    """Yield what can be done to a label of each kind: its name, the deed, what may come of it, and what was before."""
    before: tuple[Kind | None, ...] = (None, "roadwork", "no_roadwork", "skip")
    after: tuple[Kind, ...] = ("roadwork", "no_roadwork", "skip")
    for one in before:
        for other in after:
            yield f"{one}-{other}", lambda labels, kind=other: labels.put(label(kind), PHOTO), {one, other}, one
        if one is not None:
            yield f"{one}-back", lambda labels: labels.take_back(DIGEST), {one, None}, one


CHANGES = [pytest.param(*change, id=name) for name, *change in changes()]
every_change = pytest.mark.parametrize(("deed", "outcomes", "before"), CHANGES)


def begin(folder: Path, before: Kind | None) -> None:
    with editing(folder) as labels:
        labels.put(label("roadwork", OTHER), OTHER)
        if before is not None:
            labels.put(label(before), PHOTO)


def kept(folder: Path) -> list[bytes]:
    return [data for path, data in files(folder).items() if DIGEST in path]


@pytest.mark.slow
@every_change
def test_at_whichever_step_it_is_killed_the_label_is_the_old_or_the_new_and_the_photo_stays(
    deed: Callable[[Labels], object],
    outcomes: set[Kind | None],
    before: Kind | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    step, seen, goes_on = 0, set[Kind | None](), True
    while goes_on:
        step += 1
        folder = tmp_path / str(step)
        begin(folder, before)
        had = kept(folder)
        goes_on = killed_at(step, lambda folder=folder: deed(Labels(folder)), monkeypatch)  # type: ignore[misc]
        now = kinds(folder)
        assert now.pop(digest_of(OTHER)) == "roadwork"
        with editing(folder):
            assert kinds(folder) == {digest_of(OTHER): "roadwork"} | now, "clearing away changes no label"
        assert now.get(DIGEST) in outcomes, step
        assert kept(folder) == had or (not had and kept(folder) == [PHOTO]), step
        assert not list(folder.rglob("*.partial"))
        seen.add(now.get(DIGEST))
    assert step > 5
    assert seen == outcomes


@pytest.mark.slow
@every_change
def test_at_whichever_step_the_disk_is_full_the_label_stays_and_memory_says_what_the_disk_does(
    deed: Callable[[Labels], object],
    outcomes: set[Kind | None],
    before: Kind | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    step, failed = 0, True
    while failed:
        step += 1
        folder = tmp_path / str(step)
        begin(folder, before)
        had, labels = kept(folder), Labels(folder)
        failed = False
        with cut_off(step, no_space, monkeypatch):
            try:
                deed(labels)
            except OSError:
                failed = True
        now = kinds(folder).get(DIGEST)
        assert now == (before if failed else now), step
        assert now in outcomes
        assert {one.digest: one.kind for one in labels} == kinds(folder), step
        assert kept(folder) == had or (not had and kept(folder) == [PHOTO]), step
    assert step > 5


def test_a_full_disk_changes_nothing_and_the_next_label_is_taken(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 256) as disk:
        folder = disk / "labels"
        labels = Labels(folder)
        labels.put(label("roadwork"), PHOTO)
        rest = fill_disk(disk)
        with pytest.raises(OSError, match="No space") as refused:
            labels.put(label("no_roadwork", OTHER), OTHER)
        assert refused.value.errno == errno.ENOSPC
        with pytest.raises(OSError, match="No space"):
            labels.put(label("no_roadwork"), PHOTO)
        with pytest.raises(OSError, match="No space"):
            labels.take_back(DIGEST)
        for seen in (labels, Labels(folder)):
            assert list(seen) == [label("roadwork")]
        assert files(folder) == {f"roadwork/{DIGEST}.jpg": PHOTO}
        rest.unlink()
        labels.put(label("no_roadwork", OTHER, BEGAN + 1), OTHER)
        assert kinds(folder) == {DIGEST: "roadwork", digest_of(OTHER): "no_roadwork"}


@pytest.mark.parametrize(
    "table",
    [
        f"digest,kind,at,reason,prediction,mood\n{DIGEST},skip,5.0,unsure,0.25,good\n",  # of a newer version
        f"digest,kind,at,reason\n{DIGEST},skip,5.0,unsure\n",  # of an older one
        f"\ufeffkind,digest,prediction,reason,at\r\nskip,{DIGEST},0.25,boredom,5.0\r\n,,,,\r\n",  # of a spreadsheet
    ],
)
def test_a_table_of_another_version_is_read(table: str, tmp_path: Path) -> None:
    (tmp_path / TABLE).write_text(table, encoding="utf-8")
    (found,) = Labels(tmp_path)
    assert (found.digest, found.kind, found.at) == (DIGEST, "skip", 5.0)


@pytest.mark.parametrize(
    "table",
    [
        "a\nb\n",
        f"digest,kind,at\n{DIGEST},maybe,5.0\n",
        "digest,kind,at\n../../etc/passwd,skip,5.0\n",
        f"digest,kind,at\n{DIGEST},skip,nan\n",
        f"digest,kind,at,prediction\n{DIGEST},skip,1,inf\n",
        f"digest,kind,at\n{DIGEST},skip\n{DIGEST}\n",
        "digest,kind\n\x00\n",
    ],
)
def test_what_is_no_table_is_named_and_left_alone(table: str, tmp_path: Path) -> None:
    (tmp_path / TABLE).write_text(table)
    with pytest.raises(ConfigurationError) as refused:
        Labels(tmp_path)
    assert str(tmp_path / TABLE) in str(refused.value)
    assert (tmp_path / TABLE).read_text() == table


def test_two_cannot_label_at_once_and_a_killed_one_is_no_obstacle(tmp_path: Path) -> None:
    with editing(tmp_path), pytest.raises(CouldNotStart), editing(tmp_path):
        pass
    with editing(tmp_path):
        pass


def test_several_sittings_add_up(tmp_path: Path) -> None:
    for number in range(4):
        photo = jpeg(10 + number)
        with editing(tmp_path) as labels:
            assert len(labels) == number
            labels.put(label("roadwork" if number % 2 else "no_roadwork", photo, BEGAN - number), photo)
    assert [one.at for one in Labels(tmp_path)] == [BEGAN - 3, BEGAN - 2, BEGAN - 1, BEGAN]
    assert len(Labels(tmp_path).decided) == 4
    with (tmp_path / TABLE).open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 4


def test_a_folder_is_imported_once(tmp_path: Path) -> None:
    source = fill(tmp_path / "source", 3)
    shutil.copy(source / "roadwork" / "0.jpg", source / "roadwork" / "copy.jpg")
    (source / "roadwork" / "damaged.jpg").write_bytes(b"no photo")
    mine = (source / "no_roadwork" / "1.jpg").read_bytes()
    labels = Labels(tmp_path / "labels")
    labels.put(label("roadwork", mine), mine)
    told: list[tuple[str, int, int]] = []
    taken = labels.take_in(source, BEGAN, lambda *step: told.append(step))
    assert (taken.new, taken.known, taken.others) == (5, 1, 1)
    assert len(taken.left_out) == 1
    assert told[-1] == ("importing", 5, 5)
    again = labels.take_in(source, BEGAN)
    assert (again.new, again.known) == (0, 6)
    for seen in (labels, Labels(tmp_path / "labels")):
        assert len(seen) == len(seen.decided) == 6
        assert seen.get(digest_of(mine)) == label("roadwork", mine)
    assert len(files(tmp_path / "labels")) == 6
    (one,) = labels.take_in(fill(tmp_path / "more", 1, first_seed=50) / "roadwork", BEGAN)[:1]
    assert one == 1  # a folder that is that of a class


def test_what_is_broken_off_of_an_import_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, folder = fill(tmp_path / "source", 3), tmp_path / "labels"
    real, count = module.write_safely, 0

    def write(path: Path, data: bytes, **more: object) -> None:
        nonlocal count
        count += 1
        if count > 3:
            raise KeyboardInterrupt
        real(path, data, **more)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(module, "write_safely", write)
        with pytest.raises(KeyboardInterrupt):
            Labels(folder).take_in(source, BEGAN)
    assert len(Labels(folder)) == 2
    with editing(folder) as labels:
        assert labels.take_in(source, BEGAN)[:2] == (4, 2)


def test_an_export_is_whole_or_not_there(tmp_path: Path) -> None:
    labels = Labels(tmp_path / "labels")
    labels.put(label("roadwork"), PHOTO)
    labels.put(label("skip", OTHER))
    out = tmp_path / "out" / "deep"
    assert write_copy(labels, out) == 1
    assert files(out) == {f"roadwork/{DIGEST}.jpg": PHOTO}
    assert (out / TABLE).read_bytes() == (tmp_path / "labels" / TABLE).read_bytes()
    with pytest.raises(ConfigurationError):
        write_copy(labels, out)
    (tmp_path / "empty").mkdir()
    assert write_copy(labels, tmp_path / "empty") == 1
    labels.path_of(DIGEST).unlink()
    with pytest.raises(FileNotFoundError):
        write_copy(labels, tmp_path / "not")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "labels", "out"]
    assert Labels(out).get(DIGEST) == label("roadwork")


def test_an_export_takes_no_file_that_is_not_the_photo_of_its_name(tmp_path: Path) -> None:
    labels = Labels(tmp_path / "labels")
    labels.put(label("roadwork"), PHOTO)
    (tmp_path / "secret").write_bytes(b"of root")
    labels.path_of(DIGEST).unlink()
    labels.path_of(DIGEST).symlink_to(tmp_path / "secret")
    with pytest.raises(FileNotFoundError):
        write_copy(Labels(tmp_path / "labels"), tmp_path / "out")
    assert not (tmp_path / "out").exists()
