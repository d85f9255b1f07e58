"""`roadwork-miner top`: the page for people, in a terminal."""

import time
from typing import TYPE_CHECKING, Annotated

import typer

from miner.cli.common import EnvFile, Json, Service, Set, load_settings
from miner.errors import CouldNotStart
from miner.settings.settings import Settings

if TYPE_CHECKING:
    import httpx

    from miner.status.overview import Overview

EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - listened on; asked at its own end
PATIENCE = 10.0  # seconds


def top(
    env_file: EnvFile = None,
    service: Service = None,
    once: Annotated[bool, typer.Option("--once", help="Print one frame and end.")] = False,
    interval: Annotated[float, typer.Option(min=0.2, help="Seconds between frames.")] = 2.0,
    as_json: Json = False,
    set_: Set = None,
) -> None:
    """Show the running miner: state, latency, outcomes, queue, memory, chain, the last requests.

    Ctrl-C ends it.
    """
    settings = load_settings(env_file, set_, service)
    import httpx

    with httpx.Client(base_url=address_of(settings), timeout=PATIENCE, trust_env=False) as client:
        first = fetch(client)
        if as_json:
            print(first.model_dump_json())
            return
        _show(client, first, once, interval)


def address_of(settings: Settings) -> str:
    """Return the operator's port as a URL."""
    host = EVERYWHERE.get(settings.status_host, settings.status_host)
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.status_port}"


def fetch(client: "httpx.Client") -> "Overview":
    """Ask the miner.

    Raises:
        CouldNotStart: no miner of ours answers there.
    """
    import httpx
    from pydantic import ValidationError

    from miner.status.overview import Overview

    try:
        return Overview.model_validate_json(client.get("/status").raise_for_status().content)
    except httpx.HTTPError as error:
        raise CouldNotStart(f"no miner answers at {client.base_url}: {error}") from error
    except ValidationError as error:
        raise CouldNotStart(f"what answers at {client.base_url} is no miner of this version") from error


def _show(client: "httpx.Client", overview: "Overview", once: bool, interval: float) -> None:
    from rich.console import Console
    from rich.live import Live

    from miner.status.terminal import lost, screen

    console = Console()
    if once or not console.is_terminal:
        console.print(screen(overview))
        return
    try:
        with Live(screen(overview), console=console, screen=True, auto_refresh=False) as live:
            while True:
                time.sleep(interval)
                try:
                    overview = fetch(client)
                    live.update(screen(overview), refresh=True)
                except CouldNotStart as error:
                    live.update(lost(overview, str(error)), refresh=True)
    except KeyboardInterrupt:
        return
