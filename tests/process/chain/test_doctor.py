"""The check-up against a living chain and a running miner: all ok, and each planted fault is its own line's problem."""

import json
import re
import socket
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from detectors.machine import allowed_cores
from tests.process.chain.checkup import Setup
from tests.process.chain.faults import FAULTS
from tests.process.chain.live_node import EXTERNAL_IP, OWN_UID, SECRETS
from tests.process.daemon import PATIENCE, Daemon

LINES = [
    "settings", "hotkey", "coldkey", "cpu", "memory", "disk", "model", "inference", "miner", "port", "reachable",
    "asked", "chain", "sdk", "clock", "registration", "standing", "address", "validators", "rules", "pay",
    "subnet", "cost", "natix", "published",
]  # fmt: skip


def test_a_healthy_miner_is_all_ok(setup: Setup) -> None:
    report = setup.doctor()
    assert list(report.levels) == LINES
    assert set(report.levels.values()) == {"ok"}, report.words
    assert report.verdict == "ready to earn"
    assert report.exit_code == 0
    port = str(setup.daemon.port)
    assert setup.prober.asked[-1] == {"key": ["1"], "host": [EXTERNAL_IP], "port": [port]}
    assert f"{EXTERNAL_IP}:{port}" in report.words["address"]
    assert report.words["registration"].startswith(f"uid {OWN_UID} of 6")


@pytest.mark.parametrize(("plant", "line", "words"), FAULTS)
def test_a_planted_fault_is_exactly_its_lines_problem(
    planted: Setup, plant: Callable[[Setup], dict[str, object]], line: str, words: str
) -> None:
    report = planted.doctor(**plant(planted))
    assert report.problems == [line], report.words
    assert words in report.words[line]
    assert report.verdict.startswith("not ready")
    assert report.verdict.endswith(f": {line}: {report.words[line]}")
    assert report.exit_code == 1


def test_a_broken_probe_is_said_and_blames_nobody(planted: Setup) -> None:
    planted.prober.status = 500
    report = planted.doctor()
    assert report.problems == []
    assert report.levels["reachable"] == "warning"
    assert report.words["reachable"].startswith("the probe is broken")
    assert "500" in report.words["reachable"]


def test_a_providers_endpoint_is_nobody_elses_business(setup: Setup, tmp_path: Path) -> None:
    """Neither the operator's port, nor the files of the state folder, nor what is handed on tells of it."""
    daemon, archive, log = setup.daemon, tmp_path / "help.tar.gz", tmp_path / "careless.log"
    log.write_text(f"connecting to {setup.node.url}, that is /{SECRETS[1]} with {SECRETS[0]}\nall is well\n")
    done = subprocess.run(
        [*daemon.command, "report", "--out", str(archive), "--log", str(log)],
        capture_output=True, text=True, timeout=PATIENCE, env=daemon.environment, check=True,
    )  # fmt: skip
    with tarfile.open(archive) as opened:
        files = {member.name: opened.extractfile(member).read().decode() for member in opened}  # type: ignore[union-attr]
    files |= {page: daemon.page(page).text for page in ("/", "/status", "/metrics", "/readyz")}
    files |= {str(path): path.read_text(errors="replace") for path in daemon.state.glob("*") if path.is_file()}
    files |= {"the daemon's log": daemon.log, "the command": done.stdout + done.stderr}
    for secret in SECRETS:
        assert not [name for name, text in files.items() if secret in name + text]
    for name in ("help/doctor.json", "help/metrics.txt", "help/status.json", "/", "the daemon's log"):
        assert f"ws://127.0.0.1:{setup.node.port}" in files[name], "what helps is there"
    assert "all is well" in files["help/log.txt"]


def test_the_same_for_people(setup: Setup, tmp_path: Path) -> None:
    file, too_many = tmp_path / "miner.env", allowed_cores() + 2
    file.write_text("INFERENCE_THREADS=1   # one is enough\nNETUIDS=323\n", encoding="utf-8")
    done = subprocess.run(
        [*setup.daemon.command, "doctor", "--env-file", str(file), "--set", f"INFERENCE_THREADS={too_many}"],
        capture_output=True, text=True, timeout=PATIENCE, env=setup.daemon.environment, check=False,
    )  # fmt: skip
    lines = done.stdout.splitlines()
    assert re.fullmatch(rf"warning settings      .* NETUIDS in {re.escape(str(file))}; .* NETUID\?", lines[0])
    assert any(line.startswith(f"problem cpu           1 slot × {too_many} threads on ") for line in lines)
    assert any("→ set INFERENCE_SLOTS=0 and INFERENCE_THREADS=0" in line for line in lines)
    assert re.match("not ready .*: cpu: ", lines[-1])
    assert done.returncode == 1
    assert not done.stderr.strip()


def test_before_the_first_start_without_a_chain(tmp_path: Path, model: str) -> None:
    daemon = Daemon(tmp_path, {"IMAGE_DETECTOR_CONFIG": model, "INFERENCE_THREADS": 1})
    done = subprocess.run(
        [*daemon.command, "doctor", "--json"],
        capture_output=True, text=True, timeout=PATIENCE, env=daemon.environment, cwd=tmp_path, check=False,
    )  # fmt: skip
    told = json.loads(done.stdout)
    assert re.match("ready, .*: SUBTENSOR_NETWORK=standalone ", told["verdict"])
    assert done.returncode == 0
    words = {finding["name"]: finding["words"] for finding in told["findings"]}
    assert words["miner"] == "not running"
    assert words["port"].endswith("is free")
    assert words["chain"].startswith("standalone")
    daemon.close()


def test_a_port_that_somebody_else_has(tmp_path: Path, model: str) -> None:
    daemon = Daemon(tmp_path, {"IMAGE_DETECTOR_CONFIG": model, "INFERENCE_THREADS": 1})
    with socket.create_server(("127.0.0.1", daemon.port)):
        done = subprocess.run(
            [*daemon.command, "doctor", "--json"],
            capture_output=True, text=True, timeout=PATIENCE, env=daemon.environment, cwd=tmp_path, check=False,
        )  # fmt: skip
    told = json.loads(done.stdout)
    assert re.match("not ready .*: port: .* taken by another", told["verdict"])
    daemon.close()
