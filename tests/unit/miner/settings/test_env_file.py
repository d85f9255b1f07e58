"""Which settings file a command reads, and what it says of its lines: real processes in real folders."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from miner.errors import ConfigurationError
from miner.settings.env_file import key_notes, refuse_replaced
from tests.process.daemon import PATIENCE, clean_environment, free_port

ROOT = Path(__file__).resolve().parents[4]
WRONG = "NETUID=of-the-file\n"  # the fault proves that the file was read
COMMANDS = (
    ["run"], ["top"], ["query", "photo.jpg"], ["reload"], ["report"], ["tune"], ["models", "download"],
    ["models", "list"], ["export"], ["bench"], ["simulate"], ["evaluate", "photos"], ["calibrate", "photos"],
    ["config"], ["precompute", "branches", "photos", "--out", "x.npz"], ["register"],
    ["publish", "run", "--repo", "you/roadwork"],
)  # fmt: skip


def miner(folder: Path, *arguments: str, user: Sequence[str] = (), **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*user, sys.executable, "-m", "miner", *arguments],
        cwd=folder, capture_output=True, text=True, timeout=PATIENCE,
        env=clean_environment(PYTHONPATH=str(ROOT), STATUS_PORT=str(free_port()), COLUMNS="200", **settings),
    )  # fmt: skip


def keys_of(run: subprocess.CompletedProcess[str]) -> list[str]:
    """Return what the refusal to start names: the keys or flags at fault."""
    lines = [line for line in run.stderr.splitlines() if line.startswith("error: ")]
    return [line.removeprefix("error: ").partition(":")[0].partition("=")[0] for line in lines]


def test_a_file_that_this_user_may_not_read_is_one_line(tmp_path: Path) -> None:
    """As a service's journal shows it after somebody moved a file of theirs into its place."""
    (tmp_path / "miner.env").write_text(WRONG)
    (tmp_path / "miner.env").chmod(0)
    user = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    if user and shutil.which("setpriv") is None:
        pytest.skip("setpriv is missing: root reads everything without it")
    run = miner(tmp_path, "run", "--env-file", "miner.env", user=user)
    assert (run.returncode, keys_of(run), len(run.stderr.splitlines())) == (2, ["--env-file"], 1)


def test_a_file_that_is_mounted_and_replaced_outside_is_told_and_not_read_again(tmp_path: Path) -> None:
    outside, inside = tmp_path / "outside.env", tmp_path / "miner.env"
    outside.write_text("NETUID=72\n")
    inside.touch()
    if subprocess.run(["mount", "--bind", str(outside), str(inside)], capture_output=True).returncode != 0:
        pytest.skip("may not mount a file here")
    try:
        refuse_replaced(inside)
        outside.with_suffix(".new").write_text("NETUID=323\n")
        outside.with_suffix(".new").rename(outside)  # as editors do
        with pytest.raises(ConfigurationError, match=f"^{inside}: "):
            refuse_replaced(inside)
        assert [note for note in key_notes(["NETUID"], inside) if str(inside) in note]
    finally:
        subprocess.run(["umount", str(inside)], check=True)
    refuse_replaced(outside)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_takes_the_miner_env_of_its_folder_and_says_so(tmp_path: Path, command: list[str]) -> None:
    (tmp_path / "miner.env").write_text(WRONG)
    run = miner(tmp_path, *command)
    assert (run.returncode, keys_of(run)) == (2, ["NETUID"])
    (said,) = [line for line in run.stderr.splitlines() if "--no-env-file" in line]
    assert str(tmp_path / "miner.env") in said


def test_the_doctor_says_so_too(tmp_path: Path) -> None:
    (tmp_path / "miner.env").write_text(WRONG)
    run = miner(tmp_path, "doctor")
    assert (run.returncode, "NETUID" in run.stdout) == (1, True)  # a fault is a finding of it
    assert run.stderr.startswith(f"settings from {tmp_path / 'miner.env'}")


def test_the_file_is_refused_by_a_flag_and_yields_to_another(tmp_path: Path) -> None:
    (tmp_path / "miner.env").write_text(WRONG)
    other = tmp_path / "other.env"
    other.write_text("QUEUE_DEPTH=of-the-other\n")
    alone = miner(tmp_path, "top", "--no-env-file")
    assert (alone.returncode, "miner.env" in alone.stderr) == (3, False)  # nobody answers there
    assert keys_of(miner(tmp_path, "top", "--env-file", "other.env")) == ["QUEUE_DEPTH"]
    both = miner(tmp_path, "top", "--env-file", "other.env", "--no-env-file")
    assert (both.returncode, keys_of(both)) == (2, ["--env-file"])


def test_a_settings_file_may_come_through_a_pipe(tmp_path: Path) -> None:
    script = (
        f"{sys.executable} -m miner models list --json --env-file <(printf 'MODELS_DIR={tmp_path}\\nNO_SUCH_KEY=1\\n')"
    )
    run = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE,
        env=clean_environment(PYTHONPATH=str(ROOT)),
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert "NO_SUCH_KEY" in run.stderr, "read for the settings, and again for what is said of them"


