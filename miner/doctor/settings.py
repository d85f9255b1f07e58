"""The check-up of the settings: the environment file and the keys."""

import stat
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from miner.chain.identities import own_wallet
from miner.chain.wallet import find_coldkeys
from miner.doctor.findings import Finding, ok, problem, warning
from miner.errors import StartError
from miner.settings.settings import Settings


@dataclass(frozen=True, slots=True)
class SettingsFacts:
    """The settings, as far as they could be read."""

    file: Path | None
    notes: Sequence[str] = ()  # unknown and unused keys
    faults: Sequence[str] = ()  # wrong values


@dataclass(frozen=True, slots=True)
class WalletFacts:
    """The hotkey's file and what lies beside it."""

    hotkey: str = ""  # its address
    file: Path = field(default_factory=Path)
    mode: int = 0o600
    fault: str = ""  # why it can't sign
    coldkeys: Sequence[Path] = ()  # of this wallet and of others
    hidden: Sequence[Path] = ()  # where one may be, and this user may not look


def look_at_settings(file: Path | None, settings: Settings | None, faults: str) -> SettingsFacts:
    """Look at the environment file; `settings` is None and `faults` has a line for each where they are wrong."""
    return SettingsFacts(
        file=file,
        notes=settings.notes(file) if settings is not None else (),
        faults=faults.splitlines(),
    )


def judge_settings(facts: SettingsFacts) -> Finding:
    """Judge the settings: wrong values are a problem, keys that nobody reads a warning."""
    name = "settings"
    where = str(facts.file) if facts.file is not None else "environment and defaults"
    if facts.faults:
        return problem(name, "; ".join(facts.faults), f"correct it in {where}")
    if facts.notes:
        return warning(name, "; ".join(facts.notes), f"correct or remove it in {where}")
    return ok(name, where)


def read_wallet(settings: Settings) -> WalletFacts:
    """Open the hotkey as the miner does, and look at its file."""
    named = settings.wallet_path / settings.wallet_name / "hotkeys" / settings.wallet_hotkey
    file = settings.wallet_hotkey_file or named
    try:
        wallet = own_wallet(settings)
    except StartError as error:
        return WalletFacts(fault=str(error), file=file)
    except OSError as error:
        return WalletFacts(fault=f"{error.filename}: {error.strerror}", file=file)
    file = Path(wallet.hotkey_file.path)
    coldkeys, hidden = find_coldkeys(settings.wallet_path)
    mode = stat.S_IMODE(file.stat().st_mode)
    return WalletFacts(wallet.hotkey.ss58_address, file, mode, coldkeys=coldkeys, hidden=hidden)


def read_addresses(every: Sequence[Settings]) -> tuple[str, ...]:
    """Return the addresses of hotkeys, less those that can't be opened."""
    found = []
    for settings in every:
        with suppress(StartError, OSError):
            found.append(own_wallet(settings).hotkey.ss58_address)
    return tuple(found)


def judge_hotkey(facts: WalletFacts) -> Finding:
    """Judge the key that signs."""
    name = "hotkey"
    if facts.fault:
        return problem(
            name, facts.fault, "put the hotkey's file there (mode 0600, owned by the miner's user); no coldkey"
        )
    if facts.mode & 0o077:
        return warning(name, f"others can read {facts.file} (mode {facts.mode:04o})", f"chmod 600 {facts.file}")
    return ok(name, f"{facts.hotkey} can sign")


def judge_coldkey(facts: WalletFacts) -> Finding:
    """Judge whether there is anything to steal."""
    name = "coldkey"
    if facts.coldkeys:
        return warning(
            name,
            f"on this machine: {_listed(facts.coldkeys)}; it owns your funds, and the miner never needs it",
            "move it to a machine that serves nothing; coldkeypub.txt may stay",
        )
    if facts.hidden:
        return warning(name, f"not known: this user may not look into {_listed(facts.hidden)}", "look as root")
    return ok(name, "not on this machine")


def _listed(paths: Sequence[Path]) -> str:
    return ", ".join(map(str, paths))
