"""The unit file is one for every systemd from Ubuntu 22.04's on: no line that an older one passes over or misreads."""

import re
from pathlib import Path

import pytest

from deploy.systemd.preflight import OLDEST_SYSTEMD
from tests.expressions import DEPLOY, rules

FOLDER = DEPLOY / "systemd"
UNIT = FOLDER / "roadwork-miner@.service"
BACK_OFF = FOLDER / "back-off.conf"

# With which version each came, by systemd 257's manual pages ("Added in version"); 0: before they begin to say so.
# LoadCredential= reads a whole folder since 251 only, which is why deploy/README.md says so of several hotkeys.
SINCE = {
    "AmbientCapabilities": 229, "After": 201, "CapabilityBoundingSet": 0, "Description": 201, "DevicePolicy": 208,
    "DynamicUser": 232, "Environment": 0, "ExecReload": 0, "ExecStart": 0, "KeyringMode": 235, "LimitCORE": 0,
    "LimitNOFILE": 0, "LoadCredential": 247, "LockPersonality": 235, "MemoryMax": 231, "MemorySwapMax": 232,
    "NoNewPrivileges": 187, "PrivateDevices": 209, "PrivateMounts": 239, "PrivateTmp": 0, "PrivateUsers": 232,
    "ProtectClock": 245, "ProtectControlGroups": 232, "ProtectHome": 214, "ProtectHostname": 242,
    "ProtectKernelLogs": 244, "ProtectKernelModules": 232, "ProtectKernelTunables": 232, "ProtectProc": 247,
    "ProtectSystem": 214, "RemoveIPC": 232, "Restart": 0, "RestartMaxDelaySec": 254,
    "RestartPreventExitStatus": 189, "RestartSec": 0, "RestartSteps": 254, "RestrictAddressFamilies": 211,
    "RestrictNamespaces": 233, "RestrictRealtime": 231, "RestrictSUIDSGID": 242, "SetCredential": 247,
    "StartLimitIntervalSec": 229, "StateDirectory": 211, "StateDirectoryMode": 234, "SupplementaryGroups": 0,
    "SystemCallArchitectures": 209, "SystemCallErrorNumber": 209, "SystemCallFilter": 187, "TasksMax": 227,
    "TimeoutStartSec": 188, "TimeoutStopSec": 188, "Type": 0, "UMask": 0, "User": 0, "WantedBy": 201, "Wants": 201,
    "WatchdogSec": 0,
}  # fmt: skip
# %d, the folder of the credentials, came with 250: 249 drops a whole Environment= line for it.
SPECIFIERS_SINCE = {"i": 0, "n": 0, "t": 0, "S": 231, "d": 250}


def lines(path: Path) -> list[tuple[str, str]]:
    """Return the directives of a unit file with their values."""
    found = re.findall(r"^([A-Za-z]+)=(.*)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert found
    return [(key, value) for key, value in found]


@pytest.mark.parametrize("key", sorted({key for key, _ in lines(UNIT)}))
def test_a_directive_is_known_to_the_oldest_systemd(key: str) -> None:
    assert SINCE[key] <= OLDEST_SYSTEMD


def test_a_specifier_is_known_to_the_oldest_systemd() -> None:
    used = {letter for _, value in lines(UNIT) for letter in re.findall(r"%([a-zA-Z])", value)}
    assert {letter for letter in used if SPECIFIERS_SINCE[letter] > OLDEST_SYSTEMD} == set()
    assert used >= {"i", "n", "t"}


def test_the_drop_in_is_installed_where_all_of_it_is_known() -> None:
    newest = max(SINCE[key] for key, _ in lines(BACK_OFF))
    assert newest > OLDEST_SYSTEMD
    assert f'"$(systemd_version)" -ge {newest} ]' in (FOLDER / "install.sh").read_text(encoding="utf-8")


def test_no_restart_waits_until_somebody_is_told() -> None:
    """systemd never counts back, so that in the end each restart waits for the longest."""
    (down,) = [rule for rule in rules("alerts.yml") if rule.get("alert") == "RoadworkMinerDown"]
    longest, told = (
        re.fullmatch(r"(\d+)m(in)?", text) for text in (dict(lines(BACK_OFF))["RestartMaxDelaySec"], down["for"])
    )
    assert longest
    assert told
    assert int(longest[1]) < int(told[1])


def test_the_table_has_no_line_that_is_not_used() -> None:
    assert set(SINCE) == {key for path in (UNIT, BACK_OFF) for key, _ in lines(path)}
