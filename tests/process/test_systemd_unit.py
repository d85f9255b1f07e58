"""The unit file as systemd reads it, and the steps of its installer. Needs `systemd-analyze` (package systemd)."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from miner.cli import common
from miner.settings.settings import Settings
from tests import tools

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "deploy" / "systemd"
UNIT = FOLDER / "roadwork-miner@.service"
TEXT = UNIT.read_text(encoding="utf-8")
THRESHOLD = 20  # tenths of exposure


analyze = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs the package systemd")


def value(key: str) -> str:
    (found,) = re.findall(rf"^{key}=(.*)$", TEXT, flags=re.MULTILINE)
    return str(found)


def run(*command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, env=os.environ | environment, timeout=120
    )  # fmt: skip


@pytest.fixture
def instance(tmp_path: Path) -> Path:
    """The unit for testnet, with a command that is on this machine."""
    path = tmp_path / "roadwork-miner@testnet.service"
    path.write_text(TEXT.replace(value("ExecStart").split()[0], str(shutil.which("true"))), encoding="utf-8")
    return path


@analyze
def test_systemd_understands_every_line(instance: Path) -> None:
    verified = run("systemd-analyze", "verify", instance)
    assert (verified.returncode, verified.stderr) == (0, ""), verified.stderr


def test_it_starts_once_the_clock_is_set() -> None:
    for key in ("Wants", "After"):
        assert {"network-online.target", "time-sync.target"} <= set(value(key).split())


@analyze
def test_the_sandbox_is_tight(instance: Path) -> None:
    judged = run("systemd-analyze", "security", "--offline=true", f"--threshold={THRESHOLD}", instance)
    assert judged.returncode == 0, judged.stdout[-2000:]


def test_what_would_break_the_miner_is_not_in_the_sandbox() -> None:
    # JIT, /proc/meminfo, inline comments, and a brake that works before the miner's own refusals and the alert
    for key in ("MemoryDenyWriteExecute", "ProcSubset", "EnvironmentFile", "MemoryHigh"):
        assert not re.search(rf"^{key}=", TEXT, flags=re.MULTILINE)
    assert "--env-file /etc/roadwork-miner/%i.env" in value("ExecStart")
    assert "setpriority" in re.findall(r"^SystemCallFilter=([a-z].*)$", TEXT, flags=re.MULTILINE)[0].split()  # os.nice


def test_the_unit_and_the_settings_agree() -> None:
    given = re.findall(r"^Environment=([A-Z_]+)=", TEXT, flags=re.MULTILINE)
    ours = [key for key in given if key.lower() in Settings.model_fields]
    assert set(given) - set(ours) == {"HOME", "MALLOC_ARENA_MAX", "PYTHONFAULTHANDLER"}
    worst = tools.longest_stop()
    assert float(value("TimeoutStopSec")) >= worst + 10
    assert f"At the worst {worst:.0f} s" in TEXT
    assert value("RestartPreventExitStatus") == "2"
    assert value("Type") == "notify"


def test_the_commands_of_a_service_look_where_the_unit_does() -> None:
    places = {"%i": "testnet", "%S": "/var/lib"}

    def filled(text: str) -> str:
        for mark, place in places.items():
            text = text.replace(mark, place)
        return text

    given = dict(re.findall(r"^Environment=([A-Z_]+)=(.*)$", TEXT, flags=re.MULTILINE))
    credentials = dict(re.findall(r"^LoadCredential=([a-z-]+):(.*)$", TEXT, flags=re.MULTILINE))
    wanted = {
        key.lower(): filled(credentials[Path(text).name] if text.startswith("%t/credentials/%n/") else text)
        for key, text in given.items()
        if key.lower() in Settings.model_fields
    }
    assert common.unit_settings("testnet") == wanted
    assert str(Path("/") / common.ETC / "testnet.env") == filled(value("ExecStart").split()[-1])


@pytest.mark.parametrize("script", ["install.sh", "uninstall.sh", "common.sh", "../python.sh"])
def test_the_scripts_are_well_formed(script: str) -> None:
    assert run("bash", "-n", FOLDER / script).stderr == ""
    if shutil.which("shellcheck"):
        assert run("shellcheck", "-x", FOLDER / script).stdout == ""


@pytest.fixture
def python() -> str:
    """Return an interpreter that the service would see and that can make its environment."""
    path = tools.find("/usr/bin/python3", "python3-venv")
    asked = run(path, "-c", "import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))")
    if asked.returncode != 0:
        tools.missing("a /usr/bin/python3 from 3.11 on that can make environments", "python3-venv")
    return path


def test_a_dry_run_prints_every_step_and_takes_none(python: str) -> None:
    before = {path for top in ("/opt", "/etc/systemd/system", "/etc") for path in Path(top).iterdir()}
    made = run("make", "install-service", "ENV=testnet", "DRY_RUN=1", PYTHON=python)
    assert made.returncode == 0, made.stderr
    steps = [line for line in made.stdout.splitlines() if line.startswith("+ ")]
    assert "+ chmod 640 /etc/roadwork-miner/testnet.env" in steps
    for part in ("venv", "--require-hashes", "testnet.env", UNIT.name, "daemon-reload", "current-testnet", "restart"):
        assert any(part in step for step in steps), part
    removed = run("make", "uninstall-service", "ENV=testnet", "DRY_RUN=1")
    for part in ("disable --now", UNIT.name, "current-testnet", "daemon-reload"):
        assert any(part in step for step in removed.stdout.splitlines()), part
    assert "testnet.hotkey" not in removed.stdout
    purged = run("make", "uninstall-service", "ENV=testnet", "DRY_RUN=1", "PURGE=1")
    for part in ("testnet.env", "testnet.hotkey-password", "testnet.hotkeys", "private/roadwork-miner/testnet"):
        assert f"/{part}" in purged.stdout
    assert before == {path for top in ("/opt", "/etc/systemd/system", "/etc") for path in Path(top).iterdir()}


def test_the_settings_are_read_by_the_group_that_the_miner_is_in() -> None:
    dry = run("bash", FOLDER / "install.sh", ENV="testnet", DRY_RUN="1", PYTHON="/usr/bin/python3").stdout
    group, user = value("SupplementaryGroups"), value("User")
    assert f"+ chown root:{group} /etc/roadwork-miner/testnet.env" in dry
    assert user == "roadwork-miner-%i"  # without one systemd takes `roadwork-miner`
    assert group != user.replace("%i", "testnet")  # no dynamic user is made that has the name of a group


def test_a_coldkey_where_the_hotkey_comes_from_is_a_warning(tmp_path: Path) -> None:
    hotkey = tmp_path / "ours" / "hotkeys" / "hot"
    hotkey.parent.mkdir(parents=True)
    (tmp_path / "savings").mkdir()
    for file in (hotkey, tmp_path / "savings" / "coldkey"):
        file.write_text("0x1")
    given = {"ENV": "testnet", "DRY_RUN": "1", "PYTHON": "/usr/bin/python3", "HOTKEY": str(hotkey)}
    told = run("bash", FOLDER / "install.sh", **given)
    assert (told.returncode, f"ON THIS MACHINE: {tmp_path}/savings/coldkey." in told.stderr) == (0, True), told.stderr


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "ENV=: a network"),
        ({"ENV": "../etc"}, "ENV=../etc: a network"),
        ({"ENV": "n" * 17}, f"ENV={'n' * 17}: a network"),
        ({"ENV": "nonet"}, "ENV_FILE="),
        ({"ENV": "testnet", "ENV_FILE": "/nowhere.env"}, "ENV_FILE=/nowhere.env: "),
        ({"ENV": "miner.env"}, "ENV=miner.env: a network"),
        ({"ENV": "testnet", "HOTKEY": "/nowhere"}, "HOTKEY=/nowhere: there is no"),
        ({"ENV": "testnet", "MODELS": "/nowhere"}, "MODELS=/nowhere: there is no"),
        ({"ENV": "testnet", "ROLLBACK": "1"}, "ROLLBACK=1: there is no release"),
        ({"ENV": "testnet", "ROLLBACK": "1", "RELEASE": "0.0.0-none"}, "ROLLBACK=1 changes the release only"),
        ({"ENV": "testnet", "RELEASE": "0.0.0-none"}, "RELEASE=0.0.0-none is not installed"),
        ({"ENV": "testnet", "PYTHON": "/nowhere/python3"}, "PYTHON=/nowhere/python3: it is no Python"),
    ],
    ids=[
        "none",
        "path",
        "long",
        "unknown",
        "file",
        "env-file",
        "hotkey",
        "models",
        "rollback",
        "two",
        "release",
        "python",
    ],
)
def test_a_wrong_call_is_one_line_that_names_the_variable(given: dict[str, str], message: str) -> None:
    clean = dict.fromkeys(
        ("ENV", "ENV_FILE", "HOTKEY", "HOTKEY_PASSWORD", "MODELS", "RELEASE", "ROLLBACK", "PYTHON"), ""
    )
    called = run("bash", FOLDER / "install.sh", **clean | {"DRY_RUN": "1"} | given)
    assert called.returncode == 2, called.stdout
    assert message in called.stderr.splitlines()[-1]
