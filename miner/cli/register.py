"""`roadwork-miner register`: NATIX's own registration, which comes after the chain's."""

import asyncio
import json
import logging
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from miner.chain.identities import own_wallet
from miner.cli.common import EnvFile, Json, Key, Service, Set, load_settings
from miner.errors import ConfigurationError, CouldNotStart

if TYPE_CHECKING:
    from miner.natix.registration import Registration, ServerWord
    from miner.natix.server import NatixServer, ServerRefusal
    from miner.settings.settings import Settings

log = logging.getLogger(__name__)

CHAIN_SECONDS = 30.0


def register(
    env_file: EnvFile = None,
    service: Service = None,
    key: Key = None,
    model_repo: Annotated[
        str | None, typer.Option(metavar="OWNER/NAME", help="Published model; default: that of MODEL_URL.")
    ] = None,
    uid: Annotated[int | None, typer.Option(min=0, max=65535, help="Uid; default: the one on chain.")] = None,
    only_status: Annotated[bool, typer.Option("--status", help="Ask how it is, and send nothing.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the request, and send nothing.")] = False,
    timeout: Annotated[float, typer.Option(min=0, help="Seconds to wait for the outcome.")] = 180,
    as_json: Json = False,
    set_: Set = None,
) -> None:
    """Register the hotkey with NATIX, once it has a uid on chain, and wait for the outcome.

    Whom NATIX's server (NATIX_URL) does not know may never be asked; it is due again after a new uid. The request is
    signed with the hotkey and names the published model. Of several hotkeys each is registered by itself (--key). Exit
    code 1: refused, not known, or not decided in time.
    """
    from miner.natix.registration import Registrations, ServerWord, following, registration_request
    from miner.natix.repository import repository_of
    from miner.natix.server import NatixServer

    whole = load_settings(env_file, set_, service)
    settings = whole.of_key(key)
    if settings.is_standalone and not (only_status or dry_run):
        raise ConfigurationError("SUBTENSOR_NETWORK=standalone: its throwaway key has no uid that NATIX could know")
    name, given = ("--model-repo", model_repo) if model_repo is not None else ("MODEL_URL", settings.model_url)
    repository = "" if only_status else repository_of(name, given)
    hotkey = own_wallet(settings).hotkey
    number = uid if uid is not None else _uid_on_chain(settings, hotkey.ss58_address)
    if dry_run:
        body = registration_request(hotkey, number, repository, time.time())
        _print_request(settings.natix_url, body, only_status=only_status, as_json=as_json)
        return
    kept = Registrations(settings.state_dir)
    before = kept.of(hotkey.ss58_address)

    is_ours = not only_status or uid is None or before is None or (before.netuid, before.uid) == (settings.netuid, uid)

    def keep(word: "ServerWord", *, is_taken: bool = True) -> "Registration":
        sent = None if only_status else repository
        last = before if is_ours else None
        found = following(last, word, settings.netuid, number, time.time(), sent, is_taken=is_taken)
        if not is_ours:
            return found
        try:
            kept.keep(hotkey.ss58_address, found)
        except CouldNotStart as fault:  # what was said counts; the miner's page won't know it
            log.warning("%s", fault)
        return found

    refusal = None
    with NatixServer(settings.natix_url) as server:
        if only_status:
            word = server.status(number)
        else:
            body = registration_request(hotkey, number, repository, time.time())
            word, refusal = _register(server, number, body, timeout, keep)
    found = keep(word or ServerWord(progress="absent"), is_taken=refusal is None)
    if word is not None:
        _tell(hotkey.ss58_address, word, found, refusal, as_json=as_json)
    elif as_json:
        print(json.dumps({"hotkey": hotkey.ss58_address, "uid": number, "progress": None}))
    else:
        print(f"NATIX knows of no registration of uid {number}; roadwork-miner register sends one")
    if not is_ours and before is not None and not as_json:
        print(f"this was not kept: the last word kept is of uid {before.uid} on netuid {before.netuid}; without --uid "
              "the chain is asked for ours")  # fmt: skip
    others = [one.wallet_hotkey for one in whole.each_key() if one.wallet_hotkey != settings.wallet_hotkey]
    if others and key is None and not as_json:
        print(f"this was {settings.wallet_hotkey} alone; each hotkey has a registration: --key {' or '.join(others)}")
    if word is None or word.progress != "succeeded":
        raise typer.Exit(1)


