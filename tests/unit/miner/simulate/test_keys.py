"""A standalone miner learns of new validators while it runs."""

from pathlib import Path

import pytest

from miner.chain.standalone import StandaloneChain, own_wallet, read_file, standalone_file
from miner.errors import ConfigurationError
from miner.simulate.miners import make_known, throwaway_keys

MINER = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"


def test_validators_are_added_and_what_was_there_stays(tmp_path: Path) -> None:
    path = standalone_file(tmp_path)
    before = path.read_text()
    wallets = throwaway_keys(tmp_path, 3)
    assert wallets[0].hotkey.ss58_address == own_wallet(tmp_path, "validator").hotkey.ss58_address
    assert make_known(path, MINER, wallets)
    assert path.read_text().startswith(before)
    neurons = read_file(path, MINER).neurons
    assert len(neurons) == 4
    assert all(neurons[wallet.hotkey.ss58_address].validator_permit for wallet in wallets)
    assert not make_known(path, MINER, wallets)  # nothing is added twice


@pytest.mark.parametrize(
    "start", ["validators:\n- hotkey: {}\n", "validators:\n    - {{hotkey: {}, stake: 1}}", "validators: []"]
)
def test_the_list_is_added_to_as_it_is_written(tmp_path: Path, start: str) -> None:
    path = tmp_path / "who.yaml"
    (wallet, other) = throwaway_keys(tmp_path, 2)
    path.write_text(start.format(other.hotkey.ss58_address))
    if "[]" in start:
        with pytest.raises(ConfigurationError, match="by hand"):
            make_known(path, MINER, [wallet])
        assert path.read_text() == start
    else:
        assert make_known(path, MINER, [wallet])
        assert set(read_file(path, MINER).neurons) >= {wallet.hotkey.ss58_address, other.hotkey.ss58_address}


def test_a_changed_file_is_read_again_and_a_wrong_one_is_not(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = standalone_file(tmp_path)
    chain = StandaloneChain(path, MINER)
    first = chain.snapshot
    chain.look()
    assert chain.snapshot is first
    make_known(path, MINER, throwaway_keys(tmp_path, 2))
    chain.look()
    assert len(chain.snapshot.neurons) == 3
    path.write_text("validators: [{hotkey: nobody}]")
    chain.look()
    assert len(chain.snapshot.neurons) == 3
    assert "not an ss58 address" in caplog.text
    path.unlink()
    chain.look()
    assert len(chain.snapshot.neurons) == 3
