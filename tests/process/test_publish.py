"""`roadwork-miner publish` and a hub that speaks the real one's API; then a miner that serves what was published."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import bittensor
import pytest
from dotenv import dotenv_values

from tests.hub import COMMIT, Hub, Refusal, serving
from tests.process.conftest import StartDaemon
from tests.process.daemon import NOWHERE, PATIENCE, clean_environment, free_port
from tests.process.inspection import probability_of
from tests.stored_vit import write_stored_vit

REPOSITORY, TOKEN = "you/roadwork", "hf_written"
URL = f"https://huggingface.co/{REPOSITORY}"
PIECES = {"config.json", "preprocessor_config.json", "model.safetensors", "model_card.json", "README.md"}


@pytest.fixture(scope="module")
def wallets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wallets")
    bittensor.Wallet("miner", "hot", str(folder)).create_new_hotkey(use_password=False, suppress=True)
    return folder


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serving(Hub({}, repository=REPOSITORY, exists=False, token=TOKEN)) as hub:
        yield hub


class Publisher:
    """An operator with a model folder in which more lies than the model."""

    def __init__(self, folder: Path, wallets: Path, hub: Hub) -> None:
        self.folder, self.hub = folder, hub
        self.model = write_stored_vit(folder / "vit")
        for name in ("street.jpg", "predictions.npz", "optimizer.pt", "README.md", ".env", "results.csv"):
            (self.model / name).write_text("HF_TOKEN=hf_secret, and a photo")
        self.hotkey = bittensor.Wallet("miner", "hot", str(wallets)).hotkey.ss58_address
        self.settings = folder / "mine.env"
        self.settings.write_text(
            f"# of mine\nSUBTENSOR_NETWORK=finney\nNETUID=72\nWALLET_NAME=miner\nWALLET_HOTKEY=hot\n"
            f"WALLET_PATH={wallets}\nMODEL_URL=  # none yet\nSTATE_DIR={folder / 'state'}\nHF_TOKEN={TOKEN}"
        )

    def call(
        self, *arguments: str, repo: str = REPOSITORY, settings: Path | None = Path("mine.env"), **environment: str
    ) -> "subprocess.CompletedProcess[str]":
        values = {"HF_ENDPOINT": self.hub.url, "HF_HOME": str(self.folder / "home"), "HF_HUB_OFFLINE": "0"}
        given = clean_environment(**(values | environment))
        given = {key: value for key, value in given.items() if key != "HF_TOKEN" or "HF_TOKEN" in environment}
        file = ["--env-file", str(self.folder / settings)] if settings is not None else []
        command = ["publish", str(self.model), "--repo", repo, *file, *arguments]
        done = subprocess.run(
            [sys.executable, "-m", "miner", *command],
            env=given, capture_output=True, text=True, timeout=PATIENCE, cwd=self.folder, check=False,
        )  # fmt: skip
        assert "Traceback" not in done.stderr, done.stderr
        assert TOKEN not in done.stdout + done.stderr
        return done

    def succeeds(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        done = self.call(*arguments)
        assert done.returncode == 0, done.stderr
        return done

    @property
    def card(self) -> dict[str, object]:
        return json.loads(self.hub.files["model_card.json"])  # type: ignore[no-any-return]


@pytest.fixture
def publisher(tmp_path: Path, wallets: Path, hub: Hub) -> Publisher:
    return Publisher(tmp_path, wallets, hub)


def test_from_a_folder_to_a_miner_that_serves_what_was_published(
    publisher: Publisher, hub: Hub, start_daemon: StartDaemon, street: bytes
) -> None:
    publisher.settings.chmod(0o640)
    publisher.succeeds("--license", "mit", "--set-env", "--name", "Roadwork of mine", "--description", "Finds roadwork")
    assert set(hub.files) == PIECES
    assert hub.files["model.safetensors"] == (publisher.model / "model.safetensors").read_bytes()
    card = publisher.card
    assert isinstance(card.pop("submission_time"), int)
    assert card == {
        "model_name": "Roadwork of mine", "description": "Finds roadwork", "version": "1.0.0",
        "submitted_by": publisher.hotkey,
    }  # fmt: skip
    assert len(hub.commits) == 1
    assert (hub.is_private, hub.exists) == (False, True)
    everything = b"".join(hub.files.values())
    for secret in (TOKEN, "hf_secret", "and a photo", str(publisher.folder), os.uname().nodename):
        assert secret.encode() not in everything
    lines = publisher.settings.read_text().splitlines()
    assert lines[6] == f"MODEL_URL={URL}  # none yet"
    assert (lines[0], lines[-1], len(lines)) == ("# of mine", f"HF_TOKEN={TOKEN}", 9)
    assert publisher.settings.stat().st_mode & 0o777 == 0o640

    url = str(dotenv_values(publisher.settings)["MODEL_URL"])
    yaml = publisher.folder / "published.yaml"
    yaml.write_text(f"hf_repo: {url.removeprefix('https://huggingface.co/')}\n")
    daemon = start_daemon(
        HF_ENDPOINT=hub.url, HF_HOME=publisher.folder / "home", HF_HUB_OFFLINE=0, HF_TOKEN="",
        IMAGE_DETECTOR_CONFIG=yaml, MODELS_DIR=publisher.folder / "models", MODEL_URL=url,
    ).ready()  # fmt: skip
    answer = daemon.ask(street)
    assert 0 <= probability_of(answer) <= 1
    assert URL in answer.text
    assert daemon.page("/status").json()["model"]["revision"] == hub.head


def test_versions_follow_the_last_published_one(publisher: Publisher, hub: Hub) -> None:
    publisher.succeeds()
    told = json.loads(publisher.succeeds("--json").stdout)
    assert (told["card"]["version"], told["model_url"], set(told["files"])) == ("1.0.1", URL, PIECES)
    publisher.succeeds("--version", "2.0.0")
    publisher.succeeds()
    assert publisher.card["version"] == "2.0.1"
    lower = publisher.call("--version", "2.0.0")
    assert (lower.returncode, "2.0.1" in lower.stderr) == (2, True)
    assert len(hub.commits) == 4


def test_what_is_on_the_hub_is_looked_at_first(publisher: Publisher, hub: Hub) -> None:
    theirs = {"model_name": "a", "description": "b", "version": "3.0.0", "submitted_by": "5F", "submission_time": 1}
    stale = dict.fromkeys(("model-00001-of-00002.safetensors", "model.safetensors.index.json", "view_head.json"), b"{}")
    own = {"README.md": b"# written by hand", "model_card.json": json.dumps(theirs).encode(), "notes.txt": b"kept"}
    hub.exists, hub.files = True, own | stale
    done = publisher.succeeds()
    assert "5F" in done.stderr
    assert publisher.card["version"] == "3.0.1"
    assert set(hub.files) == PIECES | {"notes.txt"}, "weights of before would be read in place of the new ones"
    assert hub.files["README.md"] == b"# written by hand"
    hub.files = dict(hub.files) | {"model_card.json": b"<html>"}
    publisher.succeeds()
    assert publisher.card["version"] == "1.0.0"


def test_what_the_hub_has_can_not_write_on_the_terminal_and_may_be_long(publisher: Publisher, hub: Hub) -> None:
    theirs = {"model_name": "a", "description": "b", "version": "3.0.0", "submission_time": 1}
    named = json.dumps(theirs | {"submitted_by": "\x1b[31mred\nFAKE"}).encode()
    long = b"# written by hand" + b"x" * 300_000
    hub.exists, hub.files = True, {"model_card.json": named, "README.md": long}
    done = publisher.succeeds()
    assert "\x1b" not in done.stderr
    assert "FAKE" not in [line[:4] for line in done.stderr.splitlines()]
    assert hub.files["README.md"] == long
    hub.files = dict(hub.files) | {"model_card.json": b" " * 300_000}
    assert publisher.call().returncode == 3


def test_a_settings_file_that_can_not_be_written_is_told_before_anything_is_sent(
    publisher: Publisher, hub: Hub
) -> None:
    publisher.settings.with_name("mine.env.partial").mkdir()
    done = publisher.call("--set-env")
    assert (done.returncode, "mine.env" in done.stderr) == (2, True)
    assert (hub.files, hub.asked) == ({}, [])


def test_one_that_turns_bad_meanwhile_hides_nothing_of_what_was_published(publisher: Publisher, hub: Hub) -> None:
    take = hub.commit

    def commit(lines: list[dict[str, object]]) -> None:
        take(lines)
        publisher.settings.with_name("mine.env.partial").mkdir()

    hub.commit = commit  # type: ignore[method-assign]
    done = publisher.call("--set-env")
    assert done.returncode == 3
    assert f"/commit/{hub.head}" in done.stdout
    assert f"MODEL_URL={URL}" in done.stderr


def test_a_setting_that_would_not_count_is_not_written(publisher: Publisher, hub: Hub) -> None:
    before = publisher.settings.read_text()
    done = publisher.call("--set-env", MODEL_URL="https://huggingface.co/old/one")
    assert (done.returncode, "MODEL_URL" in done.stderr) == (2, True)
    others = publisher.folder / "miner.env"
    others.write_text(before)
    done = publisher.call("--set-env", "--no-env-file", settings=None, SUBTENSOR_NETWORK="finney", NETUID="72")
    assert (done.returncode, "--no-env-file" in done.stderr) == (2, True)
    assert (others.read_text(), publisher.settings.read_text(), hub.asked) == (before, before, [])


REFUSED = Refusal(403, "", "You don't have the rights to create a model under the namespace someone")
AWAY = Refusal(503, "", "Service unavailable")
FAULTS = {
    "a wrong token": ({"HF_TOKEN": "hf_wrong"}, {}, "Invalid credentials"),
    "a token that reads": ({}, {"role": "read"}, "can only read"),
    "somebody's namespace": ({}, {"faults": {"/api/repos/create": REFUSED}}, "rights to create"),
    "a private repository": ({}, {"exists": True, "is_private": True}, "private"),
    "away at the upload": ({}, {"faults": {"/objects/batch": AWAY}}, "503"),
    "away at the commit": ({}, {"faults": {"/commit/main": AWAY}}, "503"),
    "no network allowed": ({"HF_HUB_OFFLINE": "1"}, {}, "HF_HUB_OFFLINE"),
    "nobody there": ({"HF_ENDPOINT": f"http://127.0.0.1:{free_port()}"}, {}, "can't be reached"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_a_refusal_is_one_line_that_says_what_to_do(publisher: Publisher, hub: Hub, case: str) -> None:
    environment, changes, named = FAULTS[case]
    for name, value in changes.items():
        setattr(hub, name, value)
    before = publisher.settings.read_text()
    done = publisher.call("--set-env", **environment)
    assert done.returncode == 3, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert named in line
    assert (hub.files, hub.commits) == ({}, [])
    assert publisher.settings.read_text() == before


def test_without_a_token_nobody_is_asked(publisher: Publisher, hub: Hub) -> None:
    publisher.settings.write_text(publisher.settings.read_text().replace(f"HF_TOKEN={TOKEN}", ""))
    done = publisher.call()
    assert done.returncode == 3
    assert "HF_TOKEN" in done.stderr
    assert hub.asked == []


def test_a_dry_run_writes_the_folder_and_needs_no_hub(publisher: Publisher, hub: Hub) -> None:
    out = publisher.folder / "out"
    done = publisher.call("--dry-run", "--out", str(out), HF_ENDPOINT=NOWHERE, HF_HUB_OFFLINE="1")
    assert done.returncode == 0, done.stderr
    assert {path.name for path in out.iterdir()} == PIECES
    assert json.loads((out / "model_card.json").read_text())["submitted_by"] == publisher.hotkey
    assert hub.asked == []
    (out / "model_card.json").unlink()
    publisher.succeeds("--dry-run", "--out", str(out))
    assert {path.name for path in out.iterdir()} == PIECES, "it is our own"
    (out / "notes.txt").touch()
    assert publisher.call("--dry-run", "--out", str(out)).returncode == 2


def test_a_dry_run_goes_into_a_folder_of_the_repositorys_name(publisher: Publisher) -> None:
    out = publisher.folder / REPOSITORY.split("/")[1]
    publisher.succeeds("--dry-run")
    assert {path.name for path in out.iterdir()} == PIECES
    (out / "README.md").write_text("my own")
    assert publisher.call("--dry-run").returncode == 2
    assert (out / "README.md").read_text() == "my own"


@pytest.mark.parametrize(
    ("arguments", "repo", "named"),
    [
        ([], "roadwork", "--repo=roadwork"),
        ([], URL, "--repo="),
        (["--dry-run", "--out", "vit"], REPOSITORY, "--out=vit"),
        (["--dry-run", "--out", "mine.env"], REPOSITORY, "--out=mine.env"),
        (["--out", "there"], REPOSITORY, "--dry-run"),
        (["--version", "1.2"], REPOSITORY, "--version=1.2"),
        (["--set", "SUBTENSOR_NETWORK=standalone"], REPOSITORY, "SUBTENSOR_NETWORK=standalone"),
        (["--set", "WALLET_HOTKEY=other"], REPOSITORY, "WALLET_HOTKEY=other"),
    ],
)
def test_what_is_wrong_is_named_and_nothing_is_sent(
    publisher: Publisher, hub: Hub, arguments: list[str], repo: str, named: str
) -> None:
    done = publisher.call(*arguments, repo=repo)
    assert done.returncode == 2, done.stderr
    assert named in done.stderr
    assert [one for one in hub.asked if not one.startswith("GET ")] == []
    assert hub.head == COMMIT
