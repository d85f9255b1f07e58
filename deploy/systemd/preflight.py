"""The installer's look at a machine before anything on it is changed: all that would keep the service from its start.

It runs before there is an environment, so it needs Python's own library only. What is wrong with what the operator gave
ends it with 2, what is wrong with the machine with 3; each fault is one line.
"""

import argparse
import errno
import json
import os
import pwd
import re
import shutil
import socket
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

OLDEST_SYSTEMD = 249  # Ubuntu 22.04's; a test holds every line of the unit against it
DEFAULTS = {"MINER_AXON_PORT": "8091", "MINER_AXON_HOST": "0.0.0.0", "STATUS_PORT": "9464", "STATUS_HOST": "127.0.0.1"}  # noqa: S104
HOMES = ("/home", "/root", "/run/user")  # which ProtectHome= hides
DYNAMIC_UIDS = range(61184, 65520)  # of the users that systemd makes for the time of a run
MACHINES = ("x86_64", "aarch64")  # for which the pinned packages have wheels
RELEASE_BYTES = 600 * 2**20  # an environment (290 MB), and what pip unpacks meanwhile
LEAST_MEMORY_BYTES = 256 * 2**20  # the starter takes 131 MB, and pip runs beside it
LINE = re.compile(r"^\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=[^\S\n]*(.*?)\s*$")


@dataclass
class Faults:
    """What was found: of the operator's (2), and of the machine's (3)."""

    given: list[str] = field(default_factory=list)
    machine: list[str] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """The installer's exit code; what the operator can mend at once comes first."""
        if self.given:
            return 2
        return 3 if self.machine else 0


def read_settings(text: str) -> dict[str, str]:
    """Return the values of a settings file, without their comments; the miner itself judges the file later."""
    values = {}
    for line in text.splitlines():
        if found := LINE.match(line):
            key, value = found.groups()
            quoted = re.match(r"""(['"])(.*?)\1""", value)
            values[key.upper()] = quoted[2] if quoted else re.sub(r"(^|\s+)#.*", "", value)
    return values


def read_drop_ins(folder: Path) -> dict[str, str]:
    """Return what `systemctl edit` put into the unit's environment, which wins over the settings file."""
    texts = [path.read_text(encoding="utf-8", errors="replace") for path in sorted(folder.glob("*.conf"))]
    return {
        key.upper(): value
        for text in texts
        for key, value in re.findall(r'^Environment="?([A-Z_]+)=(.*?)"?$', text, flags=re.MULTILINE)
    }


def ports_of(values: Mapping[str, str]) -> dict[str, tuple[str, int]]:
    """Return the ports that settings ask for: by the setting, its address and number. A wrong one is left out."""
    merged = DEFAULTS | {key: value for key, value in values.items() if value}
    wanted = {"STATUS_PORT": (merged["STATUS_HOST"], merged["STATUS_PORT"])}
    several = re.findall(r"([^,:\s]+):(\d+)", merged.get("WALLET_HOTKEYS", ""))
    for name, port in several:
        wanted[f"WALLET_HOTKEYS={name}"] = (merged["MINER_AXON_HOST"], port)
    if not several:
        wanted["MINER_AXON_PORT"] = (merged["MINER_AXON_HOST"], merged["MINER_AXON_PORT"])
    return {
        key: (host, int(port))
        for key, (host, port) in wanted.items()
        if re.fullmatch("[0-9]{1,5}", port) and 1 <= int(port) <= 65535
    }


