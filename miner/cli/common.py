"""The options that several commands share, the default folders, and how a command ends."""

import logging
import os
import re
import signal
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from detectors.redact import shown_within
from miner import logs, systemd
from miner.errors import ConfigurationError, StartError
from miner.inference.background import is_at_work
from miner.settings.env_file import lend_to_hub
from miner.settings.settings import Settings, lend_home, setting_names
from miner.settings.validators import nearest

ETC = Path("etc/roadwork-miner")
STATE = Path("var/lib/roadwork-miner")
MODELS = Path("opt/roadwork-miner/models")
CREDENTIALS = Path("run/credentials")
SERVICE_NAME = re.compile(r"[a-z][a-z0-9]*")  # as the installer allows

# A file that can't be read is told by the settings in one line, for the journal too.
EnvFile = Annotated[
    Path | None,
    typer.Option("--env-file", readable=False, help="Settings file, as StreetVision's; else ./miner.env."),
]
Service = Annotated[
    str | None,
    typer.Option("--service", metavar="NAME", help="The service roadwork-miner@NAME: its settings, key and folders."),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Any setting; flags win, then this, then the environment, then the file."
    ),
]
Key = Annotated[str | None, typer.Option("--key", metavar="NAME", help="Which of WALLET_HOTKEYS; default: the first.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
LOCAL_ENV_FILE = Path("miner.env")  # of the folder in which a command is called
MAX_PIPED_BYTES = 2**20  # bytes of a settings file that comes through a pipe


def settings_file(service: str, root: Path = Path("/")) -> Path:
    """Return the settings file of a service.

    Raises:
        ConfigurationError: there is none, or this user may not read it.
    """
    file = root / ETC / f"{service}.env"
    if not SERVICE_NAME.fullmatch(service) or not file.exists():
        found = ", ".join(sorted(path.stem for path in (root / ETC).glob("*.env"))) or "none"
        raise ConfigurationError(f"--service={service}: there is no {file}; installed: {found}")
    if not os.access(file, os.R_OK):
        raise ConfigurationError(f"--service={service}: {file} is for root to read: call this with sudo")
    return file


def unit_settings(service: str, root: Path = Path("/")) -> dict[str, str]:
    """Return what the unit sets: of a key the file that systemd copies, of several keys the copies, while it runs."""
    keys = root / ETC / f"{service}.hotkey"
    copies = root / CREDENTIALS / f"roadwork-miner@{service}.service"
    passwords = keys.with_name(f"{service}.hotkey-password")
    if any(copies.glob("hotkey_*")):  # as systemd names the files of a folder
        keys, passwords = copies / "hotkey", copies / "hotkey-password"
    return {
        "wallet_hotkey_file": str(keys),
        "wallet_hotkey_password_file": str(passwords),
        "state_dir": str(root / STATE / service),
        "models_dir": str(root / MODELS),
    }


def of_setting(name: str, words: str, *flags: str, panel: str | None = None) -> Any:
    """Return an option that takes the place of a setting, whose name in the environment and default its help names."""
    default = Settings.model_fields[name].default
    shown = f", default {default}" if default not in (None, "") else ""
    return typer.Option(*flags, help=f"{words} ({name.upper()}{shown}).", rich_help_panel=panel)


Detector = Annotated[str | None, of_setting("image_detector", "ViT, YOLOClassifier or Ensemble")]
Config = Annotated[
    str | None, of_setting("image_detector_config", "YAML file of the detector: a path, or the name of a shipped one")
]


def chosen_file(given: Path | str | None, service: str | None, *, refused: bool) -> Path | None:
    """Return the settings file of a command: the one that is given, else the miner.env of this folder, which is said.

    Without this, a miner whose operator left the flag out would run on throwaway keys. What comes through a pipe is
    kept, to be read again.

    Args:
        given: of --env-file.
        service: of --service, which has a file of its own.
        refused: whether --no-env-file is given.

    Raises:
        ConfigurationError: both flags are given, or the pipe can't be read.
    """
    if given is not None:
        if refused:
            raise ConfigurationError(f"--env-file={given}: --no-env-file refuses it; give one of the two")
        return _kept(Path(given))
    try:
        found = LOCAL_ENV_FILE.is_file()
    except PermissionError:  # this user may not enter the folder
        found = False
    if refused or service is not None or not found:
        return None
    print(
        f"settings from {LOCAL_ENV_FILE.absolute()}, as there is no --env-file; --no-env-file refuses it",
        file=sys.stderr,
    )
    return LOCAL_ENV_FILE.absolute()


def _kept(file: Path) -> Path:
    """Return a file that can be read again and again; of a pipe, such as that of `<(…)`, a copy in memory."""
    try:
        mode = file.stat().st_mode
        if not (stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)):
            return file
        with file.open("rb") as pipe:
            text = pipe.read(MAX_PIPED_BYTES + 1)
    except FileNotFoundError:
        return file  # the settings say it
    except OSError as error:
        raise ConfigurationError(f"--env-file={file}: can't be read: {error.strerror or error}") from error
    if len(text) > MAX_PIPED_BYTES:
        raise ConfigurationError(f"--env-file={file}: at most {MAX_PIPED_BYTES} bytes are read from a pipe")
    descriptor = os.memfd_create("miner.env")
    with os.fdopen(os.dup(descriptor), "wb") as copy:
        copy.write(text)
    return Path(f"/proc/self/fd/{descriptor}")


def file_of(env_file: Path | None, service: str | None) -> Path | None:
    """Return the settings file.

    Raises:
        ConfigurationError: there is no such service, or both are given.
    """
    if service is None:
        return env_file
    if env_file is not None:
        raise ConfigurationError(f"--service={service}: it has a settings file of its own; leave --env-file out")
    return settings_file(service)


def load_settings(
    env_file: Path | None, assignments: list[str] | None, service: str | None = None, **flags: object
) -> Settings:
    """Read the settings, set up logging, and say what the operator should know.

    Raises:
        ConfigurationError: a setting is wrong.
    """
    env_file = file_of(env_file, service)
    settings = read_settings(env_file, assignments, service, **flags)
    logs.set_up(settings.log_level, settings.log_format)
    for note in settings.notes(env_file):
        logging.getLogger("miner").warning("%s", note)
    return settings


def read_settings(
    env_file: Path | None, assignments: list[str] | None, service: str | None = None, **flags: object
) -> Settings:
    """Read the settings; those that the unit of a service sets win over its file, as they do for the service.

    Raises:
        ConfigurationError: settings are wrong; all faults at once.
    """
    values: dict[str, object] = dict(unit_settings(service)) if service is not None else {}
    assigned, faults = read_assignments(assignments)
    values |= assigned | {key: value for key, value in flags.items() if value is not None}
    try:
        settings = Settings.load(env_file, **values)
    except ConfigurationError as error:
        raise ConfigurationError("\n".join([*faults, str(error)])) from error
    if "wallet_hotkey" in values and settings.wallet_hotkeys:
        faults.append(
            f"WALLET_HOTKEY={values['wallet_hotkey']}: WALLET_HOTKEYS={settings.wallet_hotkeys} takes its place; "
            "--set WALLET_HOTKEYS= leaves that out"
        )
    if faults:
        raise ConfigurationError("\n".join(faults))
    lend_to_hub(env_file)
    lend_home(settings)
    return settings


def read_assignments(assignments: list[str] | None) -> tuple[dict[str, str], list[str]]:
    """Return the settings that `KEY=VALUE` assign, the last one of a key, and a line for each that is none."""
    values: dict[str, str] = {}
    faults: list[str] = []
    names = setting_names()
    for assignment in assignments or []:
        key, equals, value = assignment.partition("=")
        if key.upper() in names and equals:
            values[key.lower()] = value
        elif key.upper() in names:
            faults.append(f"--set {shown_within(assignment)}: {key.upper()}=VALUE is needed")
        else:
            near = nearest(key.upper(), names)
            hint = f"; did you mean {near}?" if near else ""
            faults.append(f"--set {shown_within(assignment)}: there is no such setting{hint}")
    return values, faults


def tell(error: StartError) -> None:
    """Print one line for each fault."""
    for handler in logging.getLogger().handlers:  # what was logged before is read before
        handler.flush()
    level = "<3>" if systemd.is_journal(sys.stderr) else ""  # the journal's mark of an error
    for line in str(error).splitlines():
        print(f"{level}error: {line}", file=sys.stderr)


@contextmanager
def errors_told() -> Iterator[None]:
    """End with one line a fault where an error is meant for the operator, and an exit code that says whose it is."""
    try:
        yield
    except StartError as error:
        tell(error)
        leave(error.exit_code)


def end_in_order_on_sigterm() -> None:
    """Have SIGTERM unwind this process as an error does, so that no process that it started outlives it.

    A second one would break the unwinding off, and make hands on one that its whole group has got already.
    """

    def end(number: int, _: object) -> NoReturn:
        signal.signal(number, signal.SIG_IGN)
        sys.exit(128 + number)

    signal.signal(signal.SIGTERM, end)


def leave(code: int, *, hung: bool = False) -> NoReturn:
    """End the process; at once if a thread hangs in the model, for which Python would wait, or which it would crash."""
    if hung or is_at_work():
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def is_interactive() -> bool:
    """Return whether there is a screen to draw on and a keyboard; Textual draws on stderr."""
    from rich.console import Console

    screens = (Console(), Console(stderr=True))
    return sys.stdin.isatty() and all(one.is_terminal and not one.is_dumb_terminal for one in screens)
