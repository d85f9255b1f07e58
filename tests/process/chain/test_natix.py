"""NATIX's own registration beside the chain's: sent by the command alone, shown by the miner, due after a new uid."""

import json
import subprocess
from html import unescape

from tests.natix import Natix, serving
from tests.process.chain.live_node import OWN_UID, LiveNode
from tests.process.chain.scene import START, register
from tests.process.daemon import PATIENCE, Daemon, eventually


def call(daemon: Daemon, *arguments: str) -> "subprocess.CompletedProcess[str]":
    done = subprocess.run(
        [*daemon.command, *arguments],
        capture_output=True, text=True, timeout=PATIENCE, env=daemon.environment, cwd=daemon.folder, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    return done


def shown(daemon: Daemon) -> tuple[str, float]:
    """Return what /status and the metric say of it."""
    standing = daemon.page("/status").json()["chain"]["natix"]["standing"]
    return standing, daemon.metric("natix_registered")


def finding(daemon: Daemon) -> tuple[str, str]:
    told = json.loads(call(daemon, "doctor", "--json").stdout)
    (natix,) = (one for one in told["findings"] if one["name"] == "natix")
    return natix["level"], natix["todo"]


def test_from_a_uid_to_a_registration_and_to_the_next_uid(node: LiveNode, start: START) -> None:
    with serving(Natix()) as natix:
        daemon = start(NATIX_URL=natix.url, MODEL_URL="you/roadwork", STATUS_HOST="127.0.0.1")
        register(node, daemon, own=False)
        unregistered = call(daemon, "register")
        assert unregistered.returncode == 3
        assert "btcli subnet register" in unregistered.stderr
        assert natix.registered == []

        register(node, daemon)
        daemon.start().ready()
        assert shown(daemon) == ("unknown", 0)
        done = call(daemon, "register")
        assert done.returncode == 0, done.stderr
        assert "succeeded" in done.stderr
        (body,) = natix.registered
        assert body["uid"] == str(OWN_UID)
        assert body["natix_public_key"] == daemon.keys.miner.hotkey.ss58_address
        assert shown(daemon) == ("yes", 1)
        assert f"yes, uid {OWN_UID}" in unescape(daemon.page("/").text)
        assert finding(daemon) == ("ok", "")
        assert f"yes, uid {OWN_UID}" in " ".join(call(daemon, "top", "--once").stdout.split())

        node.deregister(OWN_UID)
        node.register(OWN_UID + 10, daemon.keys.miner.hotkey.ss58_address, incentive=100)
        eventually(lambda: shown(daemon) == ("due", 0))
        eventually(lambda: "due again" in daemon.log)
        assert "roadwork-miner register" in unescape(daemon.page("/").text)
        assert finding(daemon) == ("problem", "roadwork-miner register")
        asked = list(natix.asked)
        assert call(daemon, "register", "--dry-run").returncode == 0
        assert (len(natix.registered), natix.asked) == (1, asked), "nobody but the command has asked or sent"

        assert call(daemon, "register").returncode == 0
        assert natix.registered[-1]["uid"] == str(OWN_UID + 10)
        assert shown(daemon) == ("yes", 1)