def _uid_on_chain(settings: "Settings", hotkey: str) -> int:
    """Ask the chain for a hotkey's uid.

    Raises:
        StartError: there is none, or no chain.
    """
    if settings.is_standalone:
        raise ConfigurationError("--uid: is needed while SUBTENSOR_NETWORK=standalone, which has no chain to ask")
    from miner.chain.client import ChainFault
    from miner.chain.sync import register_command

    try:
        with _progress() as show:
            show(f"asking the chain for the uid of {hotkey}")
            found = asyncio.run(_ask_chain(settings, hotkey))
    except ChainFault as fault:
        raise CouldNotStart(f"the chain can't be read: {fault}; --uid gives what it would say") from fault
    if found is None:
        command = register_command(settings.netuid, settings.wallet_name, hotkey, settings.subtensor_network)
        raise CouldNotStart(
            f"hotkey {hotkey} has no uid on subnet {settings.netuid} yet; where its coldkey is: {command}"
        )
    return found


async def _ask_chain(settings: "Settings", hotkey: str) -> int | None:
    from miner.chain.client import ChainClient
    from miner.chain.queries import read_uid

    with tempfile.TemporaryDirectory() as cache:  # not the miner's own: this may run as another user
        client = ChainClient(settings.chain_address, Path(cache))
        try:
            return await client.call(partial(read_uid, netuid=settings.netuid, hotkey=hotkey), CHAIN_SECONDS)
        finally:
            await client.close()


def _print_request(address: str, body: dict[str, str], *, only_status: bool, as_json: bool) -> None:
    from miner.natix.server import REGISTER_PATH, STATUS_PATH

    method, path = ("GET", STATUS_PATH + body["uid"]) if only_status else ("POST", REGISTER_PATH)
    sent = None if only_status else body
    if as_json:
        print(json.dumps({"method": method, "url": address + path, "body": sent}, indent=2))
        return
    print(f"{method} {address}{path}")
    if sent is not None:
        print(json.dumps(sent, indent=2))


def _register(
    server: "NatixServer", uid: int, body: dict[str, str], timeout: float, keep: Callable[..., object]
) -> "tuple[ServerWord, ServerRefusal | None]":
    """Send a registration and wait; return the last word, and the refusal where it was not taken.

    Of a conflict the last word is what the server has of the uid: another program may have registered us before.
    """
    from miner.natix.server import NatixFault, ServerRefusal, wait_for_end

    with _progress() as show:
        show(f"sending the registration of uid {uid} to {server.host}")
        try:
            word = server.register(body)
        except NatixFault as fault:
            raise NatixFault(f"{fault}; whether it arrived says roadwork-miner register --status") from fault
        show(_line(word))
        refusal = word if isinstance(word, ServerRefusal) else None
        if refusal is not None:
            with suppress(NatixFault):  # the refusal counts all the same
                refusal = refusal.model_copy(update={"there": server.status(uid)})
            word = refusal.there if refusal.is_conflict and refusal.there is not None else refusal
        if word.progress == "pending":
            keep(word, is_taken=refusal is None)  # whoever breaks the waiting off has it in the file
            for word in wait_for_end(server, uid, timeout):
                show(_line(word))
    return word, refusal


def _line(word: "ServerWord") -> str:
    return f"{word.progress}{f': {word.words}' if word.words else ''}"


@contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """Show what goes on: in place with the seconds on a terminal, else a line for each change."""
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    if console.is_terminal:
        columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
        with Progress(*columns, console=console, transient=True) as progress:
            task = progress.add_task("…", total=None)
            yield lambda line: progress.update(task, description=escape(line))
        return
    said = [""]

    def say(line: str) -> None:
        if line != said[-1]:
            print(line, file=sys.stderr, flush=True)
            said.append(line)

    yield say


def _tell(
    hotkey: str, word: "ServerWord", found: "Registration", refusal: "ServerRefusal | None", *, as_json: bool
) -> None:
    """Print what was said now, which of a refusal is not what is kept."""
    if as_json:
        told = {"hotkey": hotkey} | found.model_dump() | {"progress": word.progress, "words": word.words}
        print(json.dumps(told | {"refusal": refusal.words if refusal is not None else None}))
        return
    there = refusal.there if refusal is not None else None
    words = f": {word.words}" if word.words else ""
    if refusal is not None and word is not refusal:
        print(f"refused by NATIX: {refusal.words}; what it has of uid {found.uid} counts")
    match word.progress:
        case "succeeded":
            print(f"registered with NATIX: uid {found.uid} on netuid {found.netuid}{words}")
            if found.sent is None:
                cure = "ask NATIX" if refusal is not None else "send your own: roadwork-miner register"
                print("NATIX says so of the uid alone, and this was not sent from here: if the uid had another hotkey "
                      f"before, {cure}")  # fmt: skip
        case "failed":
            print(f"refused by NATIX{words}")
            if there is not None:
                print(f"what it has of uid {found.uid}: {_line(there)}; where register.sh sent that for this hotkey, "
                      "roadwork-miner register --status keeps it")  # fmt: skip
        case "pending":
            print(f"not decided yet{words}; ask again: roadwork-miner register --status")
