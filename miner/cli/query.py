"""`roadwork-miner query`: a validator in one command."""

import asyncio
import json
import statistics
import sys
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from miner.axon.client import Client, Reply, another
from miner.chain.identities import own_wallet
from miner.chain.standalone import own_wallet as throwaway_wallet
from miner.chain.standalone import standalone_file
from miner.chain.wallet import load_hotkey
from miner.cli.common import EnvFile, Json, Key, Service, Set, load_settings
from miner.errors import ConfigurationError
from miner.settings.addresses import local_url
from miner.settings.settings import Settings
from miner.settings.validators import VALIDATORS_WAIT

if TYPE_CHECKING:
    from bittensor import Wallet


def query(
    images: Annotated[list[Path], typer.Argument(help="Photos to send, in turn.", metavar="IMAGE…")],
    env_file: EnvFile = None,
    service: Service = None,
    wire: Annotated[Literal["dendrite", "btauth"], typer.Option(help="SDK 9 and 10, or SDK 11.")] = "dendrite",
    count: Annotated[int, typer.Option(min=1, help="Requests to send.")] = 1,
    concurrency: Annotated[int, typer.Option(min=1, help="Concurrent requests.")] = 1,
    host: Annotated[str, typer.Option(help="Where the miner is.")] = "127.0.0.1",
    port: Annotated[int | None, typer.Option(help="Its port; default: MINER_AXON_PORT.")] = None,
    receiver: Annotated[str | None, typer.Option(help="The miner's hotkey; default: this machine's miner.")] = None,
    wallet: Annotated[
        str | None,
        typer.Option(metavar="NAME/HOTKEY", help="Who signs; default: standalone's validator, or your wallet."),
    ] = None,
    key: Key = None,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds to wait.")] = VALIDATORS_WAIT,
    as_json: Json = False,
    set_: Set = None,
) -> None:
    """Ask a miner about photos as a validator would.

    Exit code 1 if a request got no prediction.
    """
    settings = load_settings(env_file, set_, service).of_key(key)
    photos = [_read(path) for path in images]
    signer = _signer(settings, wallet)

    hotkey = receiver or own_wallet(settings).hotkey.ss58_address
    address = local_url(host, port or settings.miner_axon_port)
    count = max(count, len(photos))

    async def ask_all() -> tuple[list[Reply], float]:
        async with Client(signer, hotkey, address, wire, timeout) as client:
            started = time.perf_counter()
            replies = await _ask(client, photos, count, concurrency)
            return replies, time.perf_counter() - started

    replies, seconds = asyncio.run(ask_all())
    names = [str(images[number % len(images)]) for number in range(count)]
    summary = _summary(replies, seconds)
    if as_json:
        rows = [{"image": name} | asdict(reply) for name, reply in zip(names, replies, strict=True)]
        print(json.dumps({"replies": rows, "summary": summary}))
    elif count <= 20:
        for name, reply in zip(names, replies, strict=True):
            print(_line(name, reply))
    if count > 1 and not as_json:
        print(_summary_line(summary))
    if any(reply.prediction is None for reply in replies):
        raise typer.Exit(1)


async def _ask(client: Client, photos: list[bytes], count: int, concurrency: int) -> list[Reply]:
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, SpinnerColumn, TimeElapsedColumn

    replies: dict[int, Reply] = {}
    numbers = iter(range(count))
    columns = (SpinnerColumn(), *Progress.get_default_columns(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(file=sys.stderr), disable=count == 1, transient=True) as progress:
        task = progress.add_task(f"{concurrency} at once", total=count)

        async def worker() -> None:
            for number in numbers:
                again, photo = divmod(number, len(photos))
                replies[number] = await client.ask(another(photos[photo], again))
                progress.advance(task)

        async with asyncio.TaskGroup() as group:
            for _ in range(min(concurrency, count)):
                group.create_task(worker())
    return [replies[number] for number in range(count)]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"IMAGE={path}: {(error.strerror or str(error)).lower()}") from error


def _signer(settings: Settings, wallet: str | None) -> "Wallet":
    if wallet is not None:
        name, _, hotkey = wallet.partition("/")
        return load_hotkey(settings.wallet_path, name, hotkey or "default")
    if settings.is_standalone:
        standalone_file(settings.state_dir)
        return throwaway_wallet(settings.state_dir, "validator")

    return own_wallet(settings)


def _line(name: str, reply: Reply) -> str:
    took = f"{reply.seconds * 1e3:.1f} ms"
    if reply.prediction is None:
        return f"{name}: no prediction ({reply.status or 'no answer'}: {reply.message}; {took})"
    return f"{name}: roadwork {reply.prediction:.4f} ({took})"


def _summary(replies: list[Reply], seconds: float) -> dict[str, Any]:
    answered = sorted(reply.seconds for reply in replies if reply.prediction is not None)
    cuts = statistics.quantiles(answered, n=100, method="inclusive") if len(answered) > 1 else answered * 99
    statuses = Counter(str(reply.status or "no answer") for reply in replies)
    return {
        "count": len(replies),
        "answered": len(answered),
        "by_status": dict(sorted(statuses.items())),
        "seconds": seconds,
        "answers_per_second": len(answered) / seconds,
        "p50": cuts[49] if cuts else None,
        "p95": cuts[94] if cuts else None,
        "p99": cuts[98] if cuts else None,
        "max": answered[-1] if answered else None,
    }


def _summary_line(summary: dict[str, Any]) -> str:
    statuses = ", ".join(f"{count} × {status}" for status, count in summary["by_status"].items())
    line = f"{summary['answered']} of {summary['count']} answered in {summary['seconds']:.2f} s ({statuses})"
    if summary["answered"]:
        times = ", ".join(f"{name} {summary[name] * 1e3:.1f} ms" for name in ("p50", "p95", "p99", "max"))
        line += f"; {summary['answers_per_second']:.1f} a second; {times}"
    return line
