"""Which settings file a command reads, and what it says of its lines: real processes in real folders."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.process.daemon import PATIENCE, clean_environment, free_port

ROOT = Path(__file__).resolve().parents[4]
WRONG = "NETUID=of-the-file\n"  # the fault proves that the file was read
COMMANDS = (
    ["run"], ["top"], ["query", "photo.jpg"], ["reload"], ["report"], ["tune"], ["models", "download"],
    ["models", "list"], ["export"], ["bench"], ["simulate"], ["evaluate", "photos"], ["calibrate", "photos"],
    ["config"], ["precompute", "branches", "photos", "--out", "x.npz"],
)  # fmt: skip


def miner(folder: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "miner", *arguments], cwd=folder, capture_output=True, text=True, timeout=PATIENCE,
        env=clean_environment(PYTHONPATH=str(ROOT), STATUS_PORT=str(free_port()), COLUMNS="200", **settings),
    )  # fmt: skip


def keys_of(run: subprocess.CompletedProcess[str]) -> list[str]:
    """Return what the refusal to start names: the keys or flags at fault."""
    lines = [line for line in run.stderr.splitlines() if line.startswith("error: ")]
    return [line.removeprefix("error: ").partition(":")[0].partition("=")[0] for line in lines]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_takes_the_miner_env_of_its_folder_and_says_so(tmp_path: Path, command: list[str]) -> None:
    (tmp_path / "miner.env").write_text(WRONG)
    run = miner(tmp_path, *command)
    assert (run.returncode, keys_of(run)) == (2, ["NETUID"])
    (said,) = [line for line in run.stderr.splitlines() if "--no-env-file" in line]
    assert str(tmp_path / "miner.env") in said


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


@pytest.mark.parametrize("target", ["run", "models", "doctor", "top", "bench"])
def test_make_refuses_the_services_name_where_a_file_is_meant(target: str) -> None:
    run = subprocess.run(["make", "-n", target, "ENV=testnet"], cwd=ROOT, capture_output=True, text=True)
    assert (run.returncode, "ENV_FILE=env/testnet.env" in run.stderr) == (2, True)


def test_make_keeps_the_services_name_for_services_and_minds_no_shells_own() -> None:
    for goal, given in (("install-service", ["ENV=testnet"]), ("uninstall-service", ["ENV=testnet"]), ("help", [])):
        run = subprocess.run(
            ["make", "-n", goal, *given], cwd=ROOT, capture_output=True, text=True,
            env=clean_environment(ENV="/home/me/.shrc"),
        )  # fmt: skip
        assert run.returncode == 0, run.stderr


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
