"""The chain that is a file."""

import stat
from pathlib import Path

import pytest

from miner.chain.standalone import own_wallet, read_file, standalone_file
from miner.errors import ConfigurationError, CouldNotStart


def test_keys_and_file_are_made_on_first_use_and_kept(tmp_path: Path) -> None:
    state = tmp_path / "state"
    path = standalone_file(state)
    validator, miner = own_wallet(state, "validator"), own_wallet(state, "miner")
    for wallet in (validator, miner):
        assert stat.S_IMODE(Path(wallet.hotkey_file.path).stat().st_mode) == 0o600
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    assert own_wallet(state, "validator").hotkey.ss58_address == validator.hotkey.ss58_address
    assert standalone_file(state) == path

    snapshot = read_file(path, miner.hotkey.ss58_address)
    assert snapshot.uid_of(miner.hotkey.ss58_address) == 0
    neuron = snapshot.neurons[validator.hotkey.ss58_address]
    assert (neuron.uid, neuron.validator_permit, neuron.stake) == (1, True, 1000.0)
    assert not snapshot.neurons[miner.hotkey.ss58_address].validator_permit


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("validators: [{hotkey: abc}]", "not an ss58 address"),
        ("validators: [{stake: 1}]", "hotkey"),
        ("validators: [{hotkey: x, stake: much}]", "much"),
        ("validator: []", "validator"),
        (": : :", "can't be read"),
        ("", "file"),
    ],
)
def test_a_wrong_file_is_a_fault_that_names_it(tmp_path: Path, text: str, fault: str) -> None:
    path = tmp_path / "who.yaml"
    path.write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        read_file(path, "us")
    assert str(path) in str(caught.value)
    assert fault in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_state_folder_that_can_not_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CouldNotStart, match="STATE_DIR"):
        own_wallet(tmp_path / "file" / "state", "miner")
