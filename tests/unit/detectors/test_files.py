"""Files that are written whole, also by root into the folder of a service's user, whatever that has put there."""

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from detectors.files import as_owner, is_in_use, write_safely
from miner.inference.plan import Plan, write_plan
from miner.natix.registration import FILE_NAME, Registration, Registrations
from miner.status.archive import CheckupView

NOBODY = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, as sudo gives it")


def register(state: Path) -> None:
    Registrations(state).keep("5F", Registration(progress="succeeded", netuid=72, uid=7, since=0, at=0))


def check_up(state: Path) -> None:
    CheckupView(at=0, key="default", verdict="ready", findings=[]).write(state / "doctor.json")


def tune(state: Path) -> None:
    write_plan(state, "plan", Plan("onnx", "fp32", 1, 1, arena=True, why="fast"))


@pytest.fixture
def state(tmp_path: Path) -> Path:
    for folder in (tmp_path, *tmp_path.parents[:3]):  # one of them is xdist's
        folder.chmod(folder.stat().st_mode | 0o055)
    folder = tmp_path / "state"
    folder.mkdir(mode=0o700)
    os.chown(folder, NOBODY, NOBODY)
    return folder


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@needs_root
@pytest.mark.parametrize(("write", "name"), [(register, FILE_NAME), (check_up, "doctor.json"), (tune, "plan.json")])
def test_root_writes_as_the_services_user_and_follows_no_link_of_its(
    state: Path, write: Callable[[Path], None], name: str
) -> None:
    victim = state.parent / "roots"
    victim.write_text("roots own")
    (state / f"{name}.partial").symlink_to(victim)
    before = os.umask(0o077)
    try:
        write(state)
    finally:
        os.umask(before)
    assert victim.read_text() == "roots own"
    assert ((state / name).stat().st_uid, (state / name).stat().st_gid) == (NOBODY, NOBODY)
    assert not (state / name).is_symlink()
    assert (os.geteuid(), os.getegid()) == (0, 0)


@needs_root
def test_a_folder_that_is_not_there_yet_becomes_its_parents_owners(state: Path) -> None:
    tune(state / "plans")
    assert {path.stat().st_uid for path in state.rglob("*")} == {NOBODY}


@needs_root
def test_a_link_that_a_user_planted_leads_root_into_no_folder_of_its_own(state: Path, tmp_path: Path) -> None:
    (tmp_path / "roots").mkdir(mode=0o755)
    (state / "labels").symlink_to(tmp_path / "roots")
    os.chown(state / "labels", NOBODY, NOBODY, follow_symlinks=False)
    with pytest.raises(PermissionError), as_owner(state / "labels"):
        write_safely(state / "labels" / "file", b"")
    (tmp_path / "disk").mkdir()
    os.chown(tmp_path / "disk", NOBODY, NOBODY)
    (tmp_path / "moved").symlink_to(tmp_path / "disk")  # by root
    with as_owner(tmp_path / "moved"):
        write_safely(tmp_path / "moved" / "file", b"")
    assert (tmp_path / "disk" / "file").stat().st_uid == NOBODY


@needs_root
def test_whoever_fails_as_the_owner_is_root_again(state: Path) -> None:
    with pytest.raises(FileNotFoundError), as_owner(state):
        (state / str(os.geteuid()) / "file").touch()
    assert os.geteuid() == 0
    assert list(state.iterdir()) == []


def test_a_file_that_is_written_again_has_what_the_one_before_had(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_safely(path, b"one", mode=0o600)
    assert mode(path) == 0o600
    path.chmod(0o640)
    write_safely(path, b"two", like=path.stat())
    assert (path.read_bytes(), mode(path)) == (b"two", 0o640)
    assert list(tmp_path.iterdir()) == [path]


def test_what_loads_photos_for_a_killed_run_keeps_no_lock_of_its(tmp_path: Path) -> None:
    """A loader's process notices that its parent was killed after seconds; till then the run could not be resumed."""
    forks = """if True:
        import os, sys, time
        from pathlib import Path
        from detectors.files import FolderLocks
        locks = FolderLocks(Path(sys.argv[1]))
        if os.fork() == 0:
            print(os.getpid(), flush=True)
        time.sleep(600)
    """
    with subprocess.Popen([sys.executable, "-c", forks, tmp_path], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        loader = int(parent.stdout.readline())
        try:
            assert is_in_use(tmp_path)
            parent.kill()
            parent.wait()
            os.kill(loader, 0)  # it is still there
            assert not is_in_use(tmp_path)
        finally:
            os.kill(loader, signal.SIGKILL)
