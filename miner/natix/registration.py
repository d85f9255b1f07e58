"""NATIX's own registration: what is signed and sent, the last word about it, and whether it still holds.

A hotkey with a uid on chain that NATIX's server does not know may never be asked. The server speaks of a uid alone:
what it says of one that changed hands may be about the hotkey before.
"""

import fcntl
import json
import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from detectors.files import as_owner, write_safely
from miner.errors import CouldNotStart
from miner.formats import age

log = logging.getLogger(__name__)

FILE_NAME = "natix.json"
MAX_FILE_BYTES = 2**20

Progress = Literal["pending", "succeeded", "failed", "absent"]  # absent: the server knows of no registration
# Whether NATIX knows us: `due` with a uid that it was not told of; `unknown` where it was never asked.
RegistrationState = Literal["yes", "no", "pending", "due", "unknown"]
STANDINGS: Mapping[Progress, RegistrationState] = {
    "succeeded": "yes",
    "failed": "no",
    "absent": "no",
    "pending": "pending",
}
COMMANDS: Mapping[RegistrationState, str] = {  # what helps
    "yes": "",
    "no": "roadwork-miner register",
    "pending": "roadwork-miner register --status",
    "due": "roadwork-miner register",
    "unknown": "roadwork-miner register, or where it was done by a script: roadwork-miner register --status",
}

Moment = Annotated[float, Field(ge=0, allow_inf_nan=False)]  # seconds since 1970


class Signer(Protocol):
    """What signs for a hotkey."""

    @property
    def ss58_address(self) -> str:
        """The hotkey's address."""
        ...

    def sign(self, data: bytes) -> bytes:
        """Sign as its hotkey does, with sr25519."""
        ...


def registration_request(hotkey: Signer, uid: int, model_repo: str, now: float) -> dict[str, str]:
    """Return the body of a registration; `now` in seconds since 1970 is what the hotkey signs."""
    message = str(int(now))
    return {
        "uid": str(uid),
        "message": message,
        "natix_public_key": hotkey.ss58_address,
        "natix_signature": hotkey.sign(message.encode()).hex(),
        "type": "miner",
        "model_repo": model_repo,
    }


class ServerWord(BaseModel):
    """What the server says of a uid: how far its registration is, and in its own words why."""

    model_config = ConfigDict(frozen=True)

    progress: Progress
    words: str = ""


class Registration(ServerWord):
    """The last word about one of our hotkeys, and what it was about; it is kept in the state folder."""

    netuid: int
    uid: int
    model_repo: str = ""
    # When the server took our registration of this uid; None: another program's, for us or for whoever had it.
    sent: Moment | None = None
    since: Moment  # when it was first said
    at: Moment  # when it was last said

    def standing(self, netuid: int, uid: int) -> RegistrationState:
        """Return whether NATIX knows the hotkey under the uid that it has on chain."""
        return STANDINGS[self.progress] if (self.netuid, self.uid) == (netuid, uid) else "due"


def following(
    before: Registration | None,
    word: ServerWord,
    netuid: int,
    uid: int,
    now: float,
    sent_repo: str | None = None,
    *,
    is_taken: bool = True,
) -> Registration:
    """Return what is kept after another word.

    A refusal to register again leaves a registration that holds as it was.

    Args:
        before: what was kept; None: nothing.
        word: what the server said.
        netuid: of the subnet.
        uid: that it was said of.
        now: seconds since 1970.
        sent_repo: the model that was sent with a registration; None: the server was only asked.
        is_taken: whether the server took what was sent. Of one that it refused, a later success is not.
    """
    if before is not None and (before.netuid, before.uid) != (netuid, uid):
        before = None
    holds = before is not None and before.progress == "succeeded"
    if before is not None and holds and sent_repo is not None and word.progress == "failed":
        return before
    is_same = before is not None and before.progress == word.progress
    taken_repo = sent_repo if is_taken else None
    return Registration(
        progress=word.progress,
        words=word.words,
        netuid=netuid,
        uid=uid,
        model_repo=taken_repo if taken_repo is not None else before.model_repo if before is not None else "",
        sent=now if taken_repo is not None else before.sent if before is not None else None,
        since=before.since if before is not None and is_same else now,
        at=now,
    )


