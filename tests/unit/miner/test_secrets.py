"""What a report may show."""

import json
from pathlib import Path

import pytest

from miner.addresses import ADDRESSES, HIDDEN
from miner.bundle.secrets import HARMLESS, SET, scrubbed, secrets_in, secrets_of_addresses, shown_settings
from miner.settings import Settings


def test_every_named_setting_exists() -> None:
    assert set(Settings.model_fields) >= HARMLESS | ADDRESSES


def test_free_text_is_hidden_unless_it_is_known_to_be_harmless() -> None:
    shown = shown_settings(
        Settings(
            wallet_hotkey_file=Path("/secret/place"),
            model_url="https://me:pw@host.example/path?token=1",
            subtensor_network="wss://key@node.example:944/tok",
            wallet_name="mine",
            log_level="DEBUG",
        )
    )
    assert shown["WALLET_HOTKEY_FILE"] == SET
    assert shown["MODEL_URL"] == "https://host.example"
    assert shown["SUBTENSOR_NETWORK"] == "wss://node.example:944"
    assert (shown["WALLET_NAME"], shown["LOG_LEVEL"], shown["QUEUE_DEPTH"]) == ("mine", "DEBUG", 32)
    json.dumps(shown)


@pytest.mark.parametrize(
    ("text", "gone"),
    [
        ("ws://user:pa55word@host:9944", "pa55word"),
        ("https://hub.example/x?token=abcdef1234&y=1", "abcdef1234"),
        ("HF_TOKEN=hf_abcdefghijklmnop", "abcdefghijklmnop"),
        ("fetching with hf_abcdefghijklmnop now", "hf_abcdefghijklmnop"),
        ('{"wallet_password": "hunter22"}', "hunter22"),
        ("password: hunter22", "hunter22"),
        ("Authorization: Bearer abc.def-ghi", "abc.def-ghi"),
        ("seed 0x" + "ab" * 32, "ab" * 32),
        ("-----BEGIN PRIVATE KEY-----\nMIIE\n-----END PRIVATE KEY-----", "MIIE"),
    ],
)
def test_what_has_the_shape_of_a_secret_is_blotted_out(text: str, gone: str) -> None:
    assert gone not in scrubbed(text, [])
    assert HIDDEN in scrubbed(text, [])


@pytest.mark.parametrize(
    "text",
    [
        '{"WALLET_HOTKEY_PASSWORD_FILE": null}',
        "hotkey 5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY",
        '{"image": "' + "ab" * 32 + '"}',  # the hash of a photo
        "see https://example.org/path?page=2",
    ],
)
def test_what_is_none_stays(text: str) -> None:
    assert scrubbed(text, []) == text


def test_known_secrets_are_found_in_key_files_and_leave_every_text(tmp_path: Path) -> None:
    key, password, binary = (tmp_path / name for name in ("key", "password", "encrypted"))
    key.write_text(
        json.dumps({"ss58Address": "5Fpublic", "secretPhrase": 'a "quoted" phrase', "secretSeed": "s33dling"})
    )
    password.write_text("p@ss w0rd\n")
    binary.write_bytes(b"$NACL\xff\xfe")
    found = list(secrets_in([key, password, binary, tmp_path / "missing"]))
    assert set(found) == {'a "quoted" phrase', "s33dling", "p@ss w0rd"}
    text = json.dumps({"words": 'a "quoted" phrase', "who": "5Fpublic"}) + " p@ss w0rd s33dling"
    left = scrubbed(text, found)
    assert "quoted" not in left
    assert "w0rd" not in left
    assert "s33dling" not in left
    assert "5Fpublic" in left


def test_what_stands_before_and_behind_the_host_of_an_address_leaves_every_text() -> None:
    settings = Settings(
        subtensor_chain_endpoint="wss://alice:hunter2pw@node.example:944/APIKEY123",
        remote_endpoints="http://one.example:8000,http://bob:pa55word@two.example:8000",
        model_url="https://huggingface.co/you/your-model",
    )
    text = "GET /APIKEY123 of node.example as hunter2pw and pa55word; see https://huggingface.co/you/your-model"
    left = scrubbed(text, list(secrets_of_addresses(settings)))
    assert left == f"GET /{HIDDEN} of node.example as {HIDDEN} and {HIDDEN}; see https://huggingface.co/you/your-model"
