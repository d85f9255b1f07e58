"""What the installer finds on a machine before it changes anything: files, sockets and users that are really there."""

import argparse
import ast
import os
import socket
import sys
from pathlib import Path

import pytest

from deploy.systemd import preflight
from miner.settings.settings import Settings
from tests.process.daemon import free_port

SHIPPED = Path(__file__).resolve().parents[3] / "detectors" / "configs"


@pytest.fixture
def options(tmp_path: Path) -> argparse.Namespace:
    """What the installer asks about a machine that lacks nothing."""
    for name in ("etc", "units", "models"):
        (tmp_path / name).mkdir()
    settings = tmp_path / "miner.env"
    settings.write_text(f"MINER_AXON_PORT={free_port()}  # ours\nexport STATUS_PORT='{free_port()}'\n")
    return argparse.Namespace(
        env="testnet", settings=settings, root=tmp_path / "opt", etc=tmp_path / "etc", units=tmp_path / "units",
        models=tmp_path / "models", models_given=True, shipped=SHIPPED, hotkey=None, hotkey_password=None,
        readers="roadwork-settings", systemd=255, new_release=False, active=True,
    )  # fmt: skip


def append(options: argparse.Namespace, text: str) -> None:
    with options.settings.open("a") as file:
        file.write(text + "\n")


def test_nothing_is_wrong_with_a_machine_that_lacks_nothing(options: argparse.Namespace) -> None:
    faults = preflight.look(options)
    assert (faults.given, faults.machine, faults.exit_code) == ([], [], 0)


def test_the_defaults_are_the_settings() -> None:
    fields = Settings.model_fields
    assert {key: str(fields[key.lower()].default) for key in preflight.DEFAULTS} == preflight.DEFAULTS


def test_values_are_read_as_the_miner_reads_them(tmp_path: Path) -> None:
    text = (
        'NETUID=323   # for testnet\nexport status_port = 9470\nMODEL_URL="https://x/#y" # z\nWALLET_NAME=\n#A=b\n'
        "WALLET_HOTKEYS=first:8091,second:8092\nMINER_AXON_HOST='::'\n"
    )
    file = tmp_path / "miner.env"
    file.write_text(text)
    read, settings = preflight.read_settings(text), Settings.load(file)
    assert read["NETUID"] == str(settings.netuid)
    assert read["MODEL_URL"] == settings.model_url
    assert read["WALLET_HOTKEYS"] == settings.wallet_hotkeys
    assert preflight.ports_of(read) == {
        "STATUS_PORT": ("127.0.0.1", settings.status_port),
        "WALLET_HOTKEYS=first": (settings.miner_axon_host, 8091),
        "WALLET_HOTKEYS=second": (settings.miner_axon_host, 8092),
    }


def test_a_port_that_is_taken_is_the_machines_fault(options: argparse.Namespace) -> None:
    options.active = False
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        append(options, f"STATUS_PORT={port}")
        faults = preflight.look(options)
        assert [fault.partition(":")[0] for fault in faults.machine if "port" in fault] == [f"STATUS_PORT={port}"]
        assert faults.exit_code == 3
        options.active = True  # the service's own
        assert preflight.look(options).exit_code == 0