class Registrations:
    """The last word about each hotkey, in the state folder: `register` writes it, the running miner looks at it."""

    def __init__(self, state_dir: Path) -> None:
        self.path = state_dir / FILE_NAME
        self._stamp: tuple[int, int, int] | None = None  # of what was read last
        self._kept: dict[str, Registration] = {}

    def of(self, hotkey: str) -> Registration | None:
        """Return the last word; None: there is none, or none that can be read."""
        return self._read().get(hotkey)

    def standing(self, hotkey: str, netuid: int, uid: int | None) -> RegistrationState:
        """Return whether NATIX knows a hotkey; one without a uid on chain has nothing to register."""
        kept = self.of(hotkey)
        return kept.standing(netuid, uid) if kept is not None and uid is not None else "unknown"

    def keep(self, hotkey: str, registration: Registration) -> None:
        """Keep a word in place of the one before; whoever keeps another hotkey's meanwhile waits.

        Raises:
            CouldNotStart: it can't be written.
        """
        folder = self.path.parent
        try:
            with as_owner(folder):
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX)
                    self._stamp = None  # a file that was just replaced may look the same
                    every = self._read() | {hotkey: registration}
                    text = json.dumps({name: kept.model_dump() for name, kept in every.items()}, indent=1)
                    write_safely(self.path, text.encode())
                finally:
                    os.close(lock)
        except OSError as error:
            raise CouldNotStart(f"STATE_DIR={folder}: {FILE_NAME} can't be written: {error.strerror}") from error

    def _read(self) -> dict[str, Registration]:
        try:
            found = self.path.stat()
            stamp = (found.st_mtime_ns, found.st_size, found.st_ino)
            if stamp != self._stamp:
                self._kept = _parse(self.path.read_bytes()) if found.st_size <= MAX_FILE_BYTES else {}
                self._stamp = stamp
        except OSError:
            self._stamp, self._kept = None, {}
        return self._kept


class RegistrationLog:
    """Tells the log when a hotkey's registration becomes due, and when it holds again."""

    def __init__(self, registrations: Registrations, hotkey: str, netuid: int) -> None:
        self._registrations, self._hotkey, self._netuid = registrations, hotkey, netuid
        self._seen: tuple[RegistrationState, int | None] | None = None

    def see(self, uid: int | None) -> None:
        """Look at it once the chain was read, and say what is new."""
        standing = self._registrations.standing(self._hotkey, self._netuid, uid)
        before, self._seen = self._seen, (standing, uid)
        if uid is None or self._seen == before:
            return
        words = in_words(standing, self._registrations.of(self._hotkey), uid)
        if standing in ("due", "unknown"):
            log.warning("hotkey %s, registration with NATIX: %s; %s", self._hotkey, words, COMMANDS[standing])
        elif standing == "yes" and before is not None:
            log.info("hotkey %s, registration with NATIX: %s", self._hotkey, words)


def _parse(text: bytes) -> dict[str, Registration]:
    try:
        return TypeAdapter(dict[str, Registration]).validate_json(text)
    except ValueError:  # pydantic's too; the file is ours, and `register` writes it again
        return {}


def in_words(standing: RegistrationState, kept: Registration | None, uid: int | None, now: float | None = None) -> str:
    """Return the standing in words for the operator; `now` in seconds since 1970, None: the clock's."""
    if uid is None:
        return "not yet: a uid on chain comes first"
    if kept is None or standing == "unknown":
        return "unknown: NATIX's server was never asked"
    since = f"since {age((time.time() if now is None else now) - kept.since)}"
    said = f": {kept.words}" if kept.words else ""
    match standing:
        case "yes":
            whose = "" if kept.sent is not None else ", though not sent from here: it may be of who had this uid before"
            return f"yes, uid {uid}, {since}{whose}"
        case "no" if kept.progress == "absent":
            return f"no, NATIX knows of no registration of uid {uid}, {since}"
        case "no":
            return f"no, refused {since}{said}"
        case "pending":
            return f"not decided {since}{said}"
    return f"due again: the last word was about uid {kept.uid} on netuid {kept.netuid}, ours is {uid} now"
