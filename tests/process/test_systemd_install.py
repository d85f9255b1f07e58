"""The installer itself, below a folder in place of `/`, with stand-ins for `systemctl` and what only root may do.

`make test-service` plays all of it on a booted systemd.
"""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.systemd.preflight import OLDEST_SYSTEMD
from tests.process.daemon import free_port
from tests.process.limits import fill, small_disk

FOLDER = Path(__file__).resolve().parents[2] / "deploy" / "systemd"
TEMPLATE = "roadwork-miner@.service"
# A service whose unit says so does not get ready.
SYSTEMCTL = """#!/bin/sh
echo "$*" >>"$DESTDIR/called"
case "$1" in
--version) echo "systemd ${SYSTEMD:-255} (255.4)" ;;
is-active) test -e "$DESTDIR/etc/systemd/system/roadwork-miner@.service" ;;
restart)
    if [ -n "${LOST:-}" ]; then kill -HUP $PPID; fi
    ! grep -q broken "$DESTDIR/etc/systemd/system/roadwork-miner@.service"
    ;;
esac
"""
# An interpreter outside of any home: the installer asks no more of this one than its version and its modules.
PYTHON = next((path for path in ("/usr/bin/python3", "/usr/local/bin/python3") if Path(path).exists()), sys.executable)
NOTHING = "#!/bin/sh\n"
FAR = 4e9  # seconds; later than any file of today
STAND_INS = ("groupadd", "groupdel", "chown", "journalctl")  # what only root may do, or what is systemd's


