"""`roadwork-miner doctor`: why no request comes, or that one may."""

import asyncio
import json
import logging
import sys
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from detectors.photos.labelled import is_labelled
from detectors.redact import shown_within
from miner.cli.common import Config, Detector, EnvFile, Json, Key, Service, Set, file_of, leave, read_settings
from miner.doctor.checkup import CheckUp
from miner.doctor.findings import Finding, judged, verdict
from miner.doctor.settings import judge_settings, look_at_settings
from miner.errors import ConfigurationError
from miner.settings.settings import Settings
from miner.status.archive import CheckupView, FindingView, checkup_file

if TYPE_CHECKING:
    from rich.console import Console
    from rich.status import Status

COLOURS = {"ok": "green", "warning": "yellow", "problem": "bold red"}


def doctor(
    env_file: EnvFile = None,
    service: Service = None,
    detector: Detector = None,
    config: Config = None,
    probe: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help='Asked with host and port ({host}, {port}); answers 200, with the JSON {"reachable": false} if it '
            "could not connect to us.",
        ),
    ] = None,
    key: Key = None,
    pictures: Annotated[
        Path | None,
        typer.Option(help="Folder of photos, in subfolders roadwork and no_roadwork: which class is roadwork?"),
    ] = None,
    as_json: Json = False,
    set_: Set = None,
) -> None:
    """Look at everything that keeps requests or rewards away, and say what to do.

    Exit code 1 on a problem.
    """
    from rich.console import Console

    if pictures is not None and not is_labelled(pictures):
        raise ConfigurationError(
            f"--pictures={pictures}: a folder with the subfolders roadwork and no_roadwork is needed"
        )
    # What the parts would log is what the lines say.
    logging.basicConfig(handlers=[logging.NullHandler()])
    env_file = file_of(env_file, service)
    settings, others, faults = _settings(env_file, service, set_, detector, config, key)
    console = Console(highlight=False, soft_wrap=True)
    findings = [judged("settings", lambda: judge_settings(look_at_settings(env_file, settings, faults)))]
    running = False
    if not as_json:
        _print(console, findings[0])
    if settings is not None:
        checkup = CheckUp(settings, probe, pictures, others)
        with Console(stderr=True).status("…") as status:
            findings += asyncio.run(_examine(checkup, status, None if as_json else console))
        running = checkup.is_running
    sentence = verdict(findings, running=running, standalone=settings is not None and settings.is_standalone)
    if as_json:
        print(json.dumps({"findings": [asdict(finding) for finding in findings], "verdict": sentence}, indent=2))
    else:
        print(sentence)
    if settings is not None:
        _keep(settings, findings, sentence)
    # At once: the look-up of a name that no server answers may go on for a minute.
    leave(1 if any(finding.level == "problem" for finding in findings) else 0, hung=True)


def _settings(
    env_file: Path | None,
    service: str | None,
    assignments: list[str] | None,
    detector: str | None,
    config: str | None,
    key: str | None,
) -> tuple[Settings | None, list[Settings], str]:
    """Return the settings of the hotkey, those of the others, and what is wrong with them."""
    try:
        flags = {"image_detector": detector, "image_detector_config": config}
        whole = read_settings(env_file, assignments, service, **flags)
        settings = whole.of_key(key)
    except ConfigurationError as error:
        return None, [], str(error)
    return settings, [one for one in whole.each_key() if one.wallet_hotkey != settings.wallet_hotkey], ""


def _keep(settings: Settings, findings: list[Finding], sentence: str) -> None:
    """Leave the findings to the page; without a miner's folder, or in one that can't be written, there are none."""
    views = [
        FindingView(name=one.name, level=one.level, words=shown_within(one.words), todo=shown_within(one.todo))
        for one in findings
    ]
    view = CheckupView(at=time.time(), key=settings.wallet_hotkey, verdict=shown_within(sentence), findings=views)
    with suppress(OSError):
        view.write(checkup_file(settings))


async def _examine(checkup: CheckUp, status: "Status", console: "Console | None") -> list[Finding]:

    findings = []
    async for seen in checkup.examine():
        if isinstance(seen, Finding):
            findings.append(seen)
            if console is not None:
                _print(console, seen)
        else:
            status.update(seen.words)
    sys.stdout.flush()
    return findings


def _print(console: "Console", finding: Finding) -> None:
    from rich.text import Text

    console.print(Text(f"{finding.level:8}", COLOURS[finding.level]) + Text(f"{finding.name:13} {finding.words}"))
    if finding.todo:
        console.print(Text(f"{'':22}→ {finding.todo}"))
