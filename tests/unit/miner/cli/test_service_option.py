"""`--service testnet`: the settings that a service of this machine has."""

from pathlib import Path

import pytest

from miner.cli.common import CREDENTIALS, ETC, file_of, settings_file, unit_settings
from miner.errors import ConfigurationError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / ETC).mkdir(parents=True)
    (tmp_path / ETC / "testnet.env").touch()
    (tmp_path / ETC / "mainnet.env").touch()
    return tmp_path


def test_a_service_has_its_own_file_key_and_folders(root: Path) -> None:
    (root / ETC / "testnet.hotkey").touch()
    assert settings_file("testnet", root) == root / ETC / "testnet.env"
    assert unit_settings("testnet", root) == {
        "wallet_hotkey_file": f"{root}/etc/roadwork-miner/testnet.hotkey",
        "wallet_hotkey_password_file": f"{root}/etc/roadwork-miner/testnet.hotkey-password",
        "state_dir": f"{root}/var/lib/roadwork-miner/testnet",
        "models_dir": f"{root}/opt/roadwork-miner/models",
    }


def test_of_several_keys_the_copies_of_the_running_service_are_read(root: Path) -> None:
    copies = root / CREDENTIALS / "roadwork-miner@testnet.service"
    copies.mkdir(parents=True)
    (root / ETC / "testnet.hotkey").touch()  # of the time when there was one
    (copies / "hotkey_first").touch()
    assert unit_settings("testnet", root)["wallet_hotkey_file"] == str(copies / "hotkey")


@pytest.mark.parametrize("name", ["nonet", "../testnet", "", "Testnet"])
def test_a_service_that_is_not_there_is_named_with_those_that_are(root: Path, name: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"^--service={name}: there is no .*; installed: mainnet, testnet$"):
        settings_file(name, root)


def test_two_settings_files_are_one_too_many(tmp_path: Path) -> None:
    assert file_of(tmp_path, None) == tmp_path
    with pytest.raises(ConfigurationError, match=r"^--service=testnet: "):
        file_of(tmp_path, "testnet")
