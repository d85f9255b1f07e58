"""What a report may show."""

import base64
import json
import re
from pathlib import Path

import pytest

from detectors.redact import HIDDEN
from miner.settings.addresses import ADDRESSES
from miner.settings.settings import Settings
from miner.support import scrub
from miner.support.scrub import (
    HARMLESS,
    SET_NOT_SHOWN,
    key_files,
    scrubbed,
    secrets_in,
    secrets_of_addresses,
    shown_settings,
)

PHRASE = "abandon ability able about above absent absorb abstract absurd abuse access accident"


def test_every_named_setting_exists() -> None:
    assert set(Settings.model_fields) >= HARMLESS | ADDRESSES


def test_free_text_is_hidden_unless_it_is_known_to_be_harmless() -> None:
    shown = shown_settings(
        Settings(
            wallet_hotkey_file=Path("/secret/place"),
            model_url="https://me:pw@host.example/path?token=1",
            subtensor_network="wss://key@node.example:944/tok",
            wallet_name="mine",
            queue_depth=32,
            log_level="DEBUG",
        )
    )
    assert shown["WALLET_HOTKEY_FILE"] == SET_NOT_SHOWN
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
        (f"mnemonic: {PHRASE}", "accident"),
        (f'{{"secretPhrase": "{PHRASE}", "ss58Address": "5F"}}', "ability"),
        (f'{{"message": "a key {{\\"secretPhrase\\": \\"{PHRASE}\\"}}", "level": "INFO"}}', "ability"),
        (f"restored {PHRASE} from paper", "abandon"),
        (f"restored {PHRASE.replace(' ', '  ')}", "accident"),
        ("\n".join(PHRASE.split()), "accident"),
        (
            f"restored {PHRASE} abandon ability able about above absent absorb abstract absurd abuse access accident",
            "abuse",
        ),
        ("BACKUP_PASSPHRASE=two words", "words"),
        ("WALLET_PASS=hunter22", "hunter22"),
        ("roadwork-miner run --password hunter22", "hunter22"),
        ("roadwork-miner run --password 'hunter 22' --port 8091", "22'"),
        ("pwd=hunter22", "hunter22"),
        ("pass=ab", "ab"),
        ("SEED: //Alice", "Alice"),
        ("phrase = a b c", "a b c"),
        ('password: "hunter \\"22\\" and more"', "and more"),
        ("Authorization: Basic dXNlcjpwdw==", "dXNlcjpwdw"),
        ('{"password": 123456, "port": 8091}', "123456"),
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
        "the second pass: 3 of 5 are ok, and bypass=yes is no password at all",
        "simulate --seed 3 --password-file /etc/miner/password",
        "seed=3 tokens: 512",
        '{"seed": 3, "secret": null}',
        "WALLET_HOTKEY_PASSWORD_FILE=/etc/miner/password: can't be read",
        "every word here belongs into the sentence that someone wrote about nothing else today",  # no BIP-39
        '{"tokenizers": "0.22.2", "passlib": "1.7.4"}',
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


@pytest.mark.parametrize("written", [PHRASE.replace(" ", "  "), PHRASE.replace(" ", "\n"), PHRASE.replace(" ", "\\n")])
def test_a_known_phrase_is_found_however_its_words_are_set_apart(written: str) -> None:
    known = "no such list has these " + PHRASE
    assert scrubbed(f"I wrote {written}.", [PHRASE]) == f"I wrote {HIDDEN}."
    assert "list" not in scrubbed(f"I wrote no  such list\nhas these {written}.", [known])


def test_a_known_seed_is_found_without_its_prefix_and_in_capitals() -> None:
    seed = "0x" + "ab12" * 16
    for written in (seed, seed[2:], seed.upper(), seed[2:].upper()):
        assert scrubbed(f"it is {written} then", [seed]) == f"it is {HIDDEN} then"


def test_without_the_list_of_words_any_long_run_may_be_a_phrase(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scrub, "_phrase_words", lambda: None)
    assert "accident" not in scrubbed(f"restored {PHRASE} from paper", [])
    few = "a run of so few words is left as it was found"
    assert scrubbed(few, []) != HIDDEN