def test_two_networks_need_ports_of_their_own(options: argparse.Namespace) -> None:
    append(options, "MINER_AXON_PORT=8091")
    (options.etc / "mainnet.env").write_text("MINER_AXON_PORT=8092\nSTATUS_PORT=9999\n")
    (options.units / "roadwork-miner@mainnet.service.d").mkdir()
    drop_in = options.units / "roadwork-miner@mainnet.service.d" / "override.conf"
    drop_in.write_text('[Service]\nEnvironment="MINER_AXON_PORT=8091"\n')  # which wins over the file
    assert preflight.look(options).given == []  # it is not installed
    options.root.mkdir()
    (options.root / "current-mainnet").symlink_to("a release")
    (fault,) = preflight.look(options).given
    assert fault.startswith("MINER_AXON_PORT=8091: mainnet ")
    drop_in.unlink()
    assert preflight.look(options).given == []


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("starter.yaml", True), ("mine.yaml", False), ("~/mine.yaml", False), ("/home/me/mine.yaml", False),
        ("/root/mine.yaml", False), ("/nowhere/mine.yaml", False), ("MODELS/mine.yaml", True),
        ("MODELS/other.yaml", False),
    ],
)  # fmt: skip
def test_a_detector_that_the_service_would_not_find(options: argparse.Namespace, value: str, found: bool) -> None:
    (options.models / "mine.yaml").touch()
    value = value.replace("MODELS", str(options.root / "models"))  # where they are copied to
    append(options, f"IMAGE_DETECTOR_CONFIG={value}")
    keys = [fault.partition(": ")[0] for fault in preflight.look(options).given]
    assert keys == ([] if found else [f"IMAGE_DETECTOR_CONFIG={value}"])


@pytest.mark.parametrize(
    ("content", "password", "usable"),
    [
        (b'{"secretSeed": "0x1", "ss58Address": "5F"}', False, True), (b"0x1", False, True), (b"", False, False),
        (b'{"publicKey": "0x1", "ss58Address": "5F"}', False, False), (b"$NACL\x00", False, False),
        (b"$NACL\x00", True, True), (None, False, False),
    ],
)  # fmt: skip
def test_a_key_file(options: argparse.Namespace, content: bytes | None, password: bool, usable: bool) -> None:
    options.hotkey = options.settings.with_name("hotkey")
    if content is not None:
        options.hotkey.write_bytes(content)
    if password:
        options.hotkey_password = options.settings.with_name("password")
        options.hotkey_password.write_text("secret")
    keys = [fault.partition(": ")[0] for fault in preflight.look(options).given]
    assert keys == ([] if usable else [f"HOTKEY={options.hotkey}"])


def test_settings_and_models_that_are_not_there(options: argparse.Namespace) -> None:
    options.settings = options.settings.with_name("none.env")
    options.models = options.models / "none"
    keys = [fault.partition(": ")[0] for fault in preflight.look(options).given]
    assert keys == [f"ENV_FILE={options.settings}", f"MODELS={options.models}"]


def test_what_the_machine_lacks() -> None:
    def found(machine: str = "aarch64", systemd: int = 249, needed: int = 2, free: int = 3, memory: int = 2**30) -> str:
        return " ".join(
            fault.split()[0] for fault in preflight.machine_faults(machine, systemd, needed, free, memory)
        )  # fmt: skip

    assert found() == ""
    assert found(machine="armv7l", systemd=247) == "armv7l: systemd"
    assert found(free=1, memory=2**20) == "/opt 1"


def test_space_is_counted_for_what_is_copied(options: argparse.Namespace) -> None:
    (options.models / "vit").mkdir()
    (options.models / "vit" / "model.onnx").write_bytes(b"x" * 1000)
    installed = options.root / "models"
    assert preflight.missing_bytes(options.models, installed) == 1000
    (installed / "vit").mkdir(parents=True)
    (installed / "vit" / "model.onnx").touch()
    assert preflight.missing_bytes(options.models, installed) == 0
    os.utime(installed / "vit" / "model.onnx", (0, 0))  # exported again since
    assert preflight.missing_bytes(options.models, installed) == 1000
    assert preflight.free_bytes(options.root / "not" / "there") > 0


def test_memory_is_what_a_new_process_would_find() -> None:
    assert preflight.available_memory("MemTotal:  9 kB\nMemAvailable:    512 kB\n") == 512 * 1024
    assert preflight.available_memory("MemTotal:  9 kB\n") is None


def test_a_user_who_has_the_services_name() -> None:
    me = "root"  # is everywhere
    (fault,) = preflight.user_faults("no-such-network", me)
    assert me in fault.split()


def test_it_needs_no_package() -> None:
    tree = ast.parse(Path(preflight.__file__).read_text(encoding="utf-8"))
    names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    names += [str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert {name.split(".")[0] for name in names} <= set(sys.stdlib_module_names)
