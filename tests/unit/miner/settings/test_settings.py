"""Where settings come from, and what is said about wrong ones."""

import re
from pathlib import Path

import pytest

from detectors.errors import NoConfig
from detectors.models.config import read_config
from miner.cli.common import read_settings
from miner.errors import ConfigurationError
from miner.settings.env_file import secrets_of_environment
from miner.settings.settings import Settings, environment_of, setting_names

ORIGINAL = """\
# StreetVision Miner Configuration
#--------------------
IMAGE_DETECTOR=ViT
IMAGE_DETECTOR_CONFIG=ViT_roadwork.yaml
VIDEO_DETECTOR=TALL
VIDEO_DETECTOR_CONFIG=tall.yaml

# Device Settings
IMAGE_DETECTOR_DEVICE=cpu # Options: cpu, cuda
VIDEO_DETECTOR_DEVICE=cpu

NETUID=323                           # 323 for testnet, 72 for mainnet
SUBTENSOR_NETWORK=test               # Networks: finney, test, local
SUBTENSOR_CHAIN_ENDPOINT=wss://test.finney.opentensor.ai:443
                                     # Endpoints:
                                     # - wss://entrypoint-finney.opentensor.ai:443

# Wallet Configuration
WALLET_NAME=
WALLET_HOTKEY=

# Miner Settings
MINER_AXON_PORT=8091
BLACKLIST_FORCE_VALIDATOR_PERMIT=True # Force validator permit for blacklisting

# Miner details
MODEL_URL= # The URL to your Hugging-face repository
PROXY_CLIENT_URL=https://hydra.natix.network
"""


@pytest.fixture
def env_file(tmp_path: Path) -> Path:
    return tmp_path / "miner.env"


def test_the_original_miner_env_works_as_it_is(env_file: Path) -> None:
    env_file.write_text(ORIGINAL)
    settings = Settings.load(env_file)
    assert (settings.netuid, settings.subtensor_network) == (323, "test")
    assert settings.chain_address == "wss://test.finney.opentensor.ai:443"
    assert settings.detector_config == "ViT_roadwork.yaml"
    assert settings.wallet_name == "default"  # empty means not set
    assert settings.model_url == ""
    assert settings.blacklist_force_validator_permit is True
    (note,) = settings.notes(env_file)
    assert "VIDEO_DETECTOR" in note
    assert "PROXY_CLIENT_URL" in note
    assert "unused" in note


@pytest.mark.parametrize(("text", "meaning"), [("True", True), ("False", False), ("0", False), ("yes", True)])
def test_false_means_false(env_file: Path, text: str, meaning: bool) -> None:
    env_file.write_text(f"BLACKLIST_FORCE_VALIDATOR_PERMIT={text}   # a comment\n")
    assert Settings.load(env_file).blacklist_force_validator_permit is meaning


