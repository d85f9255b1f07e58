"""The installer itself, below a folder in place of `/`, with stand-ins for `systemctl` and what only root may do.

`make test-service` plays all of it on a booted systemd.
"""

import os
import subprocess
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "deploy" / "systemd"
TEMPLATE = "roadwork-miner@.service"
# A service whose unit says so does not get ready.
SYSTEMCTL = """#!/bin/sh
echo "$*" >>"$DESTDIR/called"
case "$1" in
--version) echo "systemd 255 (255.4)" ;;
restart) ! grep -q broken "$DESTDIR/etc/systemd/system/roadwork-miner@.service" ;;
esac
"""
NOTHING = "#!/bin/sh\n"  # of what only root may do


class Box:
    """A machine's root, with releases that were made before."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.hotkey = root / "given" / "hotkey"
        self.unit = root / "etc" / "systemd" / "system" / TEMPLATE
        programs = root / "programs"
        for folder in (programs, self.hotkey.parent, root / "no-models"):
            folder.mkdir()
        for name, text in (("systemctl", SYSTEMCTL), ("groupadd", NOTHING), ("chown", NOTHING)):
            (programs / name).write_text(text)
            (programs / name).chmod(0o755)
        self.hotkey.write_text("first")
        self.environment = os.environ | {
            "DESTDIR": str(root), "ENV": "standalone", "HOTKEY": str(self.hotkey), "MODELS": str(root / "no-models"),
            "PATH": f"{programs}:{os.environ['PATH']}",
        }  # fmt: skip

    def release(self, name: str, unit: str) -> Path:
        folder = self.root / "opt" / "roadwork-miner" / name
        (folder / "systemd").mkdir(parents=True, exist_ok=True)
        (folder / ".whole").touch()
        (folder / "systemd" / TEMPLATE).write_text(unit)
        (folder / "systemd" / "back-off.conf").write_bytes((FOLDER / "back-off.conf").read_bytes())
        return folder

    def install(self, release: str) -> subprocess.CompletedProcess[str]:
        (self.root / "called").unlink(missing_ok=True)
        command = ["bash", str(FOLDER / "install.sh")]
        environment = self.environment | {"RELEASE": release}
        return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=False)

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


def test_a_release_from_before_leaves_the_unit_that_is_there(box: Box) -> None:
    folder = box.release("0", "")
    for path in (folder / "systemd").iterdir():
        path.unlink()
    (folder / "systemd").rmdir()
    assert "is installed stays" in box.install("0").stdout
    assert (box.current, box.unit.read_text()) == ("0", "the first unit")
