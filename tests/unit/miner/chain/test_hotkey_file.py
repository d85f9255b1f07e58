"""The hotkey as a file of its own, outside of any wallet, as a systemd credential is."""

from pathlib import Path

import pytest

from miner.chain.standalone import own_wallet
from miner.chain.wallet import load_hotkey
from miner.errors import ConfigurationError


def test_the_file_stands_in_for_the_wallets(tmp_path: Path) -> None:
    made = own_wallet(tmp_path, "miner")
    credential = tmp_path / "credential"
    credential.write_bytes(Path(made.hotkey_file.path).read_bytes())
    credential.chmod(0o400)
    loaded = load_hotkey(tmp_path / "nowhere", "name", "hot", key_file=credential)
    assert loaded.hotkey.ss58_address == made.hotkey.ss58_address
    assert loaded.hotkey.sign(b"signed")
    assert (loaded.name, loaded.hotkey_str) == ("name", "hot")


@pytest.mark.parametrize(("content", "reason"), [(None, "there is no"), ("\n", "holds no key")])
def test_an_absent_or_empty_credential_is_named(tmp_path: Path, content: str | None, reason: str) -> None:
    credential = tmp_path / "credential"
    if content is not None:
        credential.write_text(content)
    with pytest.raises(ConfigurationError, match=rf"^WALLET_HOTKEY_FILE={credential}: .*{reason}"):
        load_hotkey(tmp_path, "name", "hot", key_file=credential)
