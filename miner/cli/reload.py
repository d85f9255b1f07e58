"""`roadwork-miner reload`: another model in the running miner."""

import os
import signal
import time
from typing import TYPE_CHECKING, Annotated

import typer

from miner.cli.common import EnvFile, Json, Service, Set, load_settings
from miner.cli.top import ANSWER_SECONDS, fetch
from miner.errors import CouldNotStart
from miner.lock import holder
from miner.settings.settings import Settings

if TYPE_CHECKING:
    from miner.status.overview import Overview, ReloadView

LOOK_SECONDS = 0.2


def reload(
    env_file: EnvFile = None,
    service: Service = None,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds to wait; a model may have to be fetched first.")] = 900,
    as_json: Json = False,
    set_: Set = None,
) -> None:
    """Load the model again in the running miner; the old one serves until the new one is checked.

    The miner reads its settings file again and takes from it what chooses the model and its shadow: IMAGE_DETECTOR and
    IMAGE_DETECTOR_CONFIG, _BACKEND and _PRECISION, SHADOW_DETECTOR, SHADOW_DETECTOR_CONFIG and SHADOW_SAMPLE. Exit code
    1: the old model keeps serving, for the reason printed.
    """
    settings = load_settings(env_file, set_, service)
    after = reload_running(settings, timeout)
    assert after.reload is not None
    _tell(after.reload, as_json)


def reload_running(settings: Settings, timeout: float) -> "Overview":
    """Have the running miner load its model again, and return what it is like afterwards.

    Raises:
        CouldNotStart: none runs, it is another user's, it loads its first model still, or it is not done in time.
    """
    import httpx

    pid = holder(settings.state_dir)
    if pid is None:
        raise CouldNotStart(f"STATE_DIR={settings.state_dir}: no miner runs with this state folder")
    with httpx.Client(base_url=settings.status_address, timeout=ANSWER_SECONDS, trust_env=False) as client:
        overview = fetch(client)
        if overview.identity.pid != pid:
            raise CouldNotStart(f"what answers at {client.base_url} is not the miner of STATE_DIR={settings.state_dir}")
        if overview.reload is None:
            raise CouldNotStart("the miner loads its first model still")
        before, until = overview.reload.asked, time.monotonic() + timeout
        _ask(pid)
        while (after := fetch(client)).reload is None or after.reload.done <= before:
            if time.monotonic() > until:
                raise CouldNotStart(f"the miner is not done after {timeout:g} s; its log will say how it ends")
            time.sleep(LOOK_SECONDS)
    return after


def _ask(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGHUP)
    except PermissionError as error:
        raise CouldNotStart(f"the miner with pid {pid} is another user's: ask as that user, or with sudo") from error
    except ProcessLookupError as error:
        raise CouldNotStart(f"the miner with pid {pid} has just ended") from error


def _tell(view: "ReloadView", as_json: bool) -> None:
    if as_json:
        print(view.model_dump_json())
    elif view.ok:
        print(f"reloaded: {view.text}")
    else:
        print(f"not reloaded, the old model keeps serving: {view.text}")
    if not view.ok:
        raise typer.Exit(1)