def make(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Call the Makefile, with our own interpreter in the place of the environment that it would make."""
    command = ["make", "-o", ".venv/.serve", f"MINER={sys.executable} -m miner", *arguments]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, env=clean_environment(**environment)
    )  # fmt: skip


@pytest.mark.parametrize("target", ["run", "query", "models", "doctor", "top", "simulate"])
def test_env_is_a_settings_file_where_one_is_taken(tmp_path: Path, target: str) -> None:
    file = tmp_path / "mine.env"
    file.touch()
    shell = {"ENV": "/home/me/.shrc"}  # its own, which is none of ours
    for given, meant in (
        (f"ENV={file}", file), (f"ENV_FILE={file}", file), ("ENV=testnet", "env/testnet.env"),
    ):  # fmt: skip
        assert f"--env-file {meant}" in make("-n", target, given, **shell).stdout
    assert "--env-file" not in make("-n", target, **shell).stdout
    assert make("-n", target, "ENV=testnet", "ENV_FILE=env/testnet.env").returncode == 0
    assert make("-n", target, "ENV=testnet", f"ENV_FILE={file}").returncode == 2
    assert make("-n", target, f"ENV={tmp_path}/my file.env").returncode == 2
    misspelt = make("-n", target, "ENV=mainet")
    assert (misspelt.returncode, "ENV=mainet" in misspelt.stderr, " mainnet" in misspelt.stderr) == (2, True, True)


def test_every_target_that_takes_a_settings_file_takes_env() -> None:
    makefile = (ROOT / "Makefile").read_text()
    (listed,) = re.findall(r"^READERS := (.*)$", makefile, flags=re.MULTILINE)
    recipes = re.findall(r"^([a-z-]+):.*## .*\n((?:\t.*\n)*)", makefile, flags=re.MULTILINE)
    taking = {name for name, recipe in recipes if re.search(r"\$\(WITH_ENV\)|\$\(or \$\(SETTINGS\)", recipe)}
    assert taking == set(listed.split())


def test_make_refuses_env_where_nothing_takes_it_and_keeps_it_for_services() -> None:
    assert make("-n", "lint", "ENV=testnet").returncode == 2
    assert make("-n", "help", ENV="/home/me/.shrc").returncode == 0
    for target in ("install-service", "upgrade-service", "uninstall-service"):
        assert make("-n", target, "ENV=testnet").returncode == 0


def test_makes_last_line_has_the_miners_exit_code_which_make_itself_can_not_end_with(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.env"
    wrong.write_text("QUEUE_DEPTH=many\n")
    quiet = tmp_path / "quiet.env"
    quiet.write_text(f"STATUS_PORT={free_port()}\n")
    for target, file, code in (("run", wrong, 2), ("top", quiet, 3), ("doctor", wrong, 1)):
        done = make(target, f"ENV={file}")
        assert done.returncode == 2
        assert done.stderr.splitlines()[-1].endswith(f" Error {code}")
        assert miner(tmp_path, target, "--env-file", str(file)).returncode == code


def test_the_command_is_linked_and_nothing_of_others_is_overwritten(tmp_path: Path) -> None:
    link = tmp_path / "bin" / "roadwork-miner"
    target = ROOT / ".venv" / "bin" / "roadwork-miner"

    def linked(**environment: str) -> subprocess.CompletedProcess[str]:
        command = ["make", "-o", ".venv/.serve", "link", f"PREFIX={tmp_path}"]
        return subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, env=clean_environment(**environment), timeout=PATIENCE
        )  # fmt: skip

    for path, warned in (("/usr/bin:/bin", True), (f"/usr/bin:/bin:{link.parent}", False)):  # done twice
        done = linked(PATH=path)
        assert (done.returncode, link.readlink(), str(link) in done.stdout) == (0, target, True), done.stderr
        assert ("PATH" in done.stderr) is warned
    for theirs in (lambda: link.write_text("theirs"), lambda: link.symlink_to("/nowhere/roadwork-miner")):
        link.unlink()
        theirs()
        done = linked()
        assert (done.returncode, str(link) in done.stderr) == (2, True)
        assert link.is_symlink() or link.read_text() == "theirs"


def test_a_line_that_is_no_setting_is_refused_by_its_number_and_not_shown(tmp_path: Path) -> None:
    (tmp_path / "miner.env").write_text(
        '# fine\nLOG_LEVEL=INFO\nHF_TOKEN hf_notwithoutequals\nexport NETUID=323\nexport PATH\n\nQUEUE_DEPTH\nX="y\n'
    )
    run = miner(tmp_path, "models", "list")
    assert run.returncode == 2
    assert "hf_notwithoutequals" not in run.stderr
    places = [key.rpartition(", ")[2] for key in keys_of(run)]
    assert places == ["line 3", "line 7", "line 8"]


@pytest.mark.parametrize("name", ["ENVFILE", "env_file"])
def test_a_name_of_the_settings_file_that_is_nearly_right_is_refused(name: str) -> None:
    done = subprocess.run(["make", "-n", "run", f"{name}=miner.env"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert "ENV_FILE=miner.env" in done.stderr
