"""Faults to plant: each changes the chain, the world or a file, and returns the settings that go with it."""

import shutil
from collections.abc import Callable
from typing import Any

import pytest

from detectors.machine import allowed_cores
from tests.process.chain.checkup import Setup
from tests.process.chain.live_node import NETUID, OWN_UID, SHARES
from tests.process.conftest import SHIPPED
from tests.process.daemon import eventually


def fault(plant: Callable[[Setup], dict[str, object]], line: str, words: str) -> Any:
    return pytest.param(plant, line, words, id=(plant.__doc__ or "").replace(" ", "-"))


def clock_behind(setup: Setup) -> dict[str, object]:
    """clock behind"""
    setup.node.clock_ahead = 60
    return {}


def clock_ahead(setup: Setup) -> dict[str, object]:
    """clock ahead"""
    setup.node.clock_ahead = -60
    return {}


def wrong_address(setup: Setup) -> dict[str, object]:
    """wrong address on chain"""
    setup.node.axons[setup.daemon.keys.miner.hotkey.ss58_address]["ip"] = 0x09090909
    setup.node.store("ServingRateLimit", [NETUID], 10**6)  # or the miner mends it
    return {}


def port_closed(setup: Setup) -> dict[str, object]:
    """port closed"""
    setup.prober.open = False
    return {}


def port_here_only(setup: Setup) -> dict[str, object]:
    """port on the loopback"""
    setup.prober.open = False
    return {"MINER_AXON_HOST": "127.0.0.1"}


def private_address(setup: Setup) -> dict[str, object]:
    """private address"""
    return {"AXON_EXTERNAL_IP": "192.168.1.20", "AXON_EXTERNAL_PORT": setup.daemon.port}


def another_family(setup: Setup) -> dict[str, object]:
    """address of another family"""
    return {"AXON_EXTERNAL_IP": "2600::1", "AXON_EXTERNAL_PORT": setup.daemon.port}


def port_deaf(setup: Setup) -> dict[str, object]:
    """port not listening"""
    return {"MINER_AXON_PORT": 1, "AXON_EXTERNAL_PORT": setup.daemon.port}


def no_validator(setup: Setup) -> dict[str, object]:
    """no active validator"""
    for member in setup.node.members.values():
        member.last_update = 0
    setup.node.store("ActivityCutoff", [NETUID], 100)
    return {}


def burn(setup: Setup) -> dict[str, object]:
    """burn"""
    for member in setup.node.members.values():
        member.incentive = 0
    setup.node.members[0].incentive = SHARES
    return {}


def burn_of_the_chain(setup: Setup) -> dict[str, object]:
    """burn that the chain counts"""
    setup.node.store("MinerBurned", [NETUID], {"bits": 2**32})
    return {}


def burn_elsewhere(setup: Setup) -> dict[str, object]:
    """all to one uid"""
    for member in setup.node.members.values():
        member.incentive = 0
    setup.node.members[3].incentive = SHARES
    return {}


def halted(setup: Setup) -> dict[str, object]:
    """halted"""
    for member in setup.node.members.values():
        member.incentive = 0
    return {}


def wrong_revision(setup: Setup) -> dict[str, object]:
    """wrong revision"""
    yaml = setup.daemon.folder / "wrong.yaml"
    yaml.write_text(f"hf_repo: you/your-model\nrevision: {'a' * 40}\n", encoding="utf-8")
    return {"IMAGE_DETECTOR_CONFIG": yaml}


def damaged_model(setup: Setup) -> dict[str, object]:
    """damaged model"""
    copy, yaml = setup.daemon.folder / "damaged", setup.daemon.folder / "damaged.yaml"
    shutil.copytree(SHIPPED.parent, copy)
    graph = copy / "model.onnx"
    graph.write_bytes(graph.read_bytes()[:-1] + b"x")
    yaml.write_text("model_folder: damaged\n", encoding="utf-8")
    return {"IMAGE_DETECTOR_CONFIG": yaml}


def another_kind(setup: Setup) -> dict[str, object]:
    """model of another kind"""
    return {"IMAGE_DETECTOR": "YOLOClassifier"}


def hotkey_unreadable(setup: Setup) -> dict[str, object]:
    """hotkey unreadable"""
    (setup.daemon.folder / "odd" / "miner" / "hotkeys" / "default").mkdir(parents=True)  # a folder in its place
    return {"WALLET_PATH": setup.daemon.folder / "odd", "WALLET_NAME": "miner", "WALLET_HOTKEY": "default"}


def hotkey_damaged(setup: Setup) -> dict[str, object]:
    """hotkey damaged"""
    file = setup.daemon.folder / "bad" / "miner" / "hotkeys" / "default"
    file.parent.mkdir(parents=True)
    file.write_text("{", encoding="utf-8")
    return {"WALLET_PATH": setup.daemon.folder / "bad", "WALLET_NAME": "miner", "WALLET_HOTKEY": "default"}


def quota(setup: Setup) -> dict[str, object]:
    """quota under threads"""
    return {"INFERENCE_THREADS": allowed_cores() + 2}


def deregistered(setup: Setup) -> dict[str, object]:
    """deregistered"""
    setup.node.deregister(OWN_UID)
    eventually(lambda: setup.daemon.status("/readyz") == 503)
    return {}


def rules_shut(setup: Setup) -> dict[str, object]:
    """rules that let nobody in"""
    return {"BLACKLIST_MIN_STAKE": 1e9}


def wrong_setting(setup: Setup) -> dict[str, object]:
    """wrong setting"""
    return {"NETUID": "many"}


def wrong_subnet(setup: Setup) -> dict[str, object]:
    """wrong subnet"""
    return {"NETUID": 72}


def node_garbage(setup: Setup) -> dict[str, object]:
    """node returns garbage"""
    setup.node.fault = "garbage"
    return {}


def node_away(setup: Setup) -> dict[str, object]:
    """node away"""
    return {"SUBTENSOR_NETWORK": "ws://127.0.0.1:1"}


FAULTS = [
    fault(clock_behind, "clock", "behind of the chain"),
    fault(clock_ahead, "clock", "ahead of the chain"),
    fault(wrong_address, "address", "9.9.9.9:"),
    fault(port_closed, "reachable", "from outside: "),
    fault(port_here_only, "reachable", "MINER_AXON_HOST=127.0.0.1"),
    fault(private_address, "address", ": a private address"),
    fault(another_family, "address", ": an IPv6 address"),
    fault(port_deaf, "port", "connection refused"),
    fault(no_validator, "validators", "0 of 2"),
    fault(burn, "pay", "burning: 100%"),
    fault(burn_of_the_chain, "pay", "burning: 100%"),
    fault(burn_elsewhere, "pay", "goes to uid 3"),
    fault(halted, "pay", "halted"),
    fault(wrong_revision, "model", f"revision {'a' * 40} is not prepared"),
    fault(damaged_model, "model", "match its sum"),
    fault(another_kind, "model", "a model for"),
    fault(hotkey_unreadable, "hotkey", ": Is a directory"),
    fault(hotkey_damaged, "hotkey", "holds no key"),
    fault(quota, "cpu", "threads wait for"),
    fault(deregistered, "registration", "on subnet 323"),
    fault(rules_shut, "rules", "0 of 2"),
    fault(wrong_setting, "settings", "NETUID=many"),
    fault(wrong_subnet, "chain", "subnet 72 does not exist"),
    fault(node_garbage, "chain", "can't be read"),
    fault(node_away, "chain", "can't be read"),
]
