"""`roadwork-miner label`: the page on which somebody labels recorded photos; import and export of the labels."""

import asyncio
import json
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from detectors.errors import DetectorConfigError
from miner.cli.common import EnvFile, Json, Service, Set, load_settings
from miner.errors import ConfigurationError, CouldNotStart
from miner.feedback import FOLDER
from miner.feedback.labels import Intake, Labels, editing, write_copy
from miner.feedback.traffic import read_traffic
from miner.recorder import FOLDER as RECORDER
from miner.settings.settings import Settings

if TYPE_CHECKING:
    from miner.feedback.sitting import Sitting

PORT = 9470  # behind the operator's 9464, and those of further miners


def label(
    env_file: EnvFile = None,
    service: Service = None,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port on this machine's loopback; 0: any free one.")
    ] = PORT,
    import_: Annotated[
        Path | None,
        typer.Option(
            "--import", metavar="FOLDER", help="Take labelled photos in: folders roadwork, no_roadwork, or one."
        ),
    ] = None,
    export: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Copy photos and labels.csv there; it is new or empty.")
    ] = None,
    as_json: Json = False,
    set_: Set = None,
) -> None:
    """Label recorded photos in a browser, those that teach most first.

    The page is for this machine alone; what it prints says how to reach it from another one. Every label is on the disk
    before the page says so: Ctrl-C ends it at any time, and the next call goes on.
    """
    if import_ is not None and export is not None:
        raise ConfigurationError("--import and --export: one at a time")
    settings = load_settings(env_file, set_, service)
    folder = settings.state_dir / FOLDER
    if export is not None:
        _export(folder, export, as_json=as_json)
    elif import_ is not None:
        _import(settings, folder, import_, as_json=as_json)
    else:
        with editing(folder) as labels:
            try:
                asyncio.run(_serve(settings, labels, port, as_json=as_json))
            finally:
                _renew(settings, labels)


def _renew(settings: Settings, labels: Labels) -> None:
    """Have the daemon show what these labels say; the labels themselves are on the disk."""
    from miner.feedback.standing import renew_standing

    if not labels:
        return
    try:
        renew_standing(settings.state_dir, labels, time.time())
    except OSError as error:
        print(f"the page shows the figures from before: {labels.folder}: {error.strerror or error}", file=sys.stderr)


def _import(settings: Settings, folder: Path, source: Path, *, as_json: bool) -> None:
    if source.resolve().is_relative_to(folder.resolve()) or folder.resolve().is_relative_to(source.resolve()):
        raise ConfigurationError(f"--import={source}: the labels themselves are there; a folder elsewhere is needed")
    with editing(folder) as labels:
        try:
            with _bar() as tell:
                taken = labels.take_in(source, round(time.time(), 3), tell)
        except DetectorConfigError as error:
            raise ConfigurationError(f"--import={source}: {error}") from error
        except OSError as error:
            raise CouldNotStart(f"--import={source}: {error.strerror or error}; the same command goes on") from error
        _renew(settings, labels)
        _tell_imported(taken, labels, as_json=as_json)


def _tell_imported(taken: Intake, labels: Labels, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(taken._asdict() | {"labelled": len(labels.decided), "folder": str(labels.folder)}))
        return
    for line in taken.left_out:
        print(f"left out: {line}", file=sys.stderr)
    known = f", {taken.known} had a label already" if taken.known else ""
    others = f" (the other one, of {taken.others}; it stands)" if taken.others else ""
    print(f"{labels.folder}: {taken.new} labels imported{known}{others}; {len(labels.decided)} in all")


def _export(folder: Path, target: Path, *, as_json: bool) -> None:
    labels = Labels(folder)
    try:
        with _bar() as tell:
            count = write_copy(labels, target, lambda done, of: tell("exporting", done, of))
    except OSError as error:
        raise CouldNotStart(f"--export={target}: {error.strerror or error}; nothing was left there") from error
    if as_json:
        print(json.dumps({"folder": str(target), "photos": count, "skipped": len(labels) - count}))
    else:
        print(f"{target}: {count} photos and labels.csv; faces and number plates in them are not for sharing")


@contextmanager
def _bar() -> Iterator[Callable[[str, int, int], None]]:
    from rich.console import Console

    from detectors.console import Screen

    with Screen(Console(stderr=True)).bar("reading") as update:
        yield lambda what, done, of: update(done, total=of, what=what)


def _open(settings: Settings, labels: Labels, recorder: Path) -> "Sitting":
    """Begin a sitting with what is recorded.

    Raises:
        ConfigurationError: there is no photo, and there will be none.
        CouldNotStart: the recorder's folder can't be read.
    """
    from miner.feedback.sitting import Sitting

    sitting = Sitting(labels)
    try:
        sitting.take_in(read_traffic(recorder))
    except OSError as error:
        raise CouldNotStart(f"{recorder}: can't be read: {error.strerror or error}") from error
    note = recorder_note(settings.recorder)
    if note and not sitting.tally().waiting and not len(labels):
        raise ConfigurationError(f"{note}; {recorder} holds no photo, and none waits in {labels.folder}")
    if note:
        print(note, file=sys.stderr)
    return sitting


def recorder_note(mode: str) -> str:
    """Return what keeps new photos away, and what to do; nothing: they come."""
    if mode == "images":
        return ""
    return f"RECORDER={mode}: no new photos are recorded; RECORDER=images in the settings and a restart keep them"


async def _serve(settings: Settings, labels: Labels, port: int, *, as_json: bool) -> None:
    """Serve the page until a signal."""
    from miner.feedback.server import serving

    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    recorder = settings.state_dir / RECORDER
    sitting = await asyncio.to_thread(_open, settings, labels, recorder)
    async with serving(sitting, recorder, port, recorder_note(settings.recorder)) as address:
        print(_welcome(sitting, address, as_json=as_json), flush=True)
        await stop.wait()
    if not as_json:
        tally = sitting.tally()
        print(f"{tally.labelled} labelled, {tally.surprises} surprises, {tally.waiting} waiting: {labels.folder}")


def _welcome(sitting: "Sitting", address: str, *, as_json: bool) -> str:
    """Return what somebody has to know who just called it."""
    tally = sitting.tally()
    if as_json:
        return json.dumps({"address": address, "waiting": tally.waiting, "labelled": tally.labelled})
    port = address.split(":")[2].partition("/")[0]
    tunnel = f"ssh -N -L {port}:127.0.0.1:{port} you@{socket.gethostname()}"
    return (
        f"{tally.waiting} photos wait, {tally.labelled} are labelled. Open\n\n    {address}\n\n"
        f"from another machine: {tunnel}\n    and the same address there\n"
        "from a phone: that in an SSH app of its own; or on a computer with the tunnel and the phone on its USB:\n"
        f"    adb reverse tcp:{port} tcp:{port}\n"
        "The address is secret: whoever has it sees the photos. They stay on this machine.\n"
        "Ctrl-C ends it; what is labelled is on the disk."
    )