WORDS = PHRASE.split()
SHAPED = {
    "in capitals": PHRASE.upper(),
    "as titles": PHRASE.title(),
    "numbered": " ".join(f"{number}. {word}" for number, word in enumerate(WORDS, 1)),
    "numbered in lines": "\n".join(f"{number:2}) {word}" for number, word in enumerate(WORDS, 1)),
    "numbered without a space": " ".join(f"{number}{word}" for number, word in enumerate(WORDS, 1)),
    "with commas": ", ".join(WORDS),
    "a JSON list": json.dumps(WORDS),
    "a JSON list in lines": json.dumps(WORDS, indent=2),
    "a JSON list within JSON": json.dumps(json.dumps(WORDS)),
    "lines within JSON": "\\n".join(WORDS),
    "a YAML list": "\n".join(f"- {word}" for word in WORDS),
    "with dashes": "-".join(WORDS),
    "with underscores": "_".join(WORDS),
    "a table": "\n".join(f"| {number} | {word} |" for number, word in enumerate(WORDS, 1)),
}


@pytest.mark.parametrize("written", SHAPED.values(), ids=SHAPED)
@pytest.mark.parametrize("known", [[], [PHRASE]], ids=["unknown", "known"])
def test_a_phrase_is_found_in_any_order_of_signs(written: str, known: list[str]) -> None:
    left = scrubbed(f"restored {written}.", known)
    assert HIDDEN in left
    assert not [word for word in WORDS[1:] if word in left.lower()]


def test_a_phrase_in_a_json_list_leaves_json() -> None:
    assert json.loads(scrubbed(json.dumps({"words": WORDS, "netuid": 323}), [])) == {"words": [HIDDEN], "netuid": 323}


SEED = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
SECRET = "correct-horse-battery"
KEY_FORMS = {
    "two lines": f"{SEED[:32]}\n{SEED[32:]}",
    "lines within JSON": f"{SEED[:32]}\\n{SEED[32:]}",
    "groups": " ".join(SEED[at : at + 4] for at in range(0, 64, 4)),
    "bytes": ":".join(SEED[at : at + 2] for at in range(0, 64, 2)).upper(),
    "quoted parts": f'"{SEED[:20]}" "{SEED[20:]}"',
    "base64 of its bytes": base64.b64encode(bytes.fromhex(SEED)).decode(),
    "base64 for addresses": base64.urlsafe_b64encode(bytes.fromhex(SEED)).decode(),
    "base64 of its digits": base64.b64encode(f"0x{SEED}".encode()).decode(),
    "base64 of its file": base64.encodebytes(json.dumps({"ss58": "5F", "secretSeed": f"0x{SEED}"}).encode()).decode(),
}


@pytest.mark.parametrize("written", KEY_FORMS.values(), ids=KEY_FORMS)
@pytest.mark.parametrize("known", [SEED, f"0x{SEED}"])
def test_a_known_key_is_found_split_and_in_base64(written: str, known: str) -> None:
    left = scrubbed(f"it was {written}", [known])
    assert HIDDEN in left
    parts = re.findall(r"[0-9A-Za-z+/=_-]{12,}", written)
    assert not [part for part in parts if part in left]
    assert len(left) < len("it was ") + len(HIDDEN) + len(written) - 40


@pytest.mark.parametrize("before", ["", "a", "ab"], ids=len)
def test_a_known_password_is_found_in_base64_wherever_it_begins(before: str) -> None:
    coded = base64.b64encode(f"{before}{SECRET} and more".encode()).decode()
    assert scrubbed(coded, []) == coded
    left = scrubbed(coded, [SECRET])
    assert len(left.replace(HIDDEN, "")) <= len(coded) - len(base64.b64encode(SECRET.encode())) + 4


def test_an_unknown_key_over_two_lines_is_found_by_its_prefix() -> None:
    assert scrubbed(f"seed is 0x{SEED[:32]}\n{SEED[32:]} then", []) == f"seed is {HIDDEN} then"
    assert scrubbed("blocks 0x1234abcd 5678abcd", []) == "blocks 0x1234abcd 5678abcd"