class Box:
    """A machine's root, with releases that were made before, and an environment in the place of Python's."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.hotkey = root / "given" / "hotkey"
        self.unit = root / "etc" / "systemd" / "system" / TEMPLATE
        programs = root / "programs"
        for folder in (programs, self.hotkey.parent, root / "no-models"):
            folder.mkdir()
        for name, text in (("systemctl", SYSTEMCTL), *((name, NOTHING) for name in STAND_INS)):
            (programs / name).write_text(text)
            (programs / name).chmod(0o755)
        self.hotkey.write_text("first")
        self.settings = root / "given" / "standalone.env"
        self.settings.write_text(
            f"SUBTENSOR_NETWORK=standalone\nMINER_AXON_PORT={free_port()}\nSTATUS_PORT={free_port()}\n"
        )
        self.link = root / "usr" / "local" / "bin" / "roadwork-miner"
        self.environment = os.environ | {
            "DESTDIR": str(root), "ENV": "standalone", "HOTKEY": str(self.hotkey),
            "ENV_FILE": str(self.settings), "PYTHON": PYTHON, "MODELS": str(root / "no-models"),
            "PATH": f"{programs}:{os.environ['PATH']}",
        }  # fmt: skip

    def release(self, name: str, unit: str) -> Path:
        folder = self.root / "opt" / "roadwork-miner" / name
        (folder / "systemd").mkdir(parents=True, exist_ok=True)
        (folder / ".whole").touch()
        (folder / "systemd" / TEMPLATE).write_text(unit)
        (folder / "systemd" / "back-off.conf").write_bytes((FOLDER / "back-off.conf").read_bytes())
        return folder

    def install(self, release: str = "", **given: str) -> subprocess.CompletedProcess[str]:
        return self.call("install.sh", RELEASE=release, **given)

    def roll_back(self) -> subprocess.CompletedProcess[str]:
        given = dict.fromkeys(("RELEASE", "HOTKEY", "ENV_FILE"), "")
        return self.call("install.sh", ROLLBACK="1", UPGRADE="1", **given)

    def call(self, script: str, **given: str) -> subprocess.CompletedProcess[str]:
        (self.root / "called").unlink(missing_ok=True)
        return subprocess.run(
            ["bash", str(FOLDER / script)], capture_output=True, text=True, env=self.environment | given, timeout=60
        )  # fmt: skip

    def files(self) -> dict[str, object]:
        """Return all that is there, with what is in it or where it points."""
        there = [path for path in self.root.rglob("*") if path.name != "called"]
        return {
            str(path): path.readlink() if path.is_symlink() else path.read_bytes() if path.is_file() else None
            for path in there
        }

    @property
    def releases(self) -> set[str]:
        folder = self.root / "opt" / "roadwork-miner"
        return {path.name for path in folder.iterdir() if (path / ".whole").exists() and not path.is_symlink()}

    @property
    def restarts(self) -> int:
        return sum(line.startswith("restart") for line in (self.root / "called").read_text().splitlines())

    @property
    def current(self) -> str:
        return (self.root / "opt" / "roadwork-miner" / "current-standalone").readlink().name


@pytest.fixture
def box(tmp_path: Path) -> Box:
    box = Box(tmp_path)
    box.release("1", "the first unit")
    done = box.install("1")
    assert done.returncode == 0, done.stderr
    assert (box.current, box.unit.read_text(), box.restarts) == ("1", "the first unit", 1)
    return box


def test_the_same_again_restarts_nothing(box: Box) -> None:
    done = box.install("1")
    assert "runs 1 already" in done.stdout
    assert (done.returncode, box.restarts) == (0, 0)


def test_another_credential_or_unit_takes_a_restart(box: Box) -> None:
    box.hotkey.write_text("second")
    assert "# changed: standalone.hotkey;" in box.install("1").stdout
    assert box.restarts == 1
    box.release("1", "another unit")
    assert f"# changed: {TEMPLATE};" in box.install("1").stdout
    assert (box.restarts, box.unit.read_text()) == (1, "another unit")


def test_a_release_brings_its_unit_and_takes_it_back(box: Box) -> None:
    box.release("2", "the second unit")
    assert box.install("2").returncode == 0
    assert (box.current, box.unit.read_text()) == ("2", "the second unit")
    assert box.install("1").returncode == 0
    assert (box.current, box.unit.read_text()) == ("1", "the first unit")
    box.release("3", "a broken unit")
    done = box.install("3")
    assert done.returncode == 1
    assert "going back to 1" in done.stderr
    assert (box.current, box.unit.read_text(), box.restarts) == ("1", "the first unit", 2)


def test_a_connection_that_is_lost_while_a_release_starts_does_not_end_the_way_back(box: Box) -> None:
    box.release("2", "a broken unit")
    assert box.install("2", LOST="1").returncode == 1
    assert (box.current, box.restarts) == ("1", 2)


def test_an_upgrade_that_ends_half_way_gives_the_room_back_and_changes_nothing(box: Box) -> None:
    before = box.files()
    done = box.install(PIP_NO_INDEX="1", PIP_FIND_LINKS=str(box.root / "no-models"))  # pip finds nothing
    assert done.returncode == 1
    assert (box.files(), box.restarts) == (before, 0)


def test_a_full_disk_leaves_the_key_that_is_there(box: Box) -> None:
    etc = box.root / "etc" / "roadwork-miner"
    before = {path.name: path.read_bytes() for path in etc.iterdir()}
    box.hotkey.write_text("second" * 1000)
    with small_disk(etc, 64):
        for name, data in before.items():
            (etc / name).write_bytes(data)
        full = fill(etc)
        done = box.install("1")
        full.unlink()
        assert {path.name: path.read_bytes() for path in etc.iterdir()} == before
    assert (done.returncode, box.restarts) == (1, 0)


def test_keys_that_were_put_there_by_hand_are_for_root_alone(box: Box) -> None:
    several = box.root / "etc" / "roadwork-miner" / "standalone.hotkeys"
    several.mkdir(mode=0o755)
    (several / "first").touch(0o644)
    key = several.with_suffix(".hotkey")
    key.chmod(0o644)
    assert box.install("1", HOTKEY="").returncode == 0
    assert [path.stat().st_mode & 0o077 for path in (several, several / "first", key)] == [0, 0, 0]


def test_a_model_that_is_newer_is_taken_and_one_that_is_older_is_not(box: Box) -> None:
    given, installed = box.root / "no-models" / "vit", box.root / "opt" / "roadwork-miner" / "models" / "vit"
    given.mkdir()
    (given / "manifest.json").write_text("as exported")
    assert "# changed: models;" in box.install("1").stdout
    (given / "manifest.json").write_text("calibrated")
    os.utime(given / "manifest.json", (FAR, FAR))
    assert "# changed: models;" in box.install("1").stdout
    assert (installed / "manifest.json").read_text() == "calibrated"
    assert box.restarts == 1
    (installed / "manifest.json").write_text("calibrated by --service")
    os.utime(installed / "manifest.json", (FAR + 1, FAR + 1))
    assert "runs 1 already" in box.install("1").stdout
    assert (installed / "manifest.json").read_text() == "calibrated by --service"


def test_a_full_disk_leaves_the_model_that_is_there_whole(box: Box) -> None:
    given, installed = box.root / "no-models" / "vit", box.root / "opt" / "roadwork-miner" / "models"
    given.mkdir()
    sizes = {"manifest.json": 10, "model.onnx": 100_000}
    for name, size in sizes.items():
        (given / name).write_text("new" * size)
        os.utime(given / name, (FAR, FAR))
    with small_disk(installed, 64):
        (installed / "vit").mkdir()
        for name in sizes:
            (installed / "vit" / name).write_text("old")
        assert box.install("1").returncode == 1
        assert {path.name: path.read_text() for path in (installed / "vit").iterdir()} == dict.fromkeys(sizes, "old")
    assert box.restarts == 0


def test_a_release_from_before_leaves_the_unit_that_is_there(box: Box) -> None:
    folder = box.release("0", "")
    for path in (folder / "systemd").iterdir():
        path.unlink()
    (folder / "systemd").rmdir()
    assert "is installed stays" in box.install("0").stdout
    assert (box.current, box.unit.read_text()) == ("0", "the first unit")


def test_an_upgrade_keeps_the_release_before_and_prunes_older_ones(box: Box) -> None:
    for name in ("2", "3"):
        box.release(name, f"unit {name}")
    half = box.root / "opt" / "roadwork-miner" / "9"
    half.mkdir()
    (half / "pyvenv.cfg").touch()
    for folder in ("models", "source"):
        (box.root / "opt" / "roadwork-miner" / folder).mkdir(exist_ok=True)
    box.install("2")
    assert (box.releases, half.exists()) == ({"1", "2"}, False)
    box.release("3", "unit 3")
    done = box.install("3", UPGRADE="1")
    assert (done.returncode, box.releases, box.current) == (0, {"2", "3"}, "3")
    assert "ROLLBACK=1" in done.stdout
    assert (box.root / "opt" / "roadwork-miner" / "models").is_dir()


def test_a_roll_back_goes_to_the_release_before_and_forward_again(box: Box) -> None:
    assert box.roll_back().returncode == 2  # there is none yet
    box.release("2", "the second unit")
    box.install("2")
    for release, unit in (("1", "the first unit"), ("2", "the second unit"), ("1", "the first unit")):
        before = box.hotkey.read_text()
        assert box.roll_back().returncode == 0
        assert (box.current, box.unit.read_text(), box.restarts, box.releases) == (release, unit, 1, {"1", "2"})
        assert box.hotkey.read_text() == before


def test_an_upgrade_that_fails_leaves_the_release_to_go_back_to_as_it_was(box: Box) -> None:
    for name, unit, code in (("2", "a broken unit", 1), ("3", "the third unit", 0), ("4", "a broken unit", 1)):
        box.release(name, unit)
        assert box.install(name).returncode == code
    assert box.current == "3"
    assert box.roll_back().returncode == 0
    assert box.current == "1"


def test_a_release_that_another_network_runs_is_not_pruned(box: Box) -> None:
    (box.root / "opt" / "roadwork-miner" / "current-mainnet").symlink_to("1")
    for name in ("2", "3"):
        box.release(name, "a unit")
    box.install("2")
    box.release("3", "a unit")
    box.install("3")
    assert box.releases == {"1", "2", "3"}


def test_an_upgrade_of_what_is_not_installed_is_refused(box: Box) -> None:
    done = box.install("1", UPGRADE="1", ENV="mainnet")
    assert (done.returncode, box.files()) == (2, box.files())
    assert not (box.root / "opt" / "roadwork-miner" / "current-mainnet").is_symlink()


def test_the_command_is_linked_and_goes_with_its_network(box: Box) -> None:
    current = box.root / "opt" / "roadwork-miner" / "current-standalone"
    assert box.link.readlink() == current / "bin" / "roadwork-miner"
    other = current.with_name("current-mainnet")
    other.symlink_to("1")
    assert box.call("uninstall.sh").returncode == 0
    assert box.link.readlink() == other / "bin" / "roadwork-miner"
    assert box.call("uninstall.sh", ENV="mainnet").returncode == 0
    assert not box.link.is_symlink()


def test_a_command_of_somebody_else_stays(box: Box) -> None:
    box.link.unlink()
    box.link.write_text("somebody's")
    done = box.install("1")
    assert (done.returncode, box.link.read_text()) == (0, "somebody's")
    assert str(box.link) in done.stdout
    assert box.call("uninstall.sh").returncode == 0
    assert box.link.read_text() == "somebody's"


def test_uninstall_keeps_what_is_the_operators_until_it_is_told_to_purge(box: Box) -> None:
    state = box.root / "var" / "lib" / "private" / "roadwork-miner" / "standalone"
    state.mkdir(parents=True)
    models = box.root / "opt" / "roadwork-miner" / "models"
    (models / "mine.yaml").touch()
    kept = [box.root / "etc" / "roadwork-miner" / f"standalone.{end}" for end in ("env", "hotkey")] + [state, models]
    done = box.call("uninstall.sh")
    assert done.returncode == 0, done.stderr
    assert [path for path in kept if not path.exists()] == []
    assert [path for path in kept if str(path) not in done.stdout] == []
    assert "PURGE=1" in done.stdout
    assert (box.releases, box.unit.exists()) == (set(), False)
    done = box.call("uninstall.sh", PURGE="1")
    assert done.returncode == 0, done.stderr
    assert [path for path in kept if path.exists()] == []
    assert not models.parent.exists()


def test_purge_of_one_network_keeps_the_others_settings(box: Box) -> None:
    other = box.root / "etc" / "roadwork-miner" / "mainnet.env"
    other.touch()
    models = box.root / "opt" / "roadwork-miner" / "models"
    (models / "mine.yaml").touch()
    assert box.call("uninstall.sh", PURGE="1").returncode == 0
    assert (other.exists(), (models / "mine.yaml").exists()) == (True, True)


def _break(box: Box, what: str) -> tuple[dict[str, str], int, str]:
    """Return what is given, the exit code and what is named."""
    if what == "systemd":
        return {"SYSTEMD": str(OLDEST_SYSTEMD - 1)}, 3, f"systemd {OLDEST_SYSTEMD - 1}:"
    if what == "python":
        return {"PYTHON": "/nowhere/python3"}, 2, "PYTHON=/nowhere/python3:"
    if what == "settings":
        return {"ENV_FILE": "/nowhere.env"}, 2, "ENV_FILE=/nowhere.env:"
    if what == "hotkey":
        box.hotkey.write_text('{"publicKey": "0x1"}')
        return {}, 2, f"HOTKEY={box.hotkey}:"
    if what == "models":
        return {"MODELS": "/nowhere"}, 2, "MODELS=/nowhere:"
    if what == "detector":
        box.settings.write_text("IMAGE_DETECTOR_CONFIG=mine.yaml\n")
        return {}, 2, "IMAGE_DETECTOR_CONFIG=mine.yaml:"
    assert what == "tool"
    for tool in ("bash", "dirname", "id", "sed", "readlink", "grep", "find", "sort", "xargs", "cut", "getent"):
        (box.root / "programs" / tool).symlink_to(str(shutil.which(tool)))
    return {"PATH": str(box.root / "programs")}, 3, "install "


FAULTS = ["systemd", "python", "settings", "hotkey", "models", "detector", "tool"]


@pytest.mark.parametrize("what", FAULTS)
def test_what_is_missing_is_one_line_and_nothing_is_changed(tmp_path: Path, what: str) -> None:
    box = Box(tmp_path)
    given, code, named = _break(box, what)
    before = box.files()
    done = box.install(**given)
    assert (done.returncode, box.files()) == (code, before), done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: {named}")


def test_a_port_that_is_taken_is_said_before_anything_is_changed(tmp_path: Path) -> None:
    box = Box(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        box.settings.write_text(f"SUBTENSOR_NETWORK=standalone\nMINER_AXON_PORT={free_port()}\nSTATUS_PORT={port}\n")
        before = box.files()
        done = box.install()
    assert (done.returncode, box.files()) == (3, before)
    assert f"STATUS_PORT={port}:" in done.stderr
