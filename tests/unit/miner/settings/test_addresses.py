"""What others see of an address."""

import pytest

from detectors.redact import HIDDEN, shown, shown_within
from miner.settings.addresses import is_shown_whole, secrets_within, shown_each


@pytest.mark.parametrize(
    ("address", "seen"),
    [
        ("finney", "finney"),
        ("ws://127.0.0.1:9944", "ws://127.0.0.1:9944"),
        ("wss://entrypoint-finney.opentensor.ai:443", "wss://entrypoint-finney.opentensor.ai:443"),
        ("ws://[::1]:9944", "ws://[::1]:9944"),
        ("ws://alice:hunter2pw@127.0.0.1:9/APIKEY123", "ws://127.0.0.1:9"),
        ("ws://alice:hunter@2pw@[2001:db8::1]:9/", "ws://[2001:db8::1]:9"),
        (" wss://node.example/APIKEY123 ", "wss://node.example"),
        ("wss://node.example?key=APIKEY123", "wss://node.example"),
        ("wss://node.example#APIKEY123", "wss://node.example"),
        ("ws://alice:hun/ter2@node.example", f"ws://{HIDDEN}"),  # a slash that should have been written as %2F
        ("ws://alice:123/ter2@node.example", f"ws://{HIDDEN}"),
        ("ws://", f"ws://{HIDDEN}"),
        ("alice:hunter2pw@node.example:9944", HIDDEN),
        ("node.example:9944/APIKEY123", HIDDEN),
    ],
)
def test_an_address_is_shown_as_scheme_host_and_port(address: str, seen: str) -> None:
    assert shown(address) == seen
    assert shown(seen) == seen or seen.endswith(HIDDEN)


def test_an_address_is_whole_with_or_without_a_slash_behind_it() -> None:
    assert is_shown_whole("ws://127.0.0.1:9944/")
    assert is_shown_whole("test")
    assert not is_shown_whole("ws://127.0.0.1:9944/APIKEY123")
    assert not is_shown_whole("ws://alice@127.0.0.1:9944")


def test_of_several_each_is_shown() -> None:
    assert shown_each("http://a:1/x,http://u:p@b:2") == "http://a:1,http://b:2"


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("can't reach ws://a:b@host:9/KEY: refused", "can't reach ws://host:9: refused"),
        ("'wss://host/KEY' is none, \"wss://u@host\" too.", "'wss://host' is none, \"wss://host\" too."),
        ("(wss://host/KEY)", "(wss://host)"),
        ("no answer within 30 s", "no answer within 30 s"),
    ],
)
def test_the_addresses_in_a_text_are_shown_so_too(text: str, seen: str) -> None:
    assert shown_within(text) == seen


def test_what_is_not_shown_is_known_for_a_secret_in_each_of_its_forms() -> None:
    secrets = set(secrets_within("wss://alice:hunter%402pw@node.example:9944/v1/APIKEY123?user=me&key=SECRET456"))
    assert {"hunter%402pw", "hunter@2pw", "APIKEY123", "SECRET456", "alice:hunter%402pw"} <= secrets
    assert not {"node.example", "key", "", "wss"} & secrets
    assert not list(secrets_within("wss://node.example:9944"))
    assert not list(secrets_within("finney"))
    assert "alice:hunter2pw@host" in secrets_within("alice:hunter2pw@host")
