"""Hotkeys in settings."""

from pathlib import Path

import pytest
from bittensor.keyfiles import Keypair

from miner.axon.caller import Rules
from miner.errors import ConfigurationError
from miner.settings.settings import Settings
from miner.settings.validators import check_hotkeys, is_hotkey, split_hotkeys

ALICE, BOB = (Keypair.create_from_seed(number.to_bytes(32, "big"), 1).ss58_address for number in (1, 2))


@pytest.mark.parametrize("number", range(20))
def test_what_the_sdk_makes_is_a_hotkey(number: int) -> None:
    assert is_hotkey(Keypair.create_from_seed(number.to_bytes(32, "little"), 1).ss58_address)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "5",
        "alice",
        ALICE[:-1],
        ALICE + "1",
        ALICE[:-1] + "x",
        ALICE.lower(),
        ALICE.replace(ALICE[5], "0"),
        "ü" * 48,
    ],
)
def test_anything_else_is_none(text: str) -> None:
    assert not is_hotkey(text)


def test_the_sdk_agrees_on_a_changed_character() -> None:
    from bittensor.sp_core import decode_ss58

    for place in range(1, len(ALICE)):
        changed = ALICE[:place] + ("2" if ALICE[place] != "2" else "3") + ALICE[place + 1 :]
        assert not is_hotkey(changed)
        with pytest.raises(ValueError):  # noqa: PT011 - its message is the SDK's
            decode_ss58(changed)


def test_a_list_has_commas_and_may_have_spaces() -> None:
    assert check_hotkeys(f" {ALICE} , {BOB},{ALICE},") == f"{ALICE},{BOB}"
    assert split_hotkeys(check_hotkeys(f"{ALICE}, {BOB}")) == {ALICE, BOB}
    assert split_hotkeys(check_hotkeys(" ")) == frozenset()


def test_the_settings_make_the_rules(tmp_path: Path) -> None:
    file = tmp_path / "miner.env"
    file.write_text(
        "BLACKLIST_FORCE_VALIDATOR_PERMIT=False\nBLACKLIST_ALLOW_NON_REGISTERED=true\n"
        "BLACKLIST_MIN_STAKE=2.5   # alpha\n"
        f"BLACKLIST_ALLOW_HOTKEYS={ALICE}, {BOB}   # friends\nBLACKLIST_DENY_HOTKEYS={BOB}\n"
    )
    assert Rules.of(Settings.load(file)) == Rules(False, True, 2.5, frozenset({ALICE, BOB}), frozenset({BOB}))
    assert Rules.of(Settings.load()) == Rules()


def test_a_wrong_hotkey_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"^BLACKLIST_DENY_HOTKEYS=.*: hotkeys as ss58 .*; '5abc' is none$"):
        Settings.load(blacklist_deny_hotkeys=f"{ALICE},5abc")


@pytest.mark.parametrize("stake", ["-1", "nan", "inf", "much"])
def test_a_stake_is_a_number(stake: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^BLACKLIST_MIN_STAKE="):
        Settings.load(blacklist_min_stake=stake)


@pytest.mark.parametrize(
    ("permit", "stake", "noted"), [(True, 0, True), (False, 1, True), (False, 0, False)], ids=["permit", "stake", "no"]
)
def test_open_doors_behind_a_closed_gate_are_noted(permit: bool, stake: float, noted: bool) -> None:
    settings = Settings.load(
        blacklist_allow_non_registered=True, blacklist_force_validator_permit=permit, blacklist_min_stake=stake
    )
    assert any("lets nobody in" in note for note in settings.notes()) is noted
