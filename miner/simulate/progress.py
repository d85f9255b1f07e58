"""What `simulate` shows while it plays, and at the end."""

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from miner.axon.client import Client
from miner.simulate import replay
from miner.simulate.miners import Target
from miner.simulate.output import comparison_table, report_table
from miner.simulate.run import Play, Played, play
from miner.simulate.schedule import Request
from miner.simulate.sender import Answer

WIDTH = 160  # of a table that goes into a file


def play_through(what: Play, target: Target, clients: Sequence[Client], *, told: bool) -> Played:
    """Play with a bar that shows how it goes."""
    with _bar() as bar:
        task = bar.add_task(f"asking {target.address}", total=None)
        right = answered = lost = 0

        def progress(requests: list[Request], answer: Answer) -> None:
            nonlocal right, answered, lost
            if answer.prediction is None:
                lost += 1
            else:
                answered += 1
                right += (answer.prediction > 0.5) == requests[answer.number].is_roadwork
            words = f"{right / max(1, answered):.1%} right, {lost} lost, the last after {answer.seconds * 1e3:.0f} ms"
            bar.update(task, advance=1, total=len(requests), description=words)

        return asyncio.run(play(what, clients, told, progress))


def send_again(
    recorded: Sequence[replay.Recorded], without: int, clients: Sequence[Client], speed: float, *, told: bool,
    as_json: bool,
) -> bool:  # fmt: skip
    """Send a recording again, print how the answers compare, and return whether there were any."""
    with _bar() as bar:
        task = bar.add_task(f"{len(recorded)} recorded requests", total=len(recorded))
        answers, gone = asyncio.run(replay.replay(recorded, clients, told, speed, lambda _: bar.advance(task)))
    found = replay.compared(recorded, answers, gone)
    if as_json:
        rows = [asdict(answer) for answer in answers]
        out().print_json(data={"comparison": asdict(found), "without_photo": without, "requests": rows}, indent=None)
    else:
        out().print(comparison_table(found, without))
    return found.answered > 0


def show(played: Played, target: Target) -> None:
    """Print the report; who is not let in is named."""
    out().print(report_table(played.report))
    if any(answer.status == 403 for answer in played.answers):
        keys = ",".join(sorted({wallet.hotkey.ss58_address for wallet in target.wallets}))
        out().print(f"403: let these validators in on the miner's side: BLACKLIST_ALLOW_HOTKEYS={keys}")


def in_json(what: Play, played: Played, target: Target) -> dict[str, Any]:
    """Return the report and every request, for scripts."""
    report = asdict(replace(played.report, tallies=[])) | {"scores": [tally.score for tally in played.report.tallies]}
    del report["tallies"]
    rows = [
        {
            "at": request.at,
            "delay": request.delay,
            "validator": request.validator,
            "picture": what.photos[request.picture].name,
            "roadwork": request.is_roadwork,
            "organic": request.is_organic,
        }
        | asdict(answer)
        for answer in played.answers
        for request in (played.requests[answer.number],)
    ]
    return {"miner": target.hotkey, "era": what.era, "seed": what.seed, "report": report, "requests": rows}


def out() -> Console:
    """Return where tables go."""
    return Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else WIDTH)


def _bar() -> Progress:
    words = TextColumn("{task.description}")
    columns = (SpinnerColumn(), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), words)
    console = Console(file=sys.stderr)
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
