"""Flags in settings' places: btcli's names, those of StreetVision's neurons, and who wins."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from miner import cli
from miner.cli.common import read_settings
from miner.cli.flags import ALL, FLAGS, SWITCH_FLAGS, UNUSED_FLAGS, VALUE_FLAGS, translated, unused
from miner.errors import ConfigurationError
from miner.settings.settings import Settings

HOTKEY = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("HF_")]:
        monkeypatch.delenv(name)


def config(*arguments: str) -> dict[str, Any]:
    """Return the settings that something set, by the command that every flag has."""
    done = CliRunner().invoke(cli.app, ["config", "--changed", "--json", *arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return {key: row["value"] for key, row in json.loads(done.stdout)["settings"].items()}


def fault(*arguments: str, command: str = "config") -> str:
    with pytest.raises(ConfigurationError) as caught:
        CliRunner().invoke(cli.app, [command, *arguments], catch_exceptions=False)
    return str(caught.value)


def test_btclis_flags_are_settings_here() -> None:
    assert config("--wallet", "mine", "--wallet-hotkey", "hot", "--wallet-path", "/keys", "--network", "test") == {
        "WALLET_NAME": "mine", "WALLET_HOTKEY": "hot", "WALLET_PATH": "/keys", "SUBTENSOR_NETWORK": "test",
    }  # fmt: skip
    assert config("-w", "mine", "-H", "hot", "-n", "finney", "--netuid", "72") == {
        "WALLET_NAME": "mine", "WALLET_HOTKEY": "hot", "SUBTENSOR_NETWORK": "finney", "NETUID": 72,
    }  # fmt: skip
    assert config("--wallet-name=mine", "--hotkey=hot") == {"WALLET_NAME": "mine", "WALLET_HOTKEY": "hot"}


def test_btcli_itself_has_these_names() -> None:
    """Its flags are what people know; a release that renames one shall be noticed."""
    from bittensor.cli.main import app
    from typer.main import get_command

    named = {name for option in get_command(app).params for name in option.opts}
    assert named >= {"--wallet", "-w", "--wallet-hotkey", "-H", "--wallet-path", "--network", "-n"}
    assert {name for flag in ALL for name in flag.names} >= {"--wallet", "-w", "--wallet-hotkey", "-H", "--wallet-path"}


def test_what_start_miner_sh_passes_is_understood() -> None:
    given = config(
        "--neuron.image_detector", "ViT", "--neuron.image_detector_config", "None",
        "--neuron.image_detector_device", "cuda", "--netuid", "72", "--model_url", "me/roadwork",
        "--subtensor.network", "finney", "--subtensor.chain_endpoint", "wss://node.example:443",
        "--wallet.name", "mine", "--wallet.hotkey", "hot", "--axon.port", "8099",
        "--blacklist.force_validator_permit", "False", "--logging.debug",
    )  # fmt: skip
    assert given == {
        "IMAGE_DETECTOR": "ViT", "IMAGE_DETECTOR_DEVICE": "cuda", "NETUID": 72, "MODEL_URL": "me/roadwork",
        "SUBTENSOR_NETWORK": "finney", "SUBTENSOR_CHAIN_ENDPOINT": "wss://node.example:443", "WALLET_NAME": "mine",
        "WALLET_HOTKEY": "hot", "MINER_AXON_PORT": 8099, "BLACKLIST_FORCE_VALIDATOR_PERMIT": False,
        "LOG_LEVEL": "DEBUG",
    }  # fmt: skip


@pytest.mark.parametrize("flag", VALUE_FLAGS)
def test_every_old_flag_names_a_setting(flag: str) -> None:
    assert VALUE_FLAGS[flag].lower() in Settings.model_fields
    _, given = translated([f"{flag}=x"], [])
    assert [(one.flag, one.setting) for one in given] == [(flag, VALUE_FLAGS[flag].lower())]
    assert translated([f"{flag}="], []) == ([], []), "empty, as an unset variable in quotes is: the setting stays"


@pytest.mark.parametrize(("words", "value"), [([], "true"), (["true"], "true"), (["False"], "False")])
def test_an_old_switch_means_what_it_says(words: list[str], value: str) -> None:
    kept, given = translated(["--blacklist.force_validator_permit", *words, "--set", "A=1"], [])
    assert (kept, [one.value for one in given]) == (["--set", "A=1"], [value])
    assert not {*SWITCH_FLAGS} & {*VALUE_FLAGS}


def test_old_flags_without_a_counterpart_are_all_told_at_once() -> None:
    flags = ["--wandb.off", "--neuron.video_detector_config", "--axon.max_workers", "--mock", "--neuron.epoch_length"]
    lines = fault(*flags, command="run").splitlines()
    assert [line.partition(": ")[0] for line in lines] == flags
    assert len({line.partition(": ")[2] for line in lines}) == len(flags), "each has a reason of its own"
    assert unused("--neuron.video_detector_config") == UNUSED_FLAGS["--neuron.video_detector"]
    assert unused("--mockery") is None
    assert fault("--axon.port", "--wallet.name", "mine").startswith("--axon.port: ")


def test_before_the_command_and_where_no_settings_are_read_they_are_told() -> None:
    with pytest.raises(ConfigurationError, match=r"^--wallet.name: .*--set WALLET_NAME=mine$"):
        CliRunner().invoke(cli.app, ["--wallet.name", "mine", "run"], catch_exceptions=False)
    told = fault("photos", "--subtensor.chain_endpoint", "wss://me:hunter2pw@node.example/key", command="train")
    assert "SUBTENSOR_CHAIN_ENDPOINT=wss://node.example" in told
    assert "hunter2pw" not in told


def test_a_flag_beats_set_that_the_environment_that_the_file_that_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "given.env"
    file.write_text("WALLET_NAME=of-the-file\n")
    assert config() == {}
    given = ["--env-file", str(file)]
    assert config(*given)["WALLET_NAME"] == "of-the-file"
    monkeypatch.setenv("WALLET_NAME", "of-the-environment")
    assert config(*given)["WALLET_NAME"] == "of-the-environment"
    given += ["--set", "WALLET_NAME=of-set"]
    assert config(*given)["WALLET_NAME"] == "of-set"
    assert config("--wallet", "of-the-flag", *given)["WALLET_NAME"] == "of-the-flag"
    assert config("--wallet.name", "of-the-old-flag", *given)["WALLET_NAME"] == "of-the-old-flag"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--wallet", "a", "--wallet.name", "b"), ("--wallet=a", "--wallet.name=b", "WALLET_NAME")),
        (("--logging.info", "--logging.debug"), ("--logging.info=INFO", "--logging.debug=DEBUG", "LOG_LEVEL")),
        (("--netuid", "72", "--netuid", "323"), ("--netuid=72", "--netuid=323", "NETUID")),
        (("--axon.prot", "8091"), ("--axon.prot", "--axon.port")),
        (("--wallet", ""), ("--wallet=", "WALLET_NAME")),
        (("--hotkey", HOTKEY), (f"--wallet-hotkey={HOTKEY}",)),
        (("--hotkey", "second", "--set", "WALLET_HOTKEYS=first:8091,second:8092"), ("WALLET_HOTKEYS=first:8091",)),
    ],
)
def test_flags_that_contradict_each_other_or_mean_nothing_are_refused(
    arguments: tuple[str, ...], named: tuple[str, ...]
) -> None:
    told = fault(*arguments)
    assert all(name in told for name in named), told


def test_the_same_said_twice_is_no_contradiction() -> None:
    assert config("--wallet", "a", "--wallet.name", "a", "--logging.debug", "--logging.trace") == {
        "WALLET_NAME": "a", "LOG_LEVEL": "DEBUG",
    }  # fmt: skip


def test_a_commands_own_option_keeps_its_name() -> None:
    options = {name: option for option in cli.load("query").params for name in option.opts}
    assert options["--wallet"].metavar == "NAME/HOTKEY"
    assert options["--wallet-name"].name == "wallet_name"
    assert "-w" not in options, "it would mean another thing than its long form"
    assert "--receiver" in fault("photo.jpg", "--hotkey", HOTKEY, command="query")


@pytest.mark.parametrize("command", [name for name in FLAGS if name in {*cli.COMMANDS["Serve"]}])
def test_the_flags_of_a_command_say_which_setting_they_are(command: str) -> None:
    options = {option.name: option for option in cli.load(command).params}
    for flag in FLAGS[command]:
        if flag.setting in options:
            assert f"({flag.setting.upper()}" in options[flag.setting].help
    assert {*options} & {flag.setting for flag in FLAGS[command]}


def test_a_hotkey_of_several_is_named_by_itself() -> None:
    with pytest.raises(ConfigurationError, match="WALLET_HOTKEY=second"):
        read_settings(None, ["WALLET_HOTKEYS=first:8091,second:8092", "WALLET_HOTKEY=second"])
    alone = read_settings(None, ["WALLET_HOTKEYS=", "WALLET_HOTKEY=second"])
    assert (alone.wallet_hotkey, alone.wallet_hotkeys) == ("second", "")