def shared_ports(values: Mapping[str, str], others: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
    """Yield a fault for each port that the settings of another network ask for too."""
    for name, theirs in others.items():
        taken = {port: key for key, (_, port) in ports_of(theirs).items()}
        for key, (_, port) in ports_of(values).items():
            if port in taken:
                yield f"{_shown(key, port)}: {name} has it as {taken[port]}; each network needs ports of its own"


def taken_ports(values: Mapping[str, str]) -> Iterator[str]:
    """Yield a fault for each port that another process listens on."""
    for key, (host, port) in ports_of(values).items():
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    yield f"{_shown(key, port)}: the port is taken; `ss -ltnp 'sport = :{port}'` says by whom"


def _shown(key: str, port: int) -> str:
    return f"{key}:{port}" if "=" in key else f"{key}={port}"


def hidden_configurations(
    values: Mapping[str, str], shipped: Path, models: Path, installed_models: Path
) -> Iterator[str]:
    """Yield a fault for each detector's YAML file that the service would not find.

    Args:
        values: the settings.
        shipped: the folder of the files that need no path.
        models: the folder that is copied.
        installed_models: where it is copied to.
    """
    for key in ("IMAGE_DETECTOR_CONFIG", "SHADOW_DETECTOR_CONFIG"):
        value = values.get(key, "")
        path = Path(value)
        if not value or (shipped / value).is_file():
            continue
        cure = f"copy it to /etc/roadwork-miner, and write {key}=/etc/roadwork-miner/{path.name}"
        if not path.is_absolute():
            yield f"{key}={value}: the service runs in no folder of yours; {cure}"
        elif value.startswith(tuple(f"{home}/" for home in HOMES)):
            yield f"{key}={value}: the service sees no home; {cure}"
        elif path.is_relative_to(installed_models) and (models / path.relative_to(installed_models)).is_file():
            continue
        elif not path.is_file():
            yield f"{key}={value}: there is no such file"


def hotkey_faults(hotkey: Path | None, password: Path | None) -> Iterator[str]:
    """Yield what is wrong with the key file and its password's."""
    for name, file in (("HOTKEY", hotkey), ("HOTKEY_PASSWORD", password)):
        if file is None:
            continue
        if not file.is_file():
            yield f"{name}={file}: there is no such file"
        elif not os.access(file, os.R_OK):
            yield f"{name}={file}: it can't be read"
        elif not file.stat().st_size:
            yield f"{name}={file}: it is empty"
        elif name == "HOTKEY":
            yield from _unusable(file.read_bytes()[: 2**16], file, password)


def _unusable(data: bytes, file: Path, password: Path | None) -> Iterator[str]:
    if data.startswith((b"$NACL", b"$ANSIBLE_VAULT", b"gAAAAA")):
        if password is None:
            yield f"HOTKEY={file}: it is encrypted; give its password in a file: HOTKEY_PASSWORD=file"
        return
    try:
        key = json.loads(data)
    except ValueError:
        return  # older forms; the miner judges them
    if isinstance(key, dict) and not any(key.get(part) for part in ("privateKey", "secretSeed", "secretPhrase")):
        yield f"HOTKEY={file}: it holds a public key only; the hotkey's own file is in the wallet's folder hotkeys"


def user_faults(env: str, readers: str) -> Iterator[str]:
    """Yield the names that systemd could not give to the service's user, as somebody has them."""
    for name, is_ours in ((f"roadwork-miner-{env}", True), (readers, False)):
        try:
            user = pwd.getpwnam(name)
        except KeyError:
            continue
        if not is_ours or user.pw_uid not in DYNAMIC_UIDS:
            yield f"there is a user {name} on this machine, whose name the service needs: rename it or remove it"


def free_bytes(folder: Path) -> int:
    """Return what is free where a folder is, or would be."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def missing_bytes(source: Path, target: Path) -> int:
    """Return the size of the files that a copy would write: those that are new, and those that are newer."""
    return sum(
        path.stat().st_size
        for path in source.rglob("*")
        if path.is_file() and _is_newer(path, target / path.relative_to(source))
    )


def _is_newer(path: Path, copy: Path) -> bool:
    return not copy.exists() or path.stat().st_mtime_ns > copy.stat().st_mtime_ns


def available_memory(meminfo: str) -> int | None:
    """Return the memory that a new process would find, in bytes."""
    found = re.search(r"^MemAvailable:\s+(\d+) kB", meminfo, flags=re.MULTILINE)
    return int(found[1]) * 1024 if found else None


def machine_faults(machine: str, systemd: int, needed: int, free: int, memory: int | None) -> Iterator[str]:
    """Yield what the machine lacks; bytes of the disk and of memory."""
    if machine not in MACHINES:
        yield f"{machine}: the pinned packages are made for {' and '.join(MACHINES)}"
    if systemd < OLDEST_SYSTEMD:
        yield f"systemd {systemd}: {OLDEST_SYSTEMD} or newer is needed"
    if free < needed:
        yield f"/opt has {free // 2**20} MiB free, and {needed // 2**20} MiB are needed"
    if memory is not None and memory < LEAST_MEMORY_BYTES:
        yield f"{memory // 2**20} MiB of memory are free, and {LEAST_MEMORY_BYTES // 2**20} MiB are needed at least"


def look(options: argparse.Namespace) -> Faults:
    """Return all faults."""
    faults = Faults()
    values: dict[str, str] = {}
    try:
        values = read_settings(options.settings.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        faults.given.append(f"ENV_FILE={options.settings}: can't be read: {getattr(error, 'strerror', '') or error}")
    values |= read_drop_ins(options.units / f"roadwork-miner@{options.env}.service.d")
    others = {
        path.stem: read_settings(path.read_text(encoding="utf-8", errors="replace"))
        | read_drop_ins(options.units / f"roadwork-miner@{path.stem}.service.d")
        for path in sorted(options.etc.glob("*.env"))
        if path.stem != options.env and os.path.lexists(options.root / f"current-{path.stem}")
    }
    faults.given += shared_ports(values, others)
    faults.given += hotkey_faults(options.hotkey, options.hotkey_password)
    if options.models_given and not options.models.is_dir():
        faults.given.append(f"MODELS={options.models}: there is no such folder")
    installed = options.root / "models"
    faults.given += hidden_configurations(values, options.shipped, options.models, installed)
    if not options.active:  # else the ports and the memory that are taken may be its own
        faults.machine += taken_ports(values)
    faults.machine += user_faults(options.env, options.readers)
    needed = RELEASE_BYTES * options.new_release + missing_bytes(options.models, installed)
    meminfo = None if options.active else available_memory(Path("/proc/meminfo").read_text(encoding="ascii"))
    faults.machine += machine_faults(os.uname().machine, options.systemd, needed, free_bytes(options.root), meminfo)
    return faults


def main() -> None:
    """Say each fault on a line, and end with the exit code."""
    parser = argparse.ArgumentParser()
    for name in ("--settings", "--root", "--etc", "--units", "--models", "--shipped", "--hotkey", "--hotkey-password"):
        parser.add_argument(name, type=Path)
    for name in ("--env", "--readers"):
        parser.add_argument(name)
    parser.add_argument("--systemd", type=int)
    for name in ("--models-given", "--new-release", "--active"):
        parser.add_argument(name, action="store_true")
    faults = look(parser.parse_args())
    for fault in faults.given + faults.machine:
        sys.stderr.write(f"error: {fault}\n")
    sys.exit(faults.exit_code)


if __name__ == "__main__":
    main()
