"""The hub, as a publisher meets it: the last card is read, a repository made, and all files go up in one commit."""

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from detectors.models.sources import FORBIDDEN, NOT_FOUND, TRY_LATER, UNAUTHORISED, hub_refusal
from miner.errors import CouldNotStart, MinerError
from miner.formats import one_line
from miner.natix.server import PLAIN, body_within

T = TypeVar("T")
TOKEN_PAGE = "https://huggingface.co/settings/tokens"  # noqa: S105 - a page
NEEDS_TOKEN = f"a token with the right to write is needed: {TOKEN_PAGE}, as HF_TOKEN or by `hf auth login`"
TOO_MUCH = 429
READ_SECONDS = 30.0
MAX_DOCUMENT_BYTES = 2**18
STALE = re.compile(
    r"model(-\d+-of-\d+)?\.safetensors|model\.safetensors\.index\.json|pytorch_model\.bin|view_head\.json"
)


class HubAway(MinerError):
    """The hub did not answer; the message says why."""


@dataclass(frozen=True, slots=True)
class HubAnswer:
    """What the hub said of a file; cut short where it is too long for a document."""

    status: int
    lacks_all: bool  # it is the repository that is not there, or not for us
    content: bytes


def ask_for(repository: str, name: str, seconds: float, headers: Mapping[str, str] | None = None) -> HubAnswer:
    """Ask for a document of the newest commit, past the cache, which would stand in for a hub that is away.

    Args:
        repository: `owner/name`.
        name: of the file.
        seconds: for each step, and for the whole answer.
        headers: with a token in them; None: as anybody asks.

    Raises:
        HubAway: there is no answer.
    """
    import httpx
    from huggingface_hub import hf_hub_url

    until = time.monotonic() + seconds
    try:
        address = hf_hub_url(repository, name)
        sent = {**PLAIN, **(headers or {})}
        with httpx.stream("GET", address, headers=sent, timeout=seconds, follow_redirects=True) as response:
            content = body_within(response, MAX_DOCUMENT_BYTES, until)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise HubAway(f"the hub can't be reached: {one_line(str(error)) or type(error).__name__}") from error
    lacks_all = response.headers.get("X-Error-Code") in ("RepoNotFound", "GatedRepo")
    return HubAnswer(response.status_code, lacks_all, content)


class HubFault(CouldNotStart):
    """The hub refuses, or can't be reached; the message says what can be done."""


class HubRepository:
    """One repository of the hub that is ours; `HF_ENDPOINT`, `HF_TOKEN` and `HF_HUB_OFFLINE` mean what they always do.

    Raises:
        HubFault: there is no token, or no network is allowed.
    """

    def __init__(self, repository: str) -> None:
        from huggingface_hub import HfApi, constants, get_token

        self.name = repository
        if constants.HF_HUB_OFFLINE:
            raise HubFault("HF_HUB_OFFLINE=1 allows no network; leave it out to publish, or give --dry-run")
        if get_token() is None:
            raise HubFault(f"HF_TOKEN is not set: {NEEDS_TOKEN}")
        self._api = HfApi()

    def check_token(self) -> str:
        """Return whose token it is.

        Raises:
            HubFault: it is none, or it can only read.
        """
        found = self._told(self._api.whoami)
        role = found.get("auth", {}).get("accessToken", {}).get("role", "")
        if role == "read":
            raise HubFault(f"HF_TOKEN can only read: {NEEDS_TOKEN}")
        return str(found.get("name", ""))

    def read(self, name: str, *, may_be_cut: bool = False) -> bytes | None:
        """Return a file of the newest commit; None: there is none, or no repository yet.

        Args:
            name: of the file.
            may_be_cut: whether the beginning is enough of a long one.

        Raises:
            HubFault: the hub refuses, or can't be reached.
        """
        from huggingface_hub import get_token

        try:
            answer = ask_for(self.name, name, READ_SECONDS, {"authorization": f"Bearer {get_token()}"})
        except HubAway as fault:
            raise HubFault(str(fault)) from fault
        if answer.status == NOT_FOUND or answer.lacks_all:
            return None
        if answer.status == 200 and len(answer.content) > MAX_DOCUMENT_BYTES and not may_be_cut:
            raise HubFault(f"{name} of {self.name} has more than {MAX_DOCUMENT_BYTES} bytes: look at --repo")
        if answer.status != 200:
            raise HubFault(
                f"{name} of {self.name} can't be read: HTTP {answer.status}: {way_out(answer.status, self.name)}"
            )
        return answer.content

    def make(self) -> None:
        """Make the repository where there is none; it has to be open, for NATIX to read it.

        Raises:
            HubFault: it is not ours, or not open.
        """
        self._told(lambda: self._api.create_repo(self.name, exist_ok=True, private=False))
        info = self._told(lambda: self._api.model_info(self.name))
        if info.private or info.gated:
            raise HubFault(
                f"{self.name} is {'private' if info.private else 'gated'}, and NATIX could not read it: open it at "
                f"{self._api.endpoint}/{self.name}/settings"
            )

    def commit(self, files: Mapping[str, Path | bytes], message: str, *, show: bool) -> str:
        """Send files in one commit, which takes weights of before away that would be read in place of them.

        Args:
            files: by their names in the repository.
            message: of the commit.
            show: whether the hub's library draws its bars.

        Returns:
            Its address.

        Raises:
            HubFault: the hub refuses, or can't be reached; nothing of it is visible then.
        """
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete
        from huggingface_hub.utils.tqdm import disable_progress_bars, enable_progress_bars

        (enable_progress_bars if show else disable_progress_bars)()
        there = self._told(lambda: self._api.model_info(self.name)).siblings or []
        operations: list[CommitOperationAdd | CommitOperationDelete]
        operations = [
            CommitOperationDelete(one.rfilename)
            for one in there
            if STALE.fullmatch(one.rfilename) and one.rfilename not in files
        ]
        operations += [CommitOperationAdd(name, file) for name, file in files.items()]
        found = self._told(lambda: self._api.create_commit(self.name, operations, commit_message=message))
        return str(found.commit_url)

    def _told(self, ask: Callable[[], T]) -> T:
        import httpx

        try:
            return ask()
        except (OSError, ValueError, RuntimeError, httpx.HTTPError) as error:  # newer hub libraries are built on httpx
            refusal = hub_refusal(error)
            if refusal is None:
                raise HubFault(f"{self._api.endpoint} can't be reached: {one_line(str(error))}") from error
            raise HubFault(
                f"the hub refuses {self.name}: {one_line(refusal.words)} ({refusal.status}): "
                f"{way_out(refusal.status, self.name)}"
            ) from error


def way_out(status: int, repository: str) -> str:
    """Return what can be done about the refusal of something that we would write."""
    owner = repository.split("/")[0]
    if status == UNAUTHORISED:
        return f"HF_TOKEN is not a valid token, or may not see it; {NEEDS_TOKEN}"
    if status == FORBIDDEN:
        return f"the token's account is not {owner} or may not write there, or the token can only read; {NEEDS_TOKEN}"
    if status == NOT_FOUND:
        return f"--repo names it: is there an account {owner}?"
    if status >= 500 or status == TOO_MUCH:
        return TRY_LATER
    return "look at --repo and at the files"
