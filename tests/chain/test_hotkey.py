"""The hotkey's file: what an operator gets wrong with it, and the line that says so."""

import logging
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import bittensor
import pytest

from miner.chain.wallet import find_coldkeys, load_hotkey
from miner.errors import ConfigurationError

PASSWORD = "correct horse battery"
NOBODY = 65534


@pytest.fixture(scope="module")
def encrypted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("wallets")
    bittensor.Wallet("miner", "hot", str(path)).create_new_hotkey(suppress=True, hotkey_password=PASSWORD)
    return path


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    bittensor.Wallet("miner", "hot", str(tmp_path)).create_new_hotkey(suppress=True)
    return tmp_path


def test_only_the_hotkey_is_needed(plain: Path, caplog) -> None:
    wallet = load_hotkey(plain, "miner", "hot")
    assert wallet.hotkey.verify(b"x", wallet.hotkey.sign(b"x"))
    assert not caplog.records


def test_a_missing_key_names_the_command_that_makes_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as raised:
        load_hotkey(tmp_path, "miner", "hot")
    assert f"btcli wallet new-hotkey --wallet miner --wallet-hotkey hot --wallet-path {tmp_path}" in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("content", [b"", b"{}", b"rubbish", b"\xff\xfe\0", b'{"ss58Address": "5"}'])
def test_a_file_that_is_no_key(plain: Path, content: bytes) -> None:
    (plain / "miner/hotkeys/hot").write_bytes(content)
    with pytest.raises(ConfigurationError, match="holds no key"):
        load_hotkey(plain, "miner", "hot")


def test_a_public_key_can_not_sign(plain: Path) -> None:
    address = load_hotkey(plain, "miner", "hot").hotkey.ss58_address
    (plain / "miner/hotkeys/hot").write_text(f'{{"ss58Address": "{address}"}}')
    with pytest.raises(ConfigurationError, match="holds no key"):
        load_hotkey(plain, "miner", "hot")


def test_a_folder_in_the_key_s_place(tmp_path: Path) -> None:
    (tmp_path / "miner/hotkeys/hot").mkdir(parents=True)
    with pytest.raises(ConfigurationError, match=": Is a directory"):
        load_hotkey(tmp_path, "miner", "hot")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_key_of_another_user(plain: Path) -> None:
    (plain / "miner/hotkeys/hot").chmod(0)
    with pytest.raises(ConfigurationError, match=": Permission denied"):
        load_hotkey(plain, "miner", "hot")


def test_an_encrypted_key_opens_with_the_password_of_a_file(encrypted: Path, tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text(PASSWORD + "\n")
    assert load_hotkey(encrypted, "miner", "hot", password).hotkey.sign(b"x")


@pytest.mark.parametrize(
    ("password", "words"),
    [
        (None, "is encrypted"),
        ("", "is empty"),
        ("missing", ": No such file"),
        ("wrong horse", "not the password"),
    ],
    ids=["none", "empty", "missing", "wrong"],
)
def test_an_encrypted_key_never_asks(encrypted: Path, tmp_path: Path, password, words) -> None:
    file = None if password is None else tmp_path / "password"
    if file is not None and password != "missing":
        file.write_text(password)
    with pytest.raises(ConfigurationError, match=words) as raised:
        load_hotkey(encrypted, "miner", "hot", file)
    assert str(raised.value).startswith("WALLET_HOTKEY_PASSWORD_FILE")
    assert "wrong horse" not in str(raised.value)
    assert raised.value.__suppress_context__ or raised.value.__context__ is None


@pytest.fixture
def credential() -> Iterator[Path]:
    """A hotkey's file of an ordinary user, who this process is for now."""
    with tempfile.TemporaryDirectory() as folder:
        wallet = bittensor.Wallet("w", "hot", folder)
        wallet.create_new_hotkey(suppress=True)
        file = Path(wallet.hotkey_file.path).rename(Path(folder, "credential"))
        is_root = os.geteuid() == 0
        for path in (Path(folder), file) if is_root else ():
            os.chown(path, NOBODY, NOBODY)
        if is_root:
            os.seteuid(NOBODY)
        yield file
        if is_root:
            os.seteuid(0)


@pytest.mark.parametrize("closed", ["wallets", "wallets/ours"])
def test_a_wallet_that_may_not_be_entered_hides_its_coldkey_and_is_no_fault(credential: Path, closed: str) -> None:
    folder, wallets = credential.parent / closed, credential.parent / "wallets"
    folder.mkdir(parents=True)
    folder.chmod(0)
    try:
        assert load_hotkey(wallets, "ours", "hot", key_file=credential).hotkey.sign(b"x")
        assert find_coldkeys(wallets) == ([], [folder])
    finally:
        folder.chmod(0o700)


def test_the_coldkey_of_any_wallet_is_found(plain: Path, caplog) -> None:
    for name in ("miner", "savings"):
        (plain / name).mkdir(exist_ok=True)
        (plain / name / "coldkey").write_text("{}")
    (plain / "savings" / "coldkeypub.txt").write_text("{}")
    (plain / "empty").mkdir()
    (plain / "a file").touch()
    load_hotkey(plain, "miner", "hot")
    lines = [record.getMessage() for record in caplog.records]
    assert [
        "THE COLDKEY" in line and f": {plain / name}/coldkey" in line
        for name, line in zip(("miner", "savings"), lines, strict=True)
    ] == [True, True]
    assert find_coldkeys(plain / "nowhere") == find_coldkeys(plain / "a file") == ([], [])


def test_a_coldkey_on_the_machine_is_a_loud_warning(plain: Path, caplog) -> None:
    (plain / "miner/coldkey").write_text("{}")
    (plain / "miner/hotkeys/hot").chmod(0o644)
    load_hotkey(plain, "miner", "hot")
    lines = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert lines[0].startswith("THE COLDKEY")
    assert "chmod 600" in lines[1]