def test_flag_beats_environment_beats_file_beats_default(env_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings.load().netuid == 323
    env_file.write_text("NETUID=1\n")
    assert Settings.load(env_file).netuid == 1
    monkeypatch.setenv("NETUID", "2")
    assert Settings.load(env_file).netuid == 2
    assert Settings.load(env_file, netuid="3").netuid == 3
    assert Settings.load(env_file, netuid=None).netuid == 2  # a flag that was not given


def test_all_faults_are_said_at_once_with_key_value_and_what_is_allowed(env_file: Path) -> None:
    env_file.write_text("NETUID=70000\nIMAGE_DETECTOR=Vitt\nSUBTENSOR_NETWORK=mainnet\nIMAGE_DETECTOR_DEVICE=tpu\n")
    with pytest.raises(ConfigurationError) as caught:
        Settings.load(env_file, miner_axon_port="http", subtensor_chain_endpoint="https://x")
    lines = str(caught.value).splitlines()
    assert len(lines) == 6
    for key, value, allowed in [
        ("NETUID", "70000", "65535"),
        ("IMAGE_DETECTOR", "Vitt", "ViT, YOLOClassifier"),
        ("SUBTENSOR_NETWORK", "mainnet", "standalone, local, test, finney"),
        ("IMAGE_DETECTOR_DEVICE", "tpu", "cpu"),
        ("MINER_AXON_PORT", "http", "integer"),
        ("SUBTENSOR_CHAIN_ENDPOINT", "https://x", "wss://"),
    ]:
        (line,) = (line for line in lines if line.startswith(f"{key}={value}: "))
        assert allowed in line
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("key", "value", "line"),
    [
        (
            "subtensor_network",
            "alice:hunter2pw@node.example:944/APIKEY123",
            "SUBTENSOR_NETWORK=(hidden): allowed: stand",
        ),
        (
            "subtensor_network",
            "https://alice:hunter2pw@node.example/APIKEY123",
            "SUBTENSOR_NETWORK=https://node.example: ",
        ),
        (
            "subtensor_chain_endpoint",
            "https://node.example/APIKEY123",
            "SUBTENSOR_CHAIN_ENDPOINT=https://node.example: ",
        ),
        ("remote_endpoints", "http://one:1, hunter2pw@two/APIKEY123", "REMOTE_ENDPOINTS=http://one:1,(hidden): "),
        ("netuid", "ws://alice:hunter2pw@node.example/APIKEY123", "NETUID=ws://node.example: "),
    ],
)
def test_a_wrong_address_is_named_without_its_secrets(key: str, value: str, line: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Settings.load(**{key: value})  # type: ignore[arg-type]
    said = str(caught.value)
    assert said.startswith(line)
    assert "hunter2pw" not in said
    assert "APIKEY123" not in said


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"axon_external_ip": "foo"}, "AXON_EXTERNAL_IP=foo: "),
        ({"miner_axon_port": "9464"}, "STATUS_PORT=9464: .*MINER_AXON_PORT;"),
        ({"status_port": "8091"}, "STATUS_PORT=8091: .*MINER_AXON_PORT;"),
        ({"wallet_hotkeys": "a:9464,b:9465"}, "STATUS_PORT=9464: .*WALLET_HOTKEYS"),
        ({"deadline_cap_seconds": "3", "deadline_margin_seconds": "3"}, "DEADLINE_MARGIN_SECONDS=3: .* 3 "),
        ({"deadline_cap_seconds": "0.5"}, "DEADLINE_MARGIN_SECONDS=0.5: .* 0.5 "),
        ({"deadline_margin_seconds": "9.5"}, "DEADLINE_MARGIN_SECONDS=9.5: .* 9 "),
    ],
)
def test_settings_that_do_not_go_together_are_faults_like_others(given: dict[str, str], line: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Settings.load(**given, netuid="many")
    lines = str(caught.value).splitlines()
    assert len(lines) == 2, "with all other faults at once"
    assert any(re.match(line, told) for told in lines), lines


@pytest.mark.parametrize(
    "given",
    [
        {"miner_axon_host": "10.0.0.1", "miner_axon_port": "9464"},  # on another address
        {"miner_axon_port": "9464", "wallet_hotkeys": "a:8091,b:8092"},  # which take its place
        {"axon_external_ip": "2001:db8::7"},
        {"axon_external_ip": ""},
        {"deadline_cap_seconds": "3", "deadline_margin_seconds": "2"},
    ],
)
def test_settings_that_do_go_together(given: dict[str, str]) -> None:
    Settings.load(**given)


def test_the_deadline_has_another_name(env_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    env_file.write_text("REQUEST_DEADLINE=7\n")
    settings = Settings.load(env_file)
    assert settings.deadline_cap_seconds == 7
    assert settings.notes(env_file) == []
    assert environment_of(settings)["DEADLINE_CAP_SECONDS"] == "7.0"
    monkeypatch.setenv("DEADLINE_CAP_SECONDS", "8")
    assert Settings.load(env_file).deadline_cap_seconds == 8, "the environment wins under either name"
    assert read_settings(env_file, ["REQUEST_DEADLINE=6"]).deadline_cap_seconds == 6


def test_wrong_assignments_are_said_at_once_with_the_nearest_match(env_file: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read_settings(None, ["NETUIDS=5", "QUEUE_DEPHT=3", "NETUID", "STATUS_PORT=0"])
    wanted = [
        "--set NETUIDS=5: .*NETUID[?]",
        "--set QUEUE_DEPHT=3: .*QUEUE_DEPTH[?]",
        "--set NETUID: NETUID=VALUE .*",
        "STATUS_PORT=0: .* 1",
    ]
    assert [re.fullmatch(*pair) is not None for pair in zip(wanted, str(caught.value).splitlines(), strict=True)] == [
        True
    ] * 4


def test_the_hubs_own_keys_reach_the_hub_and_our_children(env_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("HF_HOME", "HF_TOKEN"):
        monkeypatch.setenv(key, "of the environment")  # and taken back at the end, whatever is set meanwhile
    monkeypatch.delenv("HF_HOME")
    env_file.write_text("HF_HOME=/of/the/file   # a comment\nHF_TOKEN=of the file\n")
    settings = read_settings(env_file, None)
    assert settings.notes(env_file) == []
    given = environment_of(settings)
    assert (given["HF_HOME"], given["HF_TOKEN"]) == ("/of/the/file", "of the environment")


def test_a_remote_backend_needs_endpoints(env_file: Path) -> None:
    env_file.write_text("IMAGE_DETECTOR_BACKEND=remote\n")
    with pytest.raises(ConfigurationError, match=r"^REMOTE_ENDPOINTS=: with IMAGE_DETECTOR_BACKEND=remote at least"):
        Settings.load(env_file)
    with pytest.raises(ConfigurationError, match=r"^REMOTE_ENDPOINTS=box:8000: .* is none$"):
        Settings.load(env_file, remote_endpoints="box:8000")
    assert Settings.load(env_file, remote_endpoints="http://box:8000").is_remote


def test_an_unknown_key_is_a_warning_with_the_nearest_match(env_file: Path) -> None:
    env_file.write_text("MINER_AXON_PROT=8091\nSOMETHING_ELSE=1\n")
    notes = Settings.load(env_file).notes(env_file)
    assert any("MINER_AXON_PROT" in note and "did you mean MINER_AXON_PORT?" in note for note in notes)
    assert any("SOMETHING_ELSE" in note and "did you mean" not in note for note in notes)


@pytest.mark.parametrize("device", ["cuda", "auto", "CUDA", "cuda:0", "cuda:1", "gpu", "GPU:1", "mps"])
def test_other_devices_fall_back_to_the_cpu_and_say_so(env_file: Path, device: str) -> None:
    env_file.write_text(f"IMAGE_DETECTOR_DEVICE={device}\n")
    (note,) = Settings.load(env_file).notes(env_file)
    assert "using cpu" in note


@pytest.mark.parametrize(
    ("host", "notes"), [("127.0.0.1", 1), ("::1", 1), ("localhost", 1), ("0.0.0.0", 0), ("box", 0)]
)
def test_publishing_a_port_that_nobody_reaches_is_said(host: str, notes: int) -> None:
    settings = Settings.load(publish_metrics="true", status_host=host)
    found = [note for note in settings.notes() if note.startswith("PUBLISH_METRICS ")]
    assert [f"STATUS_HOST={host}" in note for note in found] == [True] * notes


def test_a_missing_env_file_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"^--env-file=.*nowhere\.env: "):
        Settings.load(tmp_path / "nowhere.env")


def test_settings_can_not_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings.load().netuid = 5  # type: ignore[misc]


def test_several_hotkeys_are_settings_for_each(tmp_path: Path) -> None:
    settings = Settings.load(wallet_hotkeys=" first:8091, second:8092", wallet_hotkey_file=tmp_path / "hotkey")
    first, second = settings.each_key()
    assert [(one.wallet_hotkey, one.miner_axon_port) for one in (first, second)] == [("first", 8091), ("second", 8092)]
    assert second.wallet_hotkey_file == tmp_path / "hotkey_second", "as systemd names a folder's credentials"
    assert settings.of_key(None) == first
    assert settings.of_key("second") == second
    assert second.each_key() == [second]
    with pytest.raises(ConfigurationError, match=r"--key=third: .*first, second"):
        settings.of_key("third")


def test_a_hotkey_alone_means_what_it_always_meant() -> None:
    settings = Settings.load(wallet_hotkey="mine", miner_axon_port=8095)
    assert settings.each_key() == [settings]
    assert settings.of_key(None) is settings


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("first", "'first' is none"),
        ("first:0", "'first:0' is none"),
        ("first:70000", "'first:70000' is none"),
        ("../first:8091", "'../first:8091' is none"),
        ("first:8091,first:8092", "name first"),
        ("first:8091,second:8091", "port 8091"),
    ],
)
def test_what_is_no_list_of_hotkeys_with_ports_is_named(value: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^WALLET_HOTKEYS={re.escape(value)}: .*{re.escape(words)}"):
        Settings.load(wallet_hotkeys=value)


def test_several_hotkeys_publish_their_own_ports() -> None:
    with pytest.raises(ConfigurationError, match="leave AXON_EXTERNAL_PORT empty"):
        Settings.load(wallet_hotkeys="first:8091", axon_external_port=9000)


@pytest.mark.parametrize(
    ("key", "given", "meant"),
    [
        ("image_detector_device", "CPU", "cpu"),
        ("image_detector_device", "cpu:0", "cpu"),
        ("image_detector", "vit", "ViT"),
        ("image_detector", "yoloclassifier", "YOLOClassifier"),
        ("image_detector", "ENSEMBLE", "Ensemble"),
        ("image_detector_backend", "ONNX", "onnx"),
        ("image_detector_precision", "FP32", "fp32"),
        ("subtensor_network", "Finney", "finney"),
        ("recorder", "Meta", "meta"),
        ("log_level", "warn", "WARNING"),
        ("log_level", "WARN", "WARNING"),
        ("log_level", "Trace", "DEBUG"),
        ("log_level", "FATAL", "CRITICAL"),
        ("log_level", "critical", "CRITICAL"),
        ("log_level", "10", "DEBUG"),
        ("log_level", "25", "WARNING"),
        ("log_level", "50", "CRITICAL"),
    ],
)
def test_a_word_counts_as_what_it_means(key: str, given: str, meant: str) -> None:
    assert getattr(Settings.load(**{key: given}), key) == meant  # type: ignore[arg-type]


@pytest.mark.parametrize(("key", "given"), [("log_level", "loud"), ("image_detector_device", "tpu:0")])
def test_a_word_that_means_nothing_is_refused(key: str, given: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{key.upper()}={given}: "):
        Settings.load(**{key: given})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("key", "value", "comment"),
    [
        ("NETUID", "323  # testnet", "# testnet"),
        ("netuid", "323\t# testnet", "# testnet"),
        ("MODEL_URL", " # The URL to your repository", "# The URL to your repository"),  # as docker hands it over
        ("MODEL_URL", "# The URL to your repository", "# The URL to your repository"),  # as systemd does
        ("WALLET_NAME", "mine #1 of 2", "#1 of 2"),
        ("WALLET_NAME", '"mine" # the first', "# the first"),
        ("REQUEST_DEADLINE", "9 # seconds", "# seconds"),
        ("HF_HOME", "/data/hub # large", "# large"),
    ],
)
def test_a_comment_that_came_along_into_the_environment_is_named(
    monkeypatch: pytest.MonkeyPatch, key: str, value: str, comment: str
) -> None:
    monkeypatch.setenv(key, value)
    with pytest.raises(ConfigurationError) as caught:
        Settings.load(queue_depth="none")
    told = [line for line in str(caught.value).splitlines() if "inline comment" in line]
    assert len(told) == 1
    assert told[0].startswith(f"{key}=")
    assert comment in told[0]
    assert [line.partition("=")[0] for line in str(caught.value).splitlines()] == [key, "QUEUE_DEPTH"]


def test_a_secret_before_a_comment_is_not_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "abcdefgh123 # mine")
    monkeypatch.setenv("SUBTENSOR_CHAIN_ENDPOINT", "wss://me:hunter2pw@node.example # mine")
    with pytest.raises(ConfigurationError) as caught:
        Settings.load()
    assert len(str(caught.value).splitlines()) == 2
    assert "abcdefgh123" not in str(caught.value)
    assert "hunter2pw" not in str(caught.value)


@pytest.mark.parametrize("value", ["my#wallet", "#1", "a#", "'two # words'"])
def test_a_hash_that_no_space_precedes_is_part_of_the_value(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("WALLET_NAME", value)
    assert Settings.load().wallet_name == value


def test_a_flag_takes_the_place_of_a_value_with_a_comment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NETUID", "323 # testnet")
    assert Settings.load(netuid="72").netuid == 72


@pytest.mark.parametrize(
    "url",
    ["https://huggingface.co/you/your-model", "you/your-model", "huggingface.co/you/m", "https://a.example/x#y", ""],
)
def test_a_models_page_is_an_address_or_a_repository(url: str) -> None:
    assert Settings.load(model_url=f" {url} ").model_url == url


@pytest.mark.parametrize("url", ["# the URL", "https://huggingface.co/you/m # mine", "your page", "<URL>"])
def test_what_is_no_models_page_never_reaches_a_validator(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^MODEL_URL="):
        Settings.load(model_url=url)


@pytest.mark.parametrize("key", ["image_detector_config", "shadow_detector_config"])
def test_a_yaml_file_is_found_here_then_beside_the_settings_file_then_among_the_shipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here, there):
        folder.mkdir()
    env_file = there / "miner.env"
    env_file.write_text(f"{key.upper()}=starter.yaml\n")
    monkeypatch.chdir(here)
    assert getattr(Settings.load(env_file), key) == "starter.yaml"
    (there / "starter.yaml").write_text("hf_repo: beside\n")
    found = Settings.load(env_file)
    assert getattr(found, key) == str(there / "starter.yaml")
    assert environment_of(found)[key.upper()] == str(there / "starter.yaml"), "for children, which see no settings file"
    (here / "starter.yaml").write_text("hf_repo: here\n")
    assert getattr(Settings.load(env_file), key) == str(here / "starter.yaml")


def test_of_a_yaml_file_that_is_nowhere_every_place_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    env_file = tmp_path / "there" / "miner.env"
    env_file.parent.mkdir()
    env_file.write_text("IMAGE_DETECTOR_CONFIG=mine.yaml\n")
    monkeypatch.chdir(tmp_path)
    settings = Settings.load(env_file)
    with pytest.raises(NoConfig) as caught:
        read_config(settings.detector_config)
    told = settings.why_no_model(caught.value)
    assert told.startswith("IMAGE_DETECTOR_CONFIG=mine.yaml: ")
    assert {str(tmp_path), str(env_file.parent)} <= {word.strip(",;") for word in told.split()}
    assert "starter.yaml" in told


def test_without_a_home_the_paths_that_want_one_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOME", raising=False)
    unknown = "~nobody-of-this-name"  # whose home is as unknown as one's own without HOME and passwd
    with pytest.raises(ConfigurationError) as caught:
        Settings.load(state_dir=f"{unknown}/state", image_detector_config=f"{unknown}/a.yaml")
    assert [line.partition("=")[0] for line in str(caught.value).splitlines()] == ["IMAGE_DETECTOR_CONFIG", "STATE_DIR"]


def test_of_keys_that_are_accepted_and_unused_only_an_addresss_secrets_are_hidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "miner.env"
    file.write_text("VIDEO_DETECTOR_CONFIG=starter.yaml\nNOT_OURS=hidden\n")
    monkeypatch.setenv("PROXY_CLIENT_URL", "https://user:hunter2@proxy.example")
    found = secrets_of_environment(setting_names(), file)
    assert {"hunter2", "hidden"} <= set(found)
    assert "starter.yaml" not in found
