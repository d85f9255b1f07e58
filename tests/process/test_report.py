"""`roadwork-miner report`: an archive that helps, and gives nothing away."""

import gzip
import json
import secrets
import subprocess
import tarfile
from pathlib import Path

import pytest

from miner.settings.settings import Settings
from tests.process.conftest import StartDaemon
from tests.process.daemon import PATIENCE, Daemon, eventually
from tests.process.inspection import probability_of

MNEMONIC = "abandon ability able about above absent absorb abstract absurd abuse access accident"
PASSWORD = "correct-horse-" + secrets.token_hex(8)
HF_TOKEN = "hf_" + secrets.token_hex(17)
API_KEY = secrets.token_urlsafe(24)
SEED = "0x" + secrets.token_hex(32)
URL_PASSWORD = secrets.token_hex(12)
ENV_SECRET = "zq" + secrets.token_hex(9)
# These lie in the log alone: no key file, setting or variable tells of them.
STRANGE_PHRASE = "zone youth young yellow wrong wrist worth worry world work wool wonder"
STRANGE = [f"stray{secrets.token_hex(6)}" for _ in range(6)]
PLANTED = (
    *STRANGE,
    STRANGE_PHRASE,
    "youth young",
    MNEMONIC,
    PASSWORD,
    HF_TOKEN,
    API_KEY,
    SEED,
    SEED[2:],
    URL_PASSWORD,
    ENV_SECRET,
    "abandon ability",
)


@pytest.fixture
def wallets(tmp_path: Path) -> Path:
    """An operator's wallet, with a coldkey that should not be there."""
    folder = tmp_path / "wallets"
    (folder / "mine" / "hotkeys").mkdir(parents=True)
    key = {"accountId": "0x01", "ss58Address": "5F", "secretPhrase": MNEMONIC, "secretSeed": SEED}
    (folder / "mine" / "coldkey").write_text(json.dumps(key))
    (folder / "mine" / "hotkeys" / "first").write_text(json.dumps(key))
    return folder


@pytest.fixture
def env_file(tmp_path: Path) -> Path:
    path = tmp_path / "miner.env"
    path.write_text(
        f"PROXY_CLIENT_URL=https://user:{URL_PASSWORD}@proxy.example:8443/v1?api_key={API_KEY}\n"
        f"SUBTENSOR_CHAIN_ENDPOINT=wss://user:{URL_PASSWORD}@chain.example/{API_KEY}\n"
        f"BACKUP_PASSPHRASE={ENV_SECRET}\n"
    )
    return path


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A log in which someone was careless."""
    path = tmp_path / "careless.log"
    path.write_text(
        f"restored {MNEMONIC}\nopened with {PASSWORD}\nAuthorization: Bearer {API_KEY}\ntoken={HF_TOKEN}\n"
        f"connecting to https://me:{URL_PASSWORD}@hub.example/\nseed {SEED}\npassphrase {ENV_SECRET}\n"
        f"mnemonic: {STRANGE_PHRASE}\n{STRANGE_PHRASE}\nPASSPHRASE={STRANGE[0]} {STRANGE[1]}\n"
        f"roadwork-miner run --password {STRANGE[2]}\npwd={STRANGE[3]}\nAuthorization: Basic {STRANGE[4]}\n"
        f'{{"secretPhrase": "{STRANGE_PHRASE}", "password": "{STRANGE[5]} {STRANGE[5]}"}}\n'
        f"{MNEMONIC.replace(' ', '  ')}\nall is well\n"
    )
    return path


def files_of(archive: Path) -> dict[str, str]:
    found = {}
    with tarfile.open(archive) as opened:
        for member in opened.getmembers():
            file = opened.extractfile(member)
            assert file is not None
            found[member.name.split("/", 1)[1]] = file.read().decode()
    return found


def report(daemon: Daemon, archive: Path, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*daemon.command, "report", "--out", str(archive), *map(str, arguments)], capture_output=True, text=True,
        timeout=PATIENCE, env=daemon.environment | environment,
    )  # fmt: skip


@pytest.mark.parametrize("is_own", [False, True], ids=["--log", "LOG_FILE"])
def test_the_archive_has_what_helps_and_none_of_the_planted_secrets(
    start_daemon: StartDaemon, street: bytes, tmp_path: Path, wallets: Path, env_file: Path, log: Path, is_own: bool
) -> None:
    password = tmp_path / "password"
    password.write_text(PASSWORD + "\n")
    daemon = start_daemon(
        RECORDER="meta", WALLET_PATH=wallets, WALLET_NAME="mine", WALLET_HOTKEY_PASSWORD_FILE=password
    ).ready()
    probability_of(daemon.ask(street))
    eventually(lambda: daemon.metric("recorder_records_total") == 1)
    archive = tmp_path / "help.tar.gz"
    given = ("--set", f"LOG_FILE={log}") if is_own else ("--log", log)
    done = report(daemon, archive, "--env-file", env_file, *given, HF_TOKEN=HF_TOKEN)
    assert done.returncode == 0, done.stderr
    assert archive.stat().st_mode & 0o777 == 0o600

    files = files_of(archive)
    settings = json.loads(files["settings.json"])
    assert set(settings) == {name.upper() for name in Settings.model_fields}
    assert (settings["RECORDER"], settings["WALLET_NAME"], settings["QUEUE_SHARE"]) == ("meta", "mine", 0.5)
    assert settings["SUBTENSOR_CHAIN_ENDPOINT"] == "wss://chain.example"
    assert settings["WALLET_HOTKEY_PASSWORD_FILE"] == "(set, not shown)"
    findings = json.loads(files["doctor.json"])["findings"]
    assert {"settings", "hotkey", "model"} <= {finding["name"] for finding in findings}
    assert 'roadwork_miner_requests_total{outcome="ok",wire="dendrite"} 1.0' in files["metrics.txt"]
    assert json.loads(files["status.json"])["ready"] is True
    assert "onnxruntime" in json.loads(files["versions.json"])["packages"]
    assert "all is well" in files["log.txt"]
    (recorded,) = [text for name, text in files.items() if name.startswith("recorder/")]
    record = json.loads(recorded)
    assert (record["outcome"], record["hotkey"]) == ("ok", daemon.keys.miner.hotkey.ss58_address)

    own = [
        json.loads(path.read_text()) for path in (daemon.state / "wallets").rglob("hotkeys/*") if "pub" not in path.name
    ]
    keys = [key[name] for key in own for name in ("secretPhrase", "secretSeed", "privateKey") if key.get(name)]
    assert len(keys) >= 4  # throwaway ones are nobody's business either
    unpacked = gzip.decompress(archive.read_bytes()).decode("utf-8", errors="replace")
    said = unpacked + done.stdout + done.stderr
    for secret in (*PLANTED, *keys):
        assert secret not in said


def test_without_a_miner_there_is_still_something_to_send(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path, {"IMAGE_DETECTOR_CONFIG": "starter.yaml"})
    try:
        archive = tmp_path / "help.tar.gz"
        done = report(daemon, archive)
        assert done.returncode == 0, done.stderr
        files = files_of(archive)
        assert "no miner answers" in files["metrics.txt"]
        assert json.loads(files["doctor.json"])["verdict"]
        refused = report(daemon, tmp_path / "help.zip")
        assert (refused.returncode, "ends in .tar.gz is allowed" in refused.stderr) == (2, True)
    finally:
        daemon.close()