BODY = "a1B2c3D4e5F6g7H8i9J0"
TOKENS = {
    "hugging face": f"hf_{BODY}", "github": f"ghp_{BODY}{BODY[:16]}", "github app": f"ghs_{BODY}{BODY[:16]}",
    "github fine": f"github_pat_{BODY}_{BODY}", "gitlab": f"glpat-{BODY}",
    "slack bot": "xox" + f"b-123456789012-{BODY}", "slack app": f"xapp-1-{BODY}",
    "slack hook": f"https://hooks.slack.com/services/T0{BODY[:8]}/B0/{BODY}",
    "discord hook": f"https://discord.com/api/webhooks/123456789012345678/{BODY}",
    "telegram": f"1234567890:AA{BODY}abcdefghijklm", "aws": "AKIA" + "IOSFODNN7EXAMPLE",
    "aws session": "ASIA" + "IOSFODNN7EXAMPLE",
    "google": f"AIza{BODY}{BODY[:15]}", "google oauth": f"ya29.{BODY}", "openai": f"sk-{BODY}{BODY}",
    "openai project": f"sk-proj-{BODY}_{BODY}", "anthropic": f"sk-ant-api03-{BODY}-{BODY}",
    "stripe": "sk_" + f"live_{BODY}",
    "npm": f"npm_{BODY}{BODY[:16]}", "pypi": f"pypi-AgEIcHlwaS5vcmc{BODY}{BODY}{BODY}", "docker": f"dckr_pat_{BODY}",
    "digitalocean": f"dop_v1_{SEED}", "sendgrid": f"SG.{BODY}.{BODY}",
    "jwt": f"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.{BODY}",
    "basic auth": f"https://me:{BODY}@hub.example/x", "basic auth with a slash": f"https://me:pa/{BODY}@hub.example/x",
    "pgp": f"-----BEGIN PGP PRIVATE KEY BLOCK-----\n{BODY}\n-----END PGP PRIVATE KEY BLOCK-----",
    "ssh": f"-----BEGIN OPENSSH PRIVATE KEY-----\\n{BODY}\\n-----END OPENSSH PRIVATE KEY-----",
}  # fmt: skip


@pytest.mark.parametrize("token", TOKENS.values(), ids=TOKENS)
@pytest.mark.parametrize("around", ["{}", "failed with {} today", '{{"note": "{}"}}', "({})"])
def test_a_foreign_token_is_known_by_its_form(token: str, around: str) -> None:
    left = scrubbed(around.format(token), [])
    assert HIDDEN in left
    assert BODY not in left
    assert "EXAMPLE" not in left


@pytest.mark.parametrize(
    "text",
    [
        "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY asked",  # a hotkey
        f"model starter@0123456789abcdef0123456789abcdef01234567, sha256 {SEED}",
        '{"key": "5DtdtzBsUGLSkaWNKQWVNdfxT3ywxaFFgc1o8PkS5Y9e6YqD:8091"}',
        "the task-force-of-street-photos-2026 and risk-assessment-of-all-models-1",
        "roadwork_miner_requests_total{outcome=\"ok\",wire=\"dendrite\"} 1.0",
        "uuid 123e4567-e89b-12d3-a456-426614174000 of block 0x1234abcd",
        "https://huggingface.co/you/your-model",
    ],
)  # fmt: skip
def test_what_a_helper_has_to_read_stays(text: str) -> None:
    assert scrubbed(text, [f"0x{SEED[::-1]}", PHRASE, SECRET]) == text


def test_json_stays_json() -> None:
    text = json.dumps({"mnemonic": PHRASE, "hint": "set PASSWORD=hunter22", "seed": 3, "api_key": 123456})
    assert json.loads(scrubbed(text, [])) == {
        "mnemonic": HIDDEN, "hint": f"set PASSWORD={HIDDEN}", "seed": 3, "api_key": HIDDEN,
    }  # fmt: skip


def test_every_wallet_is_looked_through_and_nested_keys_too(tmp_path: Path) -> None:
    other = tmp_path / "other" / "hotkeys" / "deep"
    other.parent.mkdir(parents=True)
    other.write_text(json.dumps({"crypto": {"salt": ["s4lt-of-it"]}, "meta": {"name": "harmless"}}))
    (tmp_path / "other" / "coldkeypub.txt").write_text(json.dumps({"secretSeed": "of a public file"}))
    settings = Settings(wallet_path=tmp_path, wallet_name="mine", queue_depth=32, state_dir=tmp_path / "none")
    assert key_files(settings) == [other]
    assert list(secrets_in([other])) == ["s4lt-of-it"]


def test_a_text_of_one_endless_word_takes_no_minutes() -> None:
    text = "A" * 2**18
    assert scrubbed(text, ["hunter22"]) == text


def test_a_closed_list_is_shown_whoever_fills_it() -> None:
    assert shown_settings(Settings())["REMOTE_FALLBACK"] == "refuse"
