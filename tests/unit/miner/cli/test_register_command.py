"""`roadwork-miner register`: what it sends, what it keeps, and how it ends; a server that speaks NATIX's words."""

import json
from collections.abc import Iterator
from pathlib import Path

import bittensor
import pytest
from bittensor.keyfiles import Keypair
from click.testing import Result
from typer.testing import CliRunner

from miner.cli import app
from miner.errors import ConfigurationError, CouldNotStart
from miner.natix import server as module
from miner.natix.registration import Registrations
from tests.natix import Answer, Natix, serving
from tests.process.daemon import free_port

PASSWORD = "correct horse"
UID = 7

pytestmark = pytest.mark.slow  # keys are made, and one is encrypted


@pytest.fixture
def natix() -> Iterator[Natix]:
    with serving(Natix()) as natix:
        yield natix


@pytest.fixture(scope="module")
def wallets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wallet of two hotkeys, of which the second is encrypted."""
    folder = tmp_path_factory.mktemp("wallets")
    for name, more in (("first", {"use_password": False}), ("second", {"hotkey_password": PASSWORD})):
        bittensor.Wallet("miner", name, str(folder)).create_new_hotkey(suppress=True, **more)
    (folder / "password").write_text(PASSWORD)
    return folder


class Operator:
    """Calls the command with a settings file of its own."""

    def __init__(self, folder: Path, wallets: Path, natix: Natix, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "POLL_SECONDS", 0.01)
        self.state = folder / "state"
        self.settings = {
            "SUBTENSOR_NETWORK": "finney", "NETUID": 72, "WALLET_NAME": "miner", "WALLET_HOTKEY": "first",
            "WALLET_PATH": wallets, "STATE_DIR": self.state, "NATIX_URL": natix.url,
            "MODEL_URL": "https://huggingface.co/you/roadwork", "WALLET_HOTKEY_PASSWORD_FILE": wallets / "password",
        }  # fmt: skip
        self.file = folder / "miner.env"

    def call(self, *arguments: str, uid: int | None = UID) -> Result:
        self.file.write_text("".join(f"{name}={value}\n" for name, value in self.settings.items()))
        given = ["--uid", str(uid)] if uid is not None else []
        return CliRunner().invoke(app, ["register", "--env-file", str(self.file), *given, *arguments])

    def kept(self, hotkey: str) -> dict[str, object]:
        found = Registrations(self.state).of(hotkey)
        return found.model_dump(include={"progress", "uid", "netuid", "model_repo", "words"}) if found else {}


@pytest.fixture
def operator(tmp_path: Path, wallets: Path, natix: Natix, monkeypatch: pytest.MonkeyPatch) -> Operator:
    return Operator(tmp_path, wallets, natix, monkeypatch)


def hotkey(wallets: Path, name: str) -> str:
    password = PASSWORD if name == "second" else None
    return bittensor.Wallet("miner", name, str(wallets)).get_hotkey(password).ss58_address


def test_a_registration_is_sent_once_and_waited_for(operator: Operator, natix: Natix, wallets: Path) -> None:
    natix.states = [Answer({"status": word}) for word in ("pending", "queued", "processing", "succeeded")]
    done = operator.call()
    assert done.exit_code == 0, done.output
    (body,) = natix.registered
    own = hotkey(wallets, "first")
    assert (body["uid"], body["type"], body["model_repo"]) == (str(UID), "miner", "you/roadwork")
    assert body["natix_public_key"] == own
    assert Keypair(ss58_address=own).verify(body["message"].encode(), bytes.fromhex(body["natix_signature"]))
    assert operator.kept(own) == {
        "progress": "succeeded", "uid": UID, "netuid": 72, "model_repo": "you/roadwork", "words": ""
    }  # fmt: skip
    assert [line.partition(":")[0] for line in done.stderr.splitlines()][-4:] == ["pending"] * 3 + ["succeeded"]


@pytest.mark.parametrize(
    ("reply", "states", "progress", "words"),
    [
        (None, [{"status": "failed", "error_message": "no card"}], "failed", "no card"),
        (None, [{"status": "error", "error_message": "no card"}], "failed", "no card"),
        (Answer({"detail": "uid is taken"}, 409), [], "failed", "uid is taken"),
        (Answer({"detail": "wrong"}, 401), [{"status": "succeeded"}], "failed", "wrong"),
        (None, [{"status": "queued"}], "pending", "queued"),
    ],
)
def test_one_that_did_not_succeed_ends_with_1(
    operator: Operator, natix: Natix, wallets: Path,
    reply: Answer | None, states: list[object], progress: str, words: str,
) -> None:  # fmt: skip
    natix.reply, natix.states = reply, [Answer(state) for state in states]
    done = operator.call("--timeout", "0.05")
    assert done.exit_code == 1, done.output
    assert words in done.stdout
    kept = operator.kept(hotkey(wallets, "first"))
    assert (kept["progress"], kept["words"]) == (progress, words)


def test_the_status_is_asked_without_sending_anything(operator: Operator, natix: Natix, wallets: Path) -> None:
    done = operator.call("--status")
    assert done.exit_code == 0, done.output
    assert (natix.registered, natix.asked) == ([], [f"/participants/registration-status/{UID}"])
    assert operator.kept(hotkey(wallets, "first"))["progress"] == "succeeded"
    assert "roadwork-miner register" in done.stdout, "the server's word may be about who had the uid before"
    natix.states = [Answer({"detail": "Not found"}, 404)]
    assert operator.call("--status").exit_code == 1
    assert natix.registered == []
    assert operator.kept(hotkey(wallets, "first"))["progress"] == "absent"


def test_the_status_of_another_uid_leaves_what_is_kept_of_ours(operator: Operator, natix: Natix, wallets: Path) -> None:
    operator.call()
    before = operator.kept(hotkey(wallets, "first"))
    done = operator.call("--status", uid=UID + 1)
    assert done.exit_code == 0, done.output
    assert f"is of uid {UID}" in done.stdout
    assert operator.kept(hotkey(wallets, "first")) == before
    natix.states = [Answer({"detail": "Not found"}, 404)]
    assert operator.call("--status", uid=UID + 1).exit_code == 1
    assert operator.kept(hotkey(wallets, "first")) == before


def test_a_success_after_a_refusal_is_doubted(operator: Operator, natix: Natix, wallets: Path) -> None:
    natix.reply = Answer({"detail": "Invalid signature"}, 401)
    refused = operator.call()
    assert refused.exit_code == 1
    assert "register --status" in refused.stdout, "what it has of the uid may be ours, by another program"
    assert operator.call("--status").exit_code == 0
    found = Registrations(operator.state).of(hotkey(wallets, "first"))
    assert found is not None
    assert (found.progress, found.sent) == ("succeeded", None)


def test_one_that_another_program_sent_counts_where_ours_conflicts(
    operator: Operator, natix: Natix, wallets: Path
) -> None:
    natix.reply = Answer({"detail": "Participant already registered"}, 409)
    natix.states = [Answer({"status": word}) for word in ("pending", "pending", "succeeded")]
    done = operator.call()
    assert done.exit_code == 0, done.output
    assert "Participant already registered" in done.stdout
    found = Registrations(operator.state).of(hotkey(wallets, "first"))
    assert found is not None
    assert (found.progress, found.sent) == ("succeeded", None)
    assert json.loads(operator.call("--json").stdout)["refusal"] == "Participant already registered"
    natix.states = [Answer({"detail": "Not found"}, 404)]
    assert operator.call("--json").exit_code == 1


def test_a_dry_run_prints_the_request_and_sends_nothing(operator: Operator, natix: Natix, wallets: Path) -> None:
    done = operator.call("--dry-run", "--json", "--model-repo", "you/other")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert (told["method"], told["url"]) == ("POST", f"{natix.url}/participants/register")
    own = hotkey(wallets, "first")
    assert (told["body"]["natix_public_key"], told["body"]["model_repo"]) == (own, "you/other")
    first, _, body = operator.call("--dry-run").stdout.partition("\n")
    assert first == f"POST {natix.url}/participants/register"
    assert json.loads(body)["uid"] == str(UID)
    asked = operator.call("--dry-run", "--status").stdout
    assert asked == f"GET {natix.url}/participants/registration-status/{UID}\n"
    assert (natix.registered, natix.asked, operator.state.exists()) == ([], [], False)


def test_json_says_what_was_said(operator: Operator, natix: Natix, wallets: Path) -> None:
    told = json.loads(operator.call("--json").stdout)
    assert (told["hotkey"], told["uid"], told["progress"]) == (hotkey(wallets, "first"), UID, "succeeded")
    natix.reply = Answer({"detail": "model is private"}, 400)
    again = operator.call("--json")
    told = json.loads(again.stdout)
    assert (again.exit_code, told["progress"], told["words"]) == (1, "failed", "model is private")
    assert operator.kept(hotkey(wallets, "first"))["progress"] == "succeeded", "the first one holds"
    natix.states = [Answer({"detail": "Not found"}, 404)]
    assert json.loads(operator.call("--status", "--json").stdout)["progress"] is None


def test_of_several_hotkeys_one_is_registered_encrypted_or_not(operator: Operator, natix: Natix, wallets: Path) -> None:
    operator.settings["WALLET_HOTKEYS"] = "first:8091,second:8092"
    done = operator.call()
    assert "--key second" in done.stdout
    assert operator.call("--key", "second", uid=9).exit_code == 0
    first, second = hotkey(wallets, "first"), hotkey(wallets, "second")
    assert [body["natix_public_key"] for body in natix.registered] == [first, second]
    assert (operator.kept(first)["uid"], operator.kept(second)["uid"]) == (UID, 9)


def test_whether_a_registration_arrived_is_left_open_where_no_answer_came(
    operator: Operator, natix: Natix, wallets: Path
) -> None:
    natix.reply = Answer({}, 503)
    failed = operator.call()
    assert isinstance(failed.exception, CouldNotStart)
    assert "503" in str(failed.exception)
    assert "register --status" in str(failed.exception)
    assert operator.kept(hotkey(wallets, "first")) == {}
    operator.settings["NATIX_URL"] = f"http://127.0.0.1:{free_port()}"
    assert isinstance(operator.call().exception, CouldNotStart)


def test_waiting_that_is_in_vain_leaves_what_was_sent(operator: Operator, natix: Natix, wallets: Path) -> None:
    natix.states = [Answer({}, 500)]
    failed = operator.call("--timeout", "0.05")
    assert isinstance(failed.exception, CouldNotStart)
    assert operator.kept(hotkey(wallets, "first"))["progress"] == "pending"


@pytest.mark.parametrize(
    ("settings", "arguments", "named"),
    [
        ({"MODEL_URL": ""}, [], "MODEL_URL="),
        ({"MODEL_URL": "https://example.org/mine"}, [], "MODEL_URL=https://example.org:"),
        ({}, ["--model-repo", "mine"], "--model-repo=mine"),
        ({"NATIX_URL": "hydra.natix.network"}, [], "NATIX_URL=hydra.natix.network"),
        ({"NATIX_URL": "http://[::1"}, [], "NATIX_URL="),
        ({"NATIX_URL": "http://host:99999"}, [], "NATIX_URL="),
        ({"WALLET_HOTKEY": "third"}, [], "WALLET_HOTKEY=third"),
        ({"SUBTENSOR_NETWORK": "standalone"}, [], "SUBTENSOR_NETWORK=standalone"),
        ({"SUBTENSOR_NETWORK": "standalone"}, ["--dry-run"], "--uid"),
        ({"WALLET_HOTKEY": "second", "WALLET_HOTKEY_PASSWORD_FILE": ""}, [], "WALLET_HOTKEY_PASSWORD_FILE"),
    ],
)
def test_what_is_wrong_is_named_before_anything_is_sent(
    operator: Operator, natix: Natix, settings: dict[str, object], arguments: list[str], named: str
) -> None:
    operator.settings |= settings
    failed = operator.call(*arguments, uid=None if named == "--uid" else UID)
    assert isinstance(failed.exception, ConfigurationError), failed.output
    assert named in str(failed.exception)
    assert (natix.registered, natix.asked) == ([], [])


def test_a_state_folder_that_can_not_be_written_hides_no_answer(operator: Operator, natix: Natix) -> None:
    operator.state.write_text("a file")
    done = operator.call()
    assert done.exit_code == 0, done.output
    assert len(natix.registered) == 1
