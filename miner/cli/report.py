"""`roadwork-miner report`: one archive for whoever helps."""

import asyncio
import json
import logging
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from miner.cli.common import EnvFile, Service, Set, file_of, leave, load_settings
from miner.doctor.checkup import CheckUp
from miner.doctor.findings import Finding
from miner.doctor.settings import judge_settings, look_at_settings
from miner.errors import ConfigurationError
from miner.settings.env_file import secrets_of_environment
from miner.settings.settings import Settings, setting_names
from miner.support import bundle
from miner.support.bundle import findings_text, write_archive
from miner.support.scrub import key_files, secrets_in, secrets_of_addresses, shown_settings

ARCHIVE_SUFFIX = ".tar.gz"


def report(
    out: Annotated[
        Path | None,
        typer.Option(metavar=f"FILE{ARCHIVE_SUFFIX}", help="Default: a name with the time, in this folder."),
    ] = None,
    log: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A log to add; default: LOG_FILE, else the service's journal.")
    ] = None,
    env_file: EnvFile = None,
    service: Service = None,
    set_: Set = None,
) -> None:
    """Bundle settings, findings, metrics, versions, requests and the log; no secret, no photo."""
    settings = load_settings(env_file, set_, service)
    env_file = file_of(env_file, service)
    path = out or Path(time.strftime(f"roadwork-miner-report-%Y%m%d-%H%M%S{ARCHIVE_SUFFIX}"))
    if not path.name.endswith(ARCHIVE_SUFFIX) or not path.absolute().parent.is_dir():
        raise ConfigurationError(f"--out={path}: a name in an existing folder that ends in {ARCHIVE_SUFFIX} is allowed")

    try:
        own = settings.log_file
        logged = bundle.kept_log_text(own) if log is None and own is not None else bundle.log_text(log)
    except OSError as error:
        raise ConfigurationError(f"--log={log}: can't be read: {error.strerror or error}") from error
    address = settings.status_address
    texts = {
        "settings.json": json.dumps(shown_settings(settings), indent=2),
        "notes.txt": "\n".join(settings.notes(env_file)),
        "versions.json": bundle.versions_text(),
        "metrics.txt": bundle.asked(address, "/metrics"),
        "status.json": bundle.asked(address, "/status"),
        "log.txt": logged,
        **bundle.recorded_texts(settings.state_dir),
        "doctor.json": _findings(settings, env_file),
    }
    secrets = [
        *secrets_in(key_files(settings)),
        *secrets_of_addresses(settings),
        *secrets_of_environment(setting_names(), env_file),
    ]
    write_archive(path, texts, secrets)
    print(f"{path}: {len(texts)} files; look it through before you hand it on: tar -xzf {path}")
    leave(0, hung=True)  # the check-up may have left a look-up behind


def _findings(settings: Settings, env_file: Path | None) -> str:
    from rich.console import Console

    logging.getLogger("miner").setLevel(logging.CRITICAL)  # what the parts would log is what the lines say
    first, *others = settings.each_key()
    checkup = CheckUp(first, others=others)

    async def examine() -> "list[Finding]":
        return [seen async for seen in checkup.examine() if isinstance(seen, Finding)]

    with Console(file=sys.stderr).status("the check-up, up to a minute …"):
        findings = [judge_settings(look_at_settings(env_file, settings, "")), *asyncio.run(examine())]
    return findings_text(findings, settings, running=checkup.is_running)
