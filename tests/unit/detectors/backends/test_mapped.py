"""Files that are mapped: whoever writes into one waits, and what has changed is read no more."""

import mmap
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from detectors.errors import InferenceError
from detectors.network import MappedFiles, mapped_below

SIZE = 3 * mmap.PAGESIZE


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """A file of this process's own, mapped as a library maps weights."""
    path = tmp_path / "model with a space.data"
    path.write_bytes(b"w" * SIZE)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ):
        yield path


def is_read(files: MappedFiles) -> bool:
    try:
        with files.reading():
            return True
    except InferenceError:
        return False


def test_what_is_mapped_is_found_where_it_lies(path: Path, tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(b"not mapped")
    assert mapped_below([tmp_path]) == [path]
    assert mapped_below([tmp_path / "model with a"]) == []


@pytest.mark.parametrize("size", [SIZE, 0, 2 * SIZE])
def test_without_a_lease_a_change_is_seen_before_the_next_picture(path: Path, tmp_path: Path, size: int) -> None:
    files = MappedFiles([tmp_path])
    assert is_read(files)
    assert files.look() is None
    path.write_bytes(b"x" * size)
    assert not is_read(files)
    assert str(path) in str(files.look())


def test_a_file_that_takes_its_place_changes_nothing(path: Path, tmp_path: Path) -> None:
    """As an export does it: what is mapped stays what it was."""
    files = MappedFiles([tmp_path])
    files.hold()
    partial = tmp_path / "partial"
    partial.write_bytes(b"x")
    partial.replace(path)
    assert files.look() is None
    assert is_read(files)


def test_a_writer_waits_until_nobody_reads(path: Path, tmp_path: Path) -> None:
    files = MappedFiles([tmp_path])
    files.hold()
    writer = threading.Thread(target=path.write_bytes, args=(b"x",))
    with files.reading():
        writer.start()
        while files.look() is None:
            pass
        assert not is_read(files)  # nobody else begins
        assert path.stat().st_size == SIZE  # and it is not cut short under those who read
    while writer.is_alive():
        files.look()
    assert path.read_bytes() == b"x"
    assert "was changed" in str(files.look())
    assert not is_read(files)


def test_a_writer_that_changes_nothing_is_forgotten(path: Path, tmp_path: Path) -> None:
    files = MappedFiles([tmp_path])
    files.hold()
    with pytest.raises(BlockingIOError):  # as truncate(1) does it
        os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    assert "opened for writing" in str(files.look())
    assert files.look() is None
    assert is_read(files)
    with pytest.raises(BlockingIOError):  # held again
        os.open(path, os.O_WRONLY | os.O_NONBLOCK)


def test_files_that_were_let_go_keep_nobody_waiting(path: Path, tmp_path: Path) -> None:
    files = MappedFiles([tmp_path])
    files.hold()
    files.close()
    os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
    assert is_read(files)


def test_what_a_link_means_is_found_too(path: Path, tmp_path: Path) -> None:
    """As in a snapshot of the hub's cache, whose files lie beside it."""
    snapshot = tmp_path / "snapshots" / "one"
    snapshot.mkdir(parents=True)
    (snapshot / "model.data").symlink_to(path)
    assert mapped_below([snapshot]) == [path]
    assert mapped_below([tmp_path / "snapshots"]) == [path]


def test_a_folder_that_goes_while_it_is_walked_has_none(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an optimised graph that is found damaged while it is loaded."""
    going = tmp_path / "optimized" / "key"
    going.mkdir(parents=True)
    scandir = os.scandir

    def scan(folder: str | Path | int) -> AbstractContextManager[Iterator[os.DirEntry[str]]]:
        if isinstance(folder, str | Path) and Path(folder) == going:
            shutil.rmtree(going.parent)
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", scan)
    files = MappedFiles([tmp_path])
    assert not going.exists()
    assert files.look() is None
    path.write_bytes(b"cut short")  # so the file beside it was found
    assert files.look() is not None
