"""`roadwork-miner top`: the page for people, in a terminal."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from miner.cli.common import EnvFile, Json, Service, Set, is_interactive, load_settings
from miner.errors import CouldNotStart

if TYPE_CHECKING:
    import httpx

    from miner.status.overview import Overview

ANSWER_SECONDS = 10.0  # seconds


def top(
    env_file: EnvFile = None,
    service: Service = None,
    once: Annotated[bool, typer.Option("--once", help="Print one frame and end.")] = False,
    interval: Annotated[float, typer.Option(min=0.2, help="Seconds between frames.")] = 2.0,
    as_json: Json = False,
    set_: Set = None,
) -> None:
    """Show the running miner: state, latency, outcomes, queue, memory, chain, the last requests.

    Arrow keys and the mouse wheel scroll, `q` ends it. Where stdin or stdout is no terminal, one frame is printed.
    """
    settings = load_settings(env_file, set_, service)
    import httpx

    address = settings.status_address
    with httpx.Client(base_url=address, timeout=ANSWER_SECONDS, trust_env=False) as client:
        first = fetch(client)
    if as_json:
        print(first.model_dump_json())
    elif once or not is_interactive():
        _print(first)
    else:
        asyncio.run(_follow(address, first, interval))


def fetch(client: "httpx.Client") -> "Overview":
    """Ask the miner.

    Raises:
        CouldNotStart: no miner of ours answers there.
    """
    with _explained(client.base_url):
        return _overview(client.get("/status"))


async def _follow(address: str, first: "Overview", interval: float) -> None:
    import httpx

    from miner.status.terminal import Frame, frame_of
    from miner.status.top import Top

    async with httpx.AsyncClient(base_url=address, timeout=ANSWER_SECONDS, trust_env=False) as client:

        async def again() -> Frame:
            with _explained(client.base_url):
                return frame_of(_overview(await client.get("/status")))

        app = Top(frame_of(first), again, interval)
        await app.run_async()
    if app.return_code:  # Textual has printed why
        raise typer.Exit(app.return_code)


@contextmanager
def _explained(address: object) -> Iterator[None]:
    import httpx
    from pydantic import ValidationError

    try:
        yield
    except httpx.HTTPError as error:
        raise CouldNotStart(f"no miner answers at {address}: {error}") from error
    except ValidationError as error:
        raise CouldNotStart(f"what answers at {address} is no miner of this version") from error


def _overview(answer: "httpx.Response") -> "Overview":
    from miner.status.overview import Overview

    return Overview.model_validate_json(answer.raise_for_status().content)


def _print(overview: "Overview") -> None:
    from rich.console import Console

    from miner.status.terminal import screen

    Console().print(screen(overview))
