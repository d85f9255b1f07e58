"""The life of a service, in the order in which an operator sees it. Each scene begins where the one before it ended."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.process.daemon import eventually
from tests.service.machine import Machine, Unit

pytestmark = pytest.mark.timeout(1200)  # an installation on a busy disk takes minutes
QUICK = "WatchdogSec=4\nRestartSec=1"


@pytest.fixture(scope="module")
def unit(machine: Machine) -> Unit:
    return Unit(machine, "standalone")


@pytest.fixture(scope="module")
def files_before(machine: Machine) -> set[str]:
    return machine.files()


@pytest.fixture(autouse=True)
def _journal_of_a_failure(unit: Unit) -> Iterator[None]:
    yield
    print(unit.machine.try_run("journalctl", "--no-pager", "-n", "60", "-o", "cat").stdout)


def test_install_ends_when_the_miner_is_ready(unit: Unit, files_before: set[str]) -> None:
    assert not any("roadwork" in path for path in files_before)
    done = unit.make("install-service")
    assert done.returncode == 0, done.stdout + done.stderr
    assert unit.is_ready()
    assert unit.show("UnitFileState") == "enabled"
    assert unit.show("DynamicUser") == "yes"
    assert (unit.show("MemoryMax"), unit.show("TasksMax")) == (str(4 * 2**30), "512")


def test_its_systemd_understands_every_line(unit: Unit) -> None:
    verified = unit.machine.try_run("systemd-analyze", "verify", unit.name)
    assert "roadwork" not in verified.stderr


def test_a_validator_is_answered(unit: Unit) -> None:
    reply = unit.ask("street.jpg")
    assert reply["status"] == 200
    assert 0 <= reply["prediction"] <= 1


def test_log_lines_arrive_as_fields_of_the_journal(unit: Unit) -> None:
    listed = unit.machine.run(
        "journalctl", "-u", unit.name, "--no-pager", "-o", "json", "LOGGER=miner.inference.watchdog"
    )
    entries = [json.loads(line) for line in listed.splitlines()]
    (ready,) = [entry for entry in entries if entry["MESSAGE"].startswith("ready: ")]
    assert (ready["PRIORITY"], ready["SYSLOG_IDENTIFIER"]) == ("6", "roadwork-miner")


def test_the_miners_own_commands_find_the_service(unit: Unit) -> None:
    findings = json.loads(unit.command("doctor", "--json"))["findings"]
    assert not [finding for finding in findings if finding["level"] == "problem"]
    assert "Ready" in unit.command("top", "--once")
    assert "starter" in unit.command("models", "list")
    assert "starter" in unit.machine.run("/usr/local/bin/roadwork-miner", "models", "list", "--service", unit.env)
    assert unit.command("reload")
    unit.systemctl("reload")
    unit.command("report", "--out", "/tmp/report.tar.gz")
    assert unit.is_ready()


def test_a_second_install_changes_nothing(unit: Unit) -> None:
    process, files = unit.show("MainPID"), unit.machine.files()
    unit.set(LOG_LEVEL="DEBUG")
    done = unit.make("install-service")
    assert done.returncode == 0, done.stderr
    assert "standalone.env stays" in done.stdout
    assert unit.show("MainPID") == process
    assert unit.machine.files() == files
    assert "LOG_LEVEL=DEBUG" in unit.machine.run("cat", "/etc/roadwork-miner/standalone.env")


def test_a_hung_process_is_restarted(unit: Unit) -> None:
    unit.drop_in(QUICK)
    unit.systemctl("restart")
    unit.machine.run("sh", "-c", f"kill -STOP {unit.show('MainPID')}")
    eventually(lambda: unit.show("NRestarts") == "1" and unit.is_ready())
    assert "Watchdog timeout" in unit.journal()
    assert unit.ask("street.jpg")["status"] == 200


def test_an_inference_that_hangs_is_restarted_and_says_where_it_was(unit: Unit) -> None:
    unit.set(IMAGE_DETECTOR_CONFIG="/shared/hanging-on-white.yaml")
    unit.systemctl("restart")
    assert unit.ask("white.png", timeout=2.0)["prediction"] is None
    eventually(lambda: unit.show("NRestarts") == "1" and unit.is_ready())
    assert "Python error: Aborted" in unit.journal()
    assert "in _predict" in unit.journal()
    assert unit.ask("street.jpg")["status"] == 200


def test_a_quiet_miner_is_left_alone(unit: Unit) -> None:
    beats = set()

    def several_beats() -> bool:
        beats.add(unit.show("WatchdogTimestampMonotonic"))
        return len(beats) > 3

    restarts = unit.show("NRestarts")
    eventually(several_beats)
    assert unit.show("NRestarts") == restarts


def test_stop_waits_for_the_answer_that_is_being_made(unit: Unit) -> None:
    # A busy machine may take much longer than the few seconds that the picture is made for.
    patience = {"DEADLINE_CAP_SECONDS": "60", "INFERENCE_LIMIT_SECONDS": "60", "DRAIN_SECONDS": "50"}
    unit.set(IMAGE_DETECTOR_CONFIG="/shared/slow-on-white.yaml", **patience)
    unit.drop_in("")
    unit.systemctl("restart")
    query = unit.query("white.png", timeout=45.0)
    asking = subprocess.Popen(unit.machine.enter(*query), stdout=subprocess.PIPE, text=True)
    read = "import urllib.request; print(urllib.request.urlopen('http://127.0.0.1:9464/metrics').read().decode())"
    eventually(lambda: "roadwork_miner_running 1.0" in unit.machine.run("python3", "-c", read))
    unit.systemctl("stop")
    told, _ = asking.communicate(timeout=60)
    assert json.loads(told)["replies"][0]["status"] == 200
    assert (unit.show("Result"), unit.show("ExecMainStatus")) == ("success", "0")


def test_wrong_settings_are_not_tried_again(unit: Unit) -> None:
    unit.set(IMAGE_DETECTOR_CONFIG="starter.yaml", QUEUE_DEPTH="many")
    assert unit.machine.try_run("systemctl", "start", unit.name).returncode != 0
    assert (unit.show("ActiveState"), unit.show("ExecMainStatus")) == ("failed", "2")
    assert unit.show("NRestarts") == "0"
    assert "QUEUE_DEPTH=many" in unit.journal()
    unit.set(QUEUE_DEPTH="32")
    unit.systemctl("start")
    assert unit.is_ready()


@pytest.fixture(scope="module")
def second(machine: Machine) -> Unit:
    return Unit(machine, "testnet")


def test_a_second_network_with_an_encrypted_hotkey(second: Unit, shared: Path) -> None:
    from bittensor import Wallet

    password = "correct horse battery staple"
    wallet = Wallet(name="ours", hotkey="hot", path=str(shared / "wallets"))
    wallet.create_new_hotkey(hotkey_password=password, suppress=True)
    (shared / "password").write_text(password + "\n")
    (shared / "testnet.env").write_text(
        "SUBTENSOR_NETWORK=test   # no network here\nSUBTENSOR_CHAIN_ENDPOINT=ws://127.0.0.1:1\n"
        "IMAGE_DETECTOR_CONFIG=starter.yaml\nMINER_AXON_PORT=8091\nSTATUS_PORT=9465\n"
    )
    given = {"ENV_FILE": "/shared/testnet.env", "HOTKEY": "/shared/wallets/ours/hotkeys/hot"}
    files = second.machine.files()
    for refused, named in (({}, "HOTKEY_PASSWORD"), ({"HOTKEY_PASSWORD": "/shared/password"}, "MINER_AXON_PORT=8091")):
        taken = second.make("install-service", **given, **refused)
        assert (taken.returncode, named in taken.stderr) == (2, True), taken.stderr  # make's own code
        assert second.machine.files() == files

    settings = shared / "testnet.env"
    settings.write_text(settings.read_text().replace("8091", "8092"))
    assert second.make("install-service", **given, HOTKEY_PASSWORD="/shared/password").returncode == 0
    second.set(MINER_AXON_PORT="8091")
    assert second.machine.try_run("systemctl", "restart", second.name).returncode != 0
    eventually(lambda: int(second.show("NRestarts")) >= 1)  # exit code 3: again and again
    second.set(MINER_AXON_PORT="8092")
    second.systemctl("restart")
    assert f"hotkey {wallet.hotkey.ss58_address}" in second.status
    assert second.status.startswith("not ready (")
    assert "of subnet 323" in second.status
    assert "read the hotkey" not in second.journal()
    assert password not in second.journal()
    modes = second.machine.run(
        "stat", "-c", "%a %U %G", *(f"/etc/roadwork-miner/testnet.{end}" for end in ("hotkey", "env"))
    )
    assert modes.splitlines() == ["600 root root", "640 root roadwork-settings"]


def test_upgrade(unit: Unit, second: Unit) -> None:
    before = unit.release
    source = unit.machine.copy_source("new")
    unit.machine.run("sed", "-i", 's/^version = .*/version = "9.9.0"/', f"{source}/pyproject.toml")
    done = unit.make("upgrade-service", source)
    assert done.returncode == 0, done.stdout + done.stderr
    assert unit.release.startswith("9.9.0-")
    assert unit.is_ready()
    assert unit.ask("street.jpg")["status"] == 200
    assert second.release == before  # each network has its own switch


def test_an_upgrade_that_fails_goes_back_by_itself(unit: Unit) -> None:
    good = unit.release
    source = unit.machine.copy_source("broken")
    unit.machine.run("sed", "-i", 's/^version = .*/version = "9.9.1"/', f"{source}/pyproject.toml")
    unit.machine.run("sed", "-i", "1i raise SystemExit(3)", f"{source}/miner/app.py")
    done = unit.make("upgrade-service", source)
    assert done.returncode != 0
    assert f"going back to {good}" in done.stderr
    assert unit.release == good
    assert unit.is_ready()


def test_roll_back(unit: Unit, second: Unit) -> None:
    new = unit.release
    for release in (second.release, new, second.release):  # back, forward and back again
        done = unit.make("upgrade-service", ROLLBACK="1")
        assert done.returncode == 0, done.stdout + done.stderr
        assert unit.release == release
        assert unit.is_ready()
    assert unit.ask("street.jpg")["status"] == 200


def test_releases_that_nobody_goes_back_to_are_pruned(unit: Unit, second: Unit) -> None:
    listed = unit.machine.run("ls", "/opt/roadwork-miner").split()
    assert {name for name in listed if name[0].isdigit()} == {unit.release, unit.previous}
    assert unit.release == second.release
    assert unit.make("upgrade-service", RELEASE="0.0.0-none").returncode == 2


def test_uninstall_keeps_what_the_other_network_needs(unit: Unit, second: Unit) -> None:
    done = second.make("uninstall-service", PURGE="1")
    assert done.returncode == 0, done.stderr
    assert not any("testnet" in path for path in unit.machine.files() if "/opt/" not in path)
    assert unit.is_ready()
    assert unit.ask("street.jpg")["status"] == 200


def test_uninstall_keeps_settings_and_state_and_says_where(unit: Unit) -> None:
    address = unit.status.split("hotkey ")[1].split(",")[0]
    done = unit.make("uninstall-service")
    assert done.returncode == 0, done.stderr
    kept = unit.machine.files()
    for path in ("/etc/roadwork-miner/standalone.env", "/var/lib/private/roadwork-miner/standalone"):
        assert path in kept
        assert path in done.stdout
    assert not any(path.startswith(("/opt/roadwork-miner", "/usr/local/bin/")) for path in kept)
    assert not any(path.startswith("/opt/roadwork-miner") for path in kept)
    assert unit.make("install-service").returncode == 0
    assert f"hotkey {address}" in unit.status


def test_uninstall_leaves_nothing(unit: Unit, files_before: set[str]) -> None:
    assert unit.make("uninstall-service").returncode == 0
    done = unit.make("uninstall-service", PURGE="1")  # of a service that is gone already
    assert done.returncode == 0, done.stdout + done.stderr
    assert unit.machine.files() == files_before
    assert "roadwork" not in unit.machine.run("getent", "group")
    assert "roadwork" not in unit.machine.run("systemctl", "list-units", "--all", "--no-pager")
    assert unit.make("uninstall-service", PURGE="1").returncode == 0  # a second time changes nothing
